"""Event columns to record values, for any writer version of the schema."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro
from numpy.typing import NDArray

from loadgen.errors import BadOption
from loadgen.schemas import AvroSchema
from loadgen.wire import IDENTITY_FIELD, MARKER_FIELD, WireFormat

ARROW_TYPES = {
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
}


class Writer:
    """Writes event columns as one version of the schema."""

    def __init__(self, schema: AvroSchema, wire_format: WireFormat, identity: bytes) -> None:
        self.schema = schema
        self._wire_format = wire_format
        self._identity = identity
        self._columnar = schema.columnar(wire_format)

    def expressible(self, events: pa.RecordBatch) -> NDArray[np.bool_]:
        """Which rows this version can say: no null where it has no union, no symbol its enum lacks."""
        able = np.ones(events.num_rows, dtype=np.bool_)
        for field in self.schema.fields:
            name, avro_type = field["name"], field["type"]
            if name not in events.schema.names:
                continue
            column = events.column(name)
            if not isinstance(avro_type, list):
                able &= column.is_valid().to_numpy(zero_copy_only=False)
            if isinstance(avro_type, dict) and avro_type["type"] == "enum":
                able &= column.to_numpy() < len(avro_type["symbols"])
        return able

    def write(self, events: pa.RecordBatch) -> list[bytes]:
        """Write row i as record value i.

        Every row must be expressible. A field the events lack gets its default.
        """
        rows = events.num_rows
        columns = list(self._wire_format.header_columns(self._identity, rows))
        names = [MARKER_FIELD, IDENTITY_FIELD]
        for field in self.schema.fields:
            names.append(field["name"])
            columns.append(_column(events, field, rows))
        batch = pa.RecordBatch.from_arrays(columns, names)
        parts = pyruhvro.serialize_record_batch(batch, self._columnar, 1)
        return [value for part in parts for value in part.to_pylist()]


def _column(events: pa.RecordBatch, field: dict[str, Any], rows: int) -> pa.Array:
    arrow_type = _arrow_type(field["type"])
    if field["name"] not in events.schema.names:
        return pa.repeat(pa.scalar(field["default"], arrow_type), rows)
    column = events.column(field["name"])
    # safe=False: an older version may have whole numbers where today's events have fractions
    return column if column.type == arrow_type else pc.cast(column, arrow_type, safe=False)


def _arrow_type(avro_type: Any) -> pa.DataType:  # noqa: ANN401 - an Avro type is a string, a list or an object
    if isinstance(avro_type, list):
        return _arrow_type(next(branch for branch in avro_type if branch != "null"))
    if isinstance(avro_type, dict):
        if avro_type["type"] == "enum":
            return pa.int32()
        if avro_type["type"] == "array":
            return pa.list_(_arrow_type(avro_type["items"]))
        return _arrow_type(avro_type["type"])
    if avro_type not in ARROW_TYPES:
        raise BadOption(f"event schemas here have no fields of type {avro_type!r}")
    return ARROW_TYPES[avro_type]


def write_mixed(writers: Sequence[Writer], everything: Writer, events: pa.RecordBatch, first: int) -> list[bytes]:
    """Write row i as record value i; event number n by version n modulo their number.

    `everything` writes what the version in turn cannot say. `first` is the number of row 0.
    """
    turn = (first + np.arange(events.num_rows)) % len(writers)
    leftover = np.zeros(events.num_rows, dtype=np.bool_)
    values = np.empty(events.num_rows, dtype=object)
    for index, writer in enumerate(writers):
        able = writer.expressible(events)
        if len(writers) == 1 and able.all():
            return writer.write(events)
        mine = turn == index
        leftover |= mine & ~able
        rows = np.flatnonzero(mine & able)
        values[rows] = writer.write(events.take(pa.array(rows)))
    rows = np.flatnonzero(leftover)
    if len(rows):
        values[rows] = everything.write(events.take(pa.array(rows)))
    result: list[bytes] = values.tolist()
    return result
