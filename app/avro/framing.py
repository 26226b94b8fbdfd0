"""The header in front of every datum, and how the columnar codec reads and writes it without slicing.

Confluent wire format: 0x00, 4-byte big-endian schema id, datum.
Avro single-object encoding: 0xC3 0x01, 8-byte little-endian CRC-64-AVRO fingerprint of the schema's
Parsing Canonical Form, datum (Avro 1.12 specification, "Single-object encoding").

Trick: Avro writes boolean as one raw byte, float as four, double as eight, and the bytes 0xC3 0x01 are the
zig-zag varint of -98. So a header is the Avro encoding of two leading fields, {boolean, float} or
{int, double}, and a columnar codec can read or write it as two more columns. The bit patterns must never
pass through a Python float: signalling NaNs would be quietened, and 549 of the schema ids up to 300,000 break.
"""

import struct
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from app.errors import DecodeFailed, Reason


class Framing(Protocol):
    """One wire format."""

    @property
    def size(self) -> int:
        """Bytes of a header."""
        ...

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The two Avro fields that a header is the encoding of."""
        ...

    def header_of(self, value: bytes) -> bytes:
        """The header of a record's value. Raises DecodeFailed (bad_frame)."""
        ...

    def columns(self, header: bytes, rows: int) -> list[pa.Array]:
        """The two columns that encode as `header` in each of `rows` rows."""
        ...

    def all_are(self, header: bytes, values: list[bytes], first: pa.Array, second: pa.Array) -> bool:
        """Whether the two decoded columns say that every one of `values` starts with `header`."""
        ...


class ConfluentFraming:
    """0x00 and a 4-byte schema id."""

    size = 5
    fields: list[dict[str, Any]] = [  # noqa: RUF012 - read only
        {"name": "__frame_marker", "type": "boolean"},
        {"name": "__frame_id", "type": "float"},
    ]

    @staticmethod
    def header(schema_id: int) -> bytes:
        """The header that names `schema_id`, 0 <= schema_id < 2**32."""
        return struct.pack(">BI", 0, schema_id)

    @staticmethod
    def schema_id(header: bytes) -> int:
        """The schema id that `header` names."""
        return int.from_bytes(header[1:], "big")

    def header_of(self, value: bytes) -> bytes:
        """The header of a record's value. Raises DecodeFailed (bad_frame)."""
        if len(value) < self.size:
            msg = f"{len(value)} bytes: too short for the 5-byte Confluent header"
            raise DecodeFailed(Reason.BAD_FRAME, msg)
        if value[0] != 0:
            raise DecodeFailed(Reason.BAD_FRAME, f"first byte is 0x{value[0]:02x}, the Confluent marker is 0x00")
        return value[: self.size]

    def columns(self, header: bytes, rows: int) -> list[pa.Array]:
        """The two columns that encode as `header` in each of `rows` rows."""
        ids = np.frombuffer(header[1:] * rows, "<f4")
        return [
            pa.array(np.zeros(rows, np.bool_)),
            pa.Array.from_buffers(pa.float32(), rows, [None, pa.py_buffer(ids)]),
        ]

    def all_are(self, header: bytes, values: list[bytes], first: pa.Array, second: pa.Array) -> bool:  # noqa: ARG002
        """Whether the two decoded columns say that every one of `values` starts with `header`."""
        expected = int.from_bytes(header[1:], "little")
        return not first.true_count and bool((second.to_numpy().view("<u4") == expected).all())


class SingleObjectFraming:
    """0xC3 0x01 and an 8-byte fingerprint."""

    size = 10
    fields: list[dict[str, Any]] = [  # noqa: RUF012 - read only
        {"name": "__frame_marker", "type": "int"},
        {"name": "__frame_id", "type": "double"},
    ]
    _MARKER = b"\xc3\x01"
    _MARKER_AS_INT = -98

    @classmethod
    def header(cls, fingerprint: bytes) -> bytes:
        """The header that names the schema with this little-endian CRC-64-AVRO fingerprint."""
        return cls._MARKER + fingerprint

    def header_of(self, value: bytes) -> bytes:
        """The header of a record's value. Raises DecodeFailed (bad_frame)."""
        if len(value) < self.size:
            msg = f"{len(value)} bytes: too short for the 10-byte single-object header"
            raise DecodeFailed(Reason.BAD_FRAME, msg)
        if not value.startswith(self._MARKER):
            msg = f"starts with 0x{value[:2].hex()}, the single-object marker is 0xc301"
            raise DecodeFailed(Reason.BAD_FRAME, msg)
        return value[: self.size]

    def columns(self, header: bytes, rows: int) -> list[pa.Array]:
        """The two columns that encode as `header` in each of `rows` rows."""
        fingerprints = np.frombuffer(header[2:] * rows, "<f8")
        markers = pa.array(np.full(rows, self._MARKER_AS_INT, np.int32))
        return [markers, pa.Array.from_buffers(pa.float64(), rows, [None, pa.py_buffer(fingerprints)])]

    def all_are(self, header: bytes, values: list[bytes], first: pa.Array, second: pa.Array) -> bool:
        """Whether the two decoded columns say that every one of `values` starts with `header`.

        The second byte is looked at as well, because -98 has longer, non-canonical varints.
        """
        expected = int.from_bytes(header[2:], "little")
        return (
            bool((first.to_numpy() == self._MARKER_AS_INT).all())
            and bool((second.to_numpy().view("<u8") == expected).all())
            and [value[1] for value in values].count(1) == len(values)
        )
