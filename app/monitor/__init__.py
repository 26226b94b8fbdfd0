"""The monitor: summaries and outcomes of many workers → windows, drift and accuracy of each model version."""
