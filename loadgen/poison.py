"""Records that must not be predicted: how each kind is made, and the reason a dead letter must give for it.

Every kind is wrong in one way only. Malformed datums are written by a schema that lies (an int where the
real one has a union or an enum), so the bytes around the fault stay right.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
from numpy.typing import NDArray

from loadgen.errors import BadOption
from loadgen.schemas import AvroSchema
from loadgen.wire import CONFLUENT, WireFormat

POISON_HEADER = "loadgen.poison"

REASONS: Mapping[str, str] = {
    "bad_marker": "bad_frame",
    "short_frame": "bad_frame",
    "truncated": "truncated",
    "bad_utf8": "bad_utf8",
    "bad_union_index": "bad_index",
    "bad_enum_index": "bad_index",
    "trailing_bytes": "trailing_bytes",
    "unknown_schema": "unknown_schema",
    "out_of_range": "out_of_range",
    "not_finite": "not_finite",
    "bad_shape": "bad_shape",
}

# Identities nobody has: an id near the top of the signed range, and a fingerprint that no schema here has.
UNKNOWN_SCHEMA_ID = (0x7FFFFFF0).to_bytes(4, "big")
UNKNOWN_FINGERPRINT = b"no-such!"

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class PoisonShare:
    """Which events are poison: the share spread evenly, so n events hold exactly floor(n * share) of them."""

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise BadOption("--poison: a share, 0 to 1")

    def ordinals(self, first: int, count: int) -> NDArray[np.int64]:
        """Return which poison record (0, 1, 2, …) each event from `first` on is; -1 if healthy."""
        per_million = round(self.share * MILLION)
        before = np.arange(first, first + count + 1, dtype=np.int64) * per_million // MILLION
        return np.where(np.diff(before) > 0, before[:-1], -1)


class Poisoner:
    """Spoils events of one pipeline, written by today's schema."""

    def __init__(self, schema: AvroSchema, wire_format: WireFormat, identity: bytes) -> None:
        self._schema = schema
        self._wire_format = wire_format
        self._header = wire_format.header(identity)
        self._makers: Mapping[str, Callable[[dict[str, Any]], bytes]] = {
            "bad_marker": lambda row: b"\x7f" + self._healthy(row)[1:],
            "short_frame": lambda row: self._healthy(row)[: len(wire_format.marker) + 2],
            "truncated": lambda row: self._healthy(row)[:-3],
            "bad_utf8": self._bad_utf8,
            "bad_union_index": lambda row: self._lie(row, "total_charges", 7),
            "bad_enum_index": lambda row: self._lie(row, "plan", -1),
            "trailing_bytes": lambda row: self._healthy(row) + b"\x00\x01\x02",
            "unknown_schema": self._unknown_schema,
            "out_of_range": self._out_of_range,
            "not_finite": self._not_finite,
            "bad_shape": lambda row: self._healthy({**row, "pixels": row["pixels"][:-1]}),
        }

    def spoil(self, kind: str, row: dict[str, Any]) -> bytes:
        """Return an event as a record value that is wrong in this way.

        row: all fields of the schema, enums by symbol.
        """
        return self._makers[kind](row)

    def _healthy(self, row: Mapping[str, Any]) -> bytes:
        return self._header + _datum(self._schema.parsed, row)

    def _bad_utf8(self, row: dict[str, Any]) -> bytes:
        value = bytearray(self._healthy(row))
        id_field = self._schema.fields[0]["name"]
        at = value.index(row[id_field].encode())
        value[at] = 0xFF  # appears nowhere in UTF-8
        return bytes(value)

    def _lie(self, row: dict[str, Any], field: str, index: int) -> bytes:
        fields = [{**f, "type": "int"} if f["name"] == field else f for f in self._schema.fields]
        for lie in fields:
            lie.pop("default", None)
        raw = {**json.loads(self._schema.text), "fields": fields}
        return self._header + _datum(fastavro.parse_schema(raw), {**row, field: index})

    def _unknown_schema(self, row: dict[str, Any]) -> bytes:
        identity = UNKNOWN_SCHEMA_ID if self._wire_format is CONFLUENT else UNKNOWN_FINGERPRINT
        return self._wire_format.header(identity) + _datum(self._schema.parsed, row)

    def _out_of_range(self, row: dict[str, Any]) -> bytes:
        if "pixels" in row:
            return self._healthy({**row, "pixels": [999.0, *row["pixels"][1:]]})
        return self._healthy({**row, "age": 999})

    def _not_finite(self, row: dict[str, Any]) -> bytes:
        if "pixels" in row:
            return self._healthy({**row, "pixels": [float("nan"), *row["pixels"][1:]]})
        return self._healthy({**row, "income": float("inf")})


def _datum(parsed_schema: Any, row: Mapping[str, Any]) -> bytes:  # noqa: ANN401 - fastavro's own type
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, parsed_schema, row)
    return buffer.getvalue()
