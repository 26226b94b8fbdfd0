"""Metrics, probes and logs: they watch, they never steer."""
