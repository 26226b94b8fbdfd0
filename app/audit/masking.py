"""What the trail does not keep in the clear: dropped columns, and columns of keyed hashes.

The hash is HMAC-SHA-256 cut to 128 bits, in hexadecimal: equal values have equal hashes, in every field and in the key,
so that a trail can be asked for a key, or joined, by who has the secret, and by nobody else.
"""

import hmac
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from app.audit.policy import KEY, MaskMode
from app.errors import BadSettings

HASH_DIGITS = 32


class Mask:
    """Applied to the columns of one pipeline, before anything is buffered."""

    def __init__(self, modes: Mapping[str, MaskMode], secret: bytes | None) -> None:
        self._modes, self._secret = dict(modes), secret or b""

    def check(self, fields: pa.Schema) -> None:
        """Raises BadSettings for a hash of what is not one value."""
        for column in fields:
            if self._modes.get(column.name) == "hash" and pa.types.is_nested(column.type):
                raise BadSettings(f"audit.mask: {column.name} is a list; it can be dropped, not hashed")

    def fields(self, fields: pa.Schema) -> pa.Schema:
        """The columns that are kept, as they are kept."""
        kept = [column for column in fields if self._modes.get(column.name) != "drop"]
        return pa.schema([column.with_type(pa.string()) if self._hashes(column.name) else column for column in kept])

    def column(self, name: str, values: pa.Array) -> pa.Array:
        """A column of `fields`, masked. Nulls stay null."""
        return self._hashed(values.cast(pa.string())) if self._hashes(name) else values

    def keys(self, keys: Sequence[bytes | None]) -> pa.Array:
        """The column of keys: binary; all null if they are dropped."""
        if self._modes.get(KEY) == "drop":
            return pa.nulls(len(keys), pa.binary())
        column = pa.array(keys, pa.binary())
        return self._hashed(column).cast(pa.binary()) if self._hashes(KEY) else column

    def key(self, key: bytes) -> bytes:
        """What `keys` makes of it: what to look for. Raises BadSettings if keys are not kept."""
        if self._modes.get(KEY) == "drop":
            raise BadSettings(f"audit.mask drops {KEY}: the trail cannot be asked for a key")
        return self._digest(key).encode() if self._hashes(KEY) else key

    def _hashes(self, name: str) -> bool:
        return self._modes.get(name) == "hash"

    def _hashed(self, values: pa.Array) -> pa.Array:
        # one hash per distinct value: about a microsecond of each that columns cannot save
        encoded = values.dictionary_encode()
        distinct = encoded.dictionary.cast(pa.binary()).to_pylist()
        hashes = pa.array([self._digest(value) for value in distinct], pa.string())
        return pc.take(hashes, encoded.indices)

    def _digest(self, value: bytes) -> str:
        return hmac.digest(self._secret, value, "sha256").hex()[:HASH_DIGITS]


def check_names(modes: Mapping[str, MaskMode], schemas: Sequence[pa.Schema]) -> None:
    """Raises BadSettings for a field that no pipeline has: a misspelt one would stay in the clear."""
    known = {name for schema in schemas for name in schema.names} | {KEY}
    if unknown := sorted(modes.keys() - known):
        raise BadSettings(f"audit.mask: {', '.join(unknown)}: no such field; there are {', '.join(sorted(known))}")
