"""A record comes in, is batched, decoded, turned into features, scored, encoded and delivered.

Its offset is committed only after its prediction, or its dead letter, is acknowledged.
`docs/DESIGN.md` has the file map and what is non-obvious.
"""
