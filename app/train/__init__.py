"""Training of the two shipped models, from the events' own columns and with the serving feature code."""
