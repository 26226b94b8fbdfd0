"""Hostile bytes through the real decoders, in processes of their own."""
