"""Messages and stubs of `schemas/grpc`. All but `generate.py` is written by `make protos`, never by hand."""
