"""The load generator: a black box that knows schemas and topics, and nothing of the worker it tests."""
