"""The batch surface: rows of files → answers in files, through the stream's own steps."""
