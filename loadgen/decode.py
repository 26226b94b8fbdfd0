"""Record values of a prediction topic to Arrow columns; whatever else is in there is named, never fatal.

A batch counts as decoded only if every datum was consumed to its last byte (a random sentinel behind each
must come back from the last column) and every string is UTF-8: the columnar codec itself accepts both
faults.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro
from numpy.typing import NDArray

from loadgen.schema_source import SchemaSource
from loadgen.schemas import AvroSchema

SENTINEL_FIELD = "_sentinel"
READABLE = frozenset({"int", "long", "float", "double", "string", "boolean"})  # the codec panics on others


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came of a list of values.

    rows: which of them were decoded, ascending. columns: their fields. unreadable: (row, why) of the rest.
    """

    rows: NDArray[np.int64]
    columns: pa.Table
    unreadable: list[tuple[int, str]]


class Decoder:
    """Decodes values that should be predictions; `wanted` is the fields and types each of them must have."""

    def __init__(self, schemas: SchemaSource, wanted: pa.Schema) -> None:
        self._schemas = schemas
        self._wanted = wanted
        self._known: dict[bytes, str | None] = {}
        self._why: dict[bytes, str] = {}
        self._sentinel = os.urandom(8)

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Decode what can be decoded. Raises RegistryFailed if the registry cannot be asked."""
        size = self._schemas.wire_format.header_size
        marker = self._schemas.wire_format.marker
        unreadable: list[tuple[int, str]] = []
        groups: dict[bytes, list[int]] = {}
        heads = [value[:size] if value is not None else b"" for value in values]
        if values and len(set(heads)) == 1:
            groups[heads[0]] = list(range(len(values)))
        else:
            for row, head in enumerate(heads):
                groups.setdefault(head, []).append(row)
        parts: list[tuple[NDArray[np.int64], pa.RecordBatch]] = []
        for head, rows in groups.items():
            if len(head) < size or not head.startswith(marker):
                why = "no value" if not head else f"no {self._schemas.wire_format.name} header"
                unreadable += [(row, why if values[row] is None or head else "no value") for row in rows]
                continue
            columnar = self._columnar(head[len(marker) :])
            if columnar is None:
                unreadable += [(row, self._why[head[len(marker) :]]) for row in rows]
                continue
            self._decode_group(values, rows, columnar, parts, unreadable)
        return self._join(parts, sorted(unreadable))

    def _columnar(self, identity: bytes) -> str | None:
        if identity not in self._known:
            self._known[identity] = None
            schema = self._schemas.schema(identity)
            if schema is None:
                self._why[identity] = f"unknown schema {identity.hex()}"
            elif why := self._unfit(schema):
                self._why[identity] = why
            else:
                self._known[identity] = schema.columnar(
                    self._schemas.wire_format, extra=({"name": SENTINEL_FIELD, "type": "double"},)
                )
        return self._known[identity]

    def _unfit(self, schema: AvroSchema) -> str | None:
        """Why no prediction can be written by this schema, or None."""
        types = {field["name"]: field["type"] for field in schema.fields}
        missing = [name for name in self._wanted.names if name not in types]
        if missing:
            return f"its schema {schema.parsed['name']} has no field {missing[0]}"
        odd = [name for name, avro_type in types.items() if not _readable(avro_type)]
        return f"its schema has a field {odd[0]} of a type no prediction has" if odd else None

    def _decode_group(
        self,
        values: Sequence[bytes | None],
        rows: list[int],
        columnar: str,
        parts: list[tuple[NDArray[np.int64], pa.RecordBatch]],
        unreadable: list[tuple[int, str]],
    ) -> None:
        """Decode rows of one schema; halve what fails until the bad rows stand alone."""
        framed = [(values[row] or b"") + self._sentinel for row in rows]
        try:
            batch = pyruhvro.deserialize_array(framed, columnar)
            for column in batch.columns:
                column.validate(full=True)
            end = batch.column(batch.schema.names.index(SENTINEL_FIELD)).to_numpy().view("<i8")
            whole = end == np.frombuffer(self._sentinel, "<i8")[0]
            columns = [self._cast(batch.column(field.name), field) for field in self._wanted]
        except (ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
            if len(rows) == 1:
                unreadable.append((rows[0], f"not a prediction: {str(error)[:80]}"))
                return
            middle = len(rows) // 2
            self._decode_group(values, rows[:middle], columnar, parts, unreadable)
            self._decode_group(values, rows[middle:], columnar, parts, unreadable)
            return
        good = pa.RecordBatch.from_arrays(columns, schema=self._wanted)
        numbers = np.array(rows, dtype=np.int64)
        if not whole.all():
            unreadable += [(int(row), "bytes after the datum") for row in numbers[~whole]]
            good, numbers = good.filter(pa.array(whole)), numbers[whole]
        parts.append((numbers, good))

    @staticmethod
    def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
        if column.null_count:
            raise ValueError(f"{field.name} is null")
        return column if column.type == field.type else pc.cast(column, field.type)

    def _join(
        self, parts: list[tuple[NDArray[np.int64], pa.RecordBatch]], unreadable: list[tuple[int, str]]
    ) -> Decoded:
        if not parts:
            return Decoded(np.empty(0, dtype=np.int64), self._wanted.empty_table(), unreadable)
        rows = np.concatenate([numbers for numbers, _ in parts])
        table = pa.Table.from_batches([batch for _, batch in parts], self._wanted).combine_chunks()
        if len(parts) > 1:
            order = np.argsort(rows, kind="stable")
            rows, table = rows[order], table.take(pa.array(order))
        return Decoded(rows, table, unreadable)


def _readable(avro_type: Any) -> bool:  # noqa: ANN401 - an Avro type is a string, a list or an object
    if isinstance(avro_type, str):
        return avro_type in READABLE
    if isinstance(avro_type, dict):
        if avro_type["type"] == "array":
            return _readable(avro_type["items"])
        return avro_type["type"] == "enum" or avro_type["type"] in READABLE
    return False  # a union: predictions say everything always
