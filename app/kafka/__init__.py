"""Adapters to Kafka and the schema registry: the only package that imports the client."""
