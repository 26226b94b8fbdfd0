"""The command line: one file per command, options to plans, results to a terminal or to JSON."""
