"""Avro: headers, schemas, and datums as columns."""
