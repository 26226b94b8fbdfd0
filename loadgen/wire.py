"""The bytes in front of a datum, in both wire formats.

Confluent: 0x00, 4-byte big-endian schema id. Single-object encoding: 0xC3 0x01, 8-byte little-endian
CRC-64-AVRO fingerprint of the canonical schema.

A columnar codec knows neither, but a record schema that starts with the right two fields reads and writes
exactly these bytes: {boolean, float} is 1 + 4 raw bytes, {int, double} is a two-byte varint (0xC3 0x01 = -98)
and 8 raw bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

MARKER_FIELD = "_marker"
IDENTITY_FIELD = "_identity"


@dataclass(frozen=True, slots=True)
class WireFormat:
    """One way to say which schema wrote a datum.

    marker: the first bytes of every record. identity_size: the bytes that name the schema.
    marker_type, marker_value, identity_type: how two Avro fields spell the header.
    """

    name: str
    marker: bytes
    identity_size: int
    marker_type: str
    marker_value: bool | int
    identity_type: str

    @property
    def header_size(self) -> int:
        """Bytes in front of the datum."""
        return len(self.marker) + self.identity_size

    def header(self, identity: bytes) -> bytes:
        """Return the header of a datum written by the schema of this identity."""
        return self.marker + identity

    def prefixed(self, fields: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Record fields whose first two are the header."""
        return [
            {"name": MARKER_FIELD, "type": self.marker_type},
            {"name": IDENTITY_FIELD, "type": self.identity_type},
            *fields,
        ]

    def header_columns(self, identity: bytes, rows: int) -> tuple[pa.Array, pa.Array]:
        """Return the two header columns, `rows` long.

        The identity never becomes a Python float: some identities are signalling NaNs, which that would
        quieten.
        """
        marker_dtype = np.bool_ if self.marker_type == "boolean" else np.int32
        identity_dtype = "<f4" if self.identity_type == "float" else "<f8"
        return (
            pa.array(np.full(rows, self.marker_value, dtype=marker_dtype)),
            pa.array(np.frombuffer(identity * rows, dtype=identity_dtype)),
        )


CONFLUENT = WireFormat("confluent", b"\x00", 4, "boolean", marker_value=False, identity_type="float")
SINGLE_OBJECT = WireFormat("single_object", b"\xc3\x01", 8, "int", marker_value=-98, identity_type="double")


def schema_id_bytes(schema_id: int) -> bytes:
    """Return the Confluent identity of a registered schema."""
    return schema_id.to_bytes(4, "big")
