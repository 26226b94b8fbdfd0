"""Records of a topic → rows of the trail, in columns; one row per record, whatever is in it.

The columns are the prediction's own fields (of an event, those that are features) and these, of the record itself:

    audit_key        binary, the record's key
    audit_partition  int32 and
    audit_offset     int64, where it is in its topic
    audit_time       its timestamp, UTC
    audit_reject     null; of a record that cannot be read, why: then all fields but these are null
"""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from app.audit.masking import Mask
from app.audit.policy import KEY
from app.avro.columns import reader_columns
from app.avro.schemas import Schema
from app.errors import SchemaIncompatible
from app.pipeline.decode import Decoder, DecodeResult
from app.records import Columns, IntArray, Origin, Record

PARTITION, OFFSET, TIME, REJECT = "audit_partition", "audit_offset", "audit_time", "audit_reject"
TOMBSTONE = "tombstone"
PREFIX = "audit_"

_OWN = pa.schema(
    [
        pa.field(KEY, pa.binary()),
        pa.field(PARTITION, pa.int32()),
        pa.field(OFFSET, pa.int64()),
        pa.field(TIME, pa.timestamp("ms", "UTC")),
        pa.field(REJECT, pa.string()),
    ]
)


class PipelineRows:
    """The rows of one pipeline's predictions, or events. One thread only.

    schema: of every batch it gives, and of the files.
    """

    def __init__(self, decoder: Decoder, reader: Schema, mask: Mask, only: Collection[str] | None = None) -> None:
        """only: the fields that are kept; None for all.

        Raises SchemaIncompatible if a field has one of our names, BadSettings if the mask does not fit.
        """
        fields = kept_fields(reader, only)
        if taken := [name for name in fields.names if name.startswith(PREFIX)]:
            raise SchemaIncompatible(
                f"{reader.name}: {', '.join(taken)}: names with {PREFIX} are the audit trail's own"
            )
        mask.check(fields)
        self._decoder, self._mask = decoder, mask
        self._fields = mask.fields(fields)
        self.schema = pa.schema([*_OWN, *self._fields])

    def rows_of(self, records: Sequence[Record], origin: Origin) -> pa.RecordBatch:
        """One row per record, in their order. Raises SchemasPending; then nothing happened."""
        values = [record.value() for record in records]
        decoded = self._decode(values)
        columns = [
            self._mask.keys([record.key() for record in records]),
            pa.array(origin.partitions().astype(np.int32)),
            pa.array(origin.offsets),
            pa.array(origin.timestamps_ms).view(pa.timestamp("ms", "UTC")),
            _reasons(values, decoded),
        ]
        table = _spread(decoded.columns, len(records))
        columns += [self._mask.column(name, _plain(table.column(name))) for name in self._fields.names]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _decode(self, values: list[bytes | None]) -> DecodeResult:
        if None not in values:
            return self._decoder.decode(values, np.arange(len(values)))  # type: ignore[arg-type] # none is None
        rows = np.array([row for row, value in enumerate(values) if value is not None], np.int64)
        if not len(rows):
            return DecodeResult(self._decoder.nothing(), [])
        return self._decoder.decode([value for value in values if value is not None], rows)


def kept_fields(reader: Schema, only: Collection[str] | None = None) -> pa.Schema:
    """A schema's columns as files have them, all or only these: nullable, enums as text, times in UTC."""
    return pa.schema(
        [
            pa.field(column.name, _plain_type(column.type))
            for column in reader_columns(reader)
            if only is None or column.name in only
        ]
    )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) else kind


def _plain(values: pa.Array) -> pa.Array:
    kind = _plain_type(values.type)
    if kind == values.type:
        return values
    return values.view(kind) if pa.types.is_timestamp(kind) else values.cast(kind)


def _spread(columns: Columns, count: int) -> pa.RecordBatch:
    """The decoded rows where they were, nulls between them."""
    if len(columns.rows) == count:
        return columns.table
    index: IntArray = np.full(count, -1, np.int64)
    index[columns.rows] = np.arange(len(columns.rows))
    nullable = pa.schema([column.with_nullable(nullable=True) for column in columns.table.schema])
    loose = pa.RecordBatch.from_arrays(columns.table.columns, schema=nullable)
    return loose.take(pa.array(index, mask=index < 0))


def _reasons(values: Sequence[bytes | None], decoded: DecodeResult) -> pa.Array:
    if len(decoded.columns.rows) == len(values):
        return pa.nulls(len(values), pa.string())
    reasons: list[str | None] = [None if value is not None else TOMBSTONE for value in values]
    for rejection in decoded.rejected:
        reasons[rejection.row] = rejection.reason.value
    return pa.array(reasons, pa.string())
