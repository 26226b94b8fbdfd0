"""Answers and rejected rows as the bytes of one part file: Parquet or CSV."""

from collections.abc import Sequence
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from app.errors import BadSettings, Reason, Stage
from app.records import Rejection
from app.scoring.rows_in import Unreadable

Format = Literal["parquet", "csv"]

REPEATING = frozenset({"rollout_revision", "predicted_at", "rejected_file", "rejected_stage", "rejected_reason"})
REJECTED = (
    pa.field("rejected_file", pa.string()),
    pa.field("rejected_row", pa.int64()),
    pa.field("rejected_stage", pa.string()),
    pa.field("rejected_reason", pa.string()),
    pa.field("rejected_message", pa.string()),
    pa.field("rejected_line", pa.string()),
)


class Part(Protocol):
    """One part file in the making; all of it is held in memory, compressed if the format is."""

    def write(self, table: pa.RecordBatch) -> None:
        """Add these rows."""
        ...

    def finish(self) -> pa.Buffer:
        """The file's bytes; nothing can be written any more."""
        ...


def part_of(output: Format, schema: pa.Schema) -> Part:
    """An empty part of this format."""
    return _ParquetPart(schema) if output == "parquet" else _CsvPart(schema)


def check_schema(output: Format, schema: pa.Schema) -> None:
    """Raises BadSettings, naming the column, if the format cannot hold one, or if a name occurs twice."""
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise BadSettings(f"the output would have {', '.join(twice)} more than once: keep fewer columns of the input")
    if output == "csv":
        for item in schema:
            if pa.types.is_nested(item.type):
                raise BadSettings(f"the output column {item.name!r} is {item.type}, which CSV cannot hold: use parquet")


class _ParquetPart:
    def __init__(self, schema: pa.Schema) -> None:
        self._sink = pa.BufferOutputStream()
        # dictionaries only where values repeat: to look for them among a million different numbers costs as much as
        # scoring; columns that already are dictionaries are written as they are
        repeating = [item.name for item in schema if pa.types.is_dictionary(item.type) or _is_constant(item)]
        self._writer = pa.parquet.ParquetWriter(
            self._sink, schema, compression="zstd", compression_level=1, use_dictionary=repeating or False
        )

    def write(self, table: pa.RecordBatch) -> None:
        self._writer.write_batch(table)

    def finish(self) -> pa.Buffer:
        self._writer.close()
        return self._sink.getvalue()


class _CsvPart:
    def __init__(self, schema: pa.Schema) -> None:
        self._sink = pa.BufferOutputStream()
        self._schema = pa.schema([(item.name, _plain(item.type)) for item in schema])
        self._writer = pa.csv.CSVWriter(self._sink, self._schema)

    def write(self, table: pa.RecordBatch) -> None:
        self._writer.write_batch(table.cast(self._schema))

    def finish(self) -> pa.Buffer:
        self._writer.close()
        return self._sink.getvalue()


class RejectedRows:
    """The rows of one part that have no answer, with why, and with what they said."""

    def __init__(self, file: str, output: Format, columns: Sequence[pa.Field]) -> None:
        self._file, self._output = file, output
        names = {item.name for item in REJECTED}
        fitting = (item for item in columns if item.name not in names and not _is_nested_csv(output, item))
        self._columns = [pa.field(item.name, item.type) for item in fitting]
        self._schema = pa.schema([*REJECTED, *self._columns])
        self._part: Part | None = None
        self.count = 0

    def add(self, table: pa.RecordBatch, first_row: int, rejected: Sequence[Rejection]) -> None:
        """Rows of a table whose first is row `first_row` of its file."""
        if not rejected:
            return
        rows = pa.array([item.row for item in rejected], pa.int64())
        columns = table.select([item.name for item in self._columns]).take(rows)
        why = [
            pa.array([self._file] * len(rejected), pa.string()),
            pa.array([first_row + item.row for item in rejected], pa.int64()),
            pa.array([item.stage.value for item in rejected], pa.string()),
            pa.array([item.reason.value for item in rejected], pa.string()),
            pa.array([item.message for item in rejected], pa.string()),
            pa.nulls(len(rejected), pa.string()),
        ]
        self._write([*why, *columns.columns], len(rejected))

    def add_lines(self, lines: Sequence[Unreadable]) -> None:
        """Lines that are no rows."""
        if not lines:
            return
        count = len(lines)
        why = [
            pa.array([self._file] * count, pa.string()),
            pa.nulls(count, pa.int64()),
            pa.array([Stage.DECODE.value] * count, pa.string()),
            pa.array([Reason.BAD_FRAME.value] * count, pa.string()),
            pa.array([line.message for line in lines], pa.string()),
            pa.array([line.line for line in lines], pa.string()),
        ]
        self._write([*why, *(pa.nulls(count, item.type) for item in self._columns)], count)

    def finish(self) -> pa.Buffer | None:
        """The file's bytes, None if no row was rejected."""
        return None if self._part is None else self._part.finish()

    def _write(self, arrays: list[pa.Array], count: int) -> None:
        if self._part is None:
            self._part = part_of(self._output, self._schema)
        self._part.write(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self.count += count


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_constant(item: pa.Field) -> bool:
    return item.name in REPEATING


def _is_nested_csv(output: Format, item: pa.Field) -> bool:
    return output == "csv" and bool(pa.types.is_nested(item.type))
