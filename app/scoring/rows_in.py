"""Files of rows, read in pieces that always come the same way: a job that was killed reads them again.

Parquet gives its own types. CSV gives text: what a cell has to be is the model's business (`casts.py`), and what the
library would guess from the first block could be wrong in the second.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from app.errors import BadSettings, InputDamaged, SchemaIncompatible
from app.scoring.quote_guard import QuoteGuard, QuoteParity
from app.scoring.utf8_guard import SUBSTITUTE, Utf8Guard

BATCH_ROWS = 65_536  # of the shipped models' columns about 3 MB: large against a call, small against memory
BATCH_BYTES = 64 << 20  # of rows that are wider than a kilobyte: tensors and answers of a batch are a few times that
PROBE_ROWS = 64  # read to learn how wide rows are: what a file says of its size is said of its encoding
READ_BUFFER_BYTES = 1 << 20  # so much of each column is read at a time, however large a row group is
CSV_BLOCK_BYTES = 4 << 20  # the longest line there may be
LONGEST_LINE = 1_000  # characters kept of a line that is no row

OpenFile = Callable[[], pa.NativeFile]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row, or a line that is none, that nothing can be made of. line: its text, None if its columns are known."""

    row: int | None
    message: str
    line: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows first_row … of a file. unreadable: among or between them; `row` counts from the piece's first."""

    first_row: int
    table: pa.RecordBatch
    unreadable: Sequence[Unreadable] = ()


@dataclass(frozen=True, slots=True)
class CsvPolicy:
    """missing: what a cell without a value says; an empty one always does, if it has no quotes.

    multiline: whether a cell in quotes may hold line breaks; see `quote_guard` for what an open quote costs then.
    """

    delimiter: str = ","
    missing: tuple[str, ...] = ()
    multiline: bool = False


class RowsFile(Protocol):
    """One file of rows.

    Raises InputDamaged, naming the file, wherever it cannot be read on.
    """

    @property
    def name(self) -> str:
        """Where it is."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """Of all its columns."""
        ...

    @property
    def rows(self) -> int | None:
        """How many it has, if the file says so."""
        ...

    def pieces(self, columns: Sequence[str], first_row: int) -> Iterator[Piece]:
        """All rows from `first_row` on, or from an earlier one; at least one piece, perhaps empty."""
        ...


class ParquetRows:
    """Rows of a Parquet file. categories: columns to be read as dictionaries, where they are text."""

    def __init__(self, name: str, open_file: OpenFile, categories: Sequence[str]) -> None:
        self.name = name
        self._open_file = open_file
        self._categories: list[str] = []
        with _reading(name, BadSettings), self._opened() as opened:
            self._categories = [column for column in categories if column in opened.schema_arrow.names]
            self.schema: pa.Schema = opened.schema_arrow
            self.rows: int | None = opened.metadata.num_rows
            groups = range(opened.metadata.num_row_groups)
            sizes = [opened.metadata.row_group(group).num_rows for group in groups]
            self._starts = np.cumsum([0, *sizes])
        if self._categories:
            with _reading(name, BadSettings), self._opened() as opened:
                self.schema = opened.schema_arrow  # with dictionaries in the place of text

    def pieces(self, columns: Sequence[str], first_row: int) -> Iterator[Piece]:
        """From the row group that has `first_row`."""
        group = max(0, int(np.searchsorted(self._starts, first_row, side="right")) - 1)
        row = int(self._starts[group])
        groups = list(range(group, len(self._starts) - 1))
        empty = pa.schema([self.schema.field(name) for name in columns]).empty_table().to_batches()
        with _reading(self.name), self._opened() as opened:
            any_rows = False
            if groups:
                rows = _batch_rows(opened, groups, columns)
                for batch in opened.iter_batches(rows, row_groups=groups, columns=list(columns)):
                    yield Piece(row, batch)
                    row += batch.num_rows
                    any_rows = True
            if not any_rows:
                yield Piece(row, empty[0] if empty else _no_rows(self.schema, columns))

    def _opened(self) -> pa.parquet.ParquetFile:
        return pa.parquet.ParquetFile(
            self._open_file(),
            read_dictionary=self._categories,
            buffer_size=READ_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )


@dataclass(slots=True)
class CsvRows:
    """Rows of a CSV file with a header: every column is text, null where a cell has no value."""

    name: str
    open_file: OpenFile
    policy: CsvPolicy = CsvPolicy()
    rows: int | None = None
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        with (
            _reading(self.name, BadSettings),
            Utf8Guard(self.open_file()) as guard,
            self._opened(guard, [], None) as opened,
        ):
            names = opened.schema.names
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise BadSettings(f"{self.name}: the header has {', '.join(twice)} more than once")
        self.schema = pa.schema([(name, pa.string()) for name in names])

    def pieces(self, columns: Sequence[str], first_row: int) -> Iterator[Piece]:  # noqa: ARG002 - lines have no index
        """From the first row, whatever is asked for: only reading tells where a row begins."""
        unreadable: list[Unreadable] = []
        row = 0
        with (
            _reading(self.name),
            Utf8Guard(self.open_file()) as guard,
            self._opened(guard, unreadable, columns) as opened,
        ):
            while True:
                try:
                    block = opened.read_next_batch()
                except StopIteration:
                    break
                bad_cells = _bad_cells(block) if guard.replaced else []
                lines, unreadable[:] = unreadable[:], []
                yield Piece(row, block, [*bad_cells, *lines])
                row += block.num_rows
            if not row or unreadable:
                yield Piece(row, _no_rows(self.schema, columns), unreadable)

    def _opened(
        self, file: Utf8Guard, unreadable: list[Unreadable], columns: Sequence[str] | None
    ) -> pa.csv.CSVStreamingReader:
        cells = len(self.schema) if columns is not None else 0
        quotes = None if self.policy.multiline else QuoteGuard(file, self.policy.delimiter, cells, CSV_BLOCK_BYTES)

        def refuse(row: pa.csv.InvalidRow) -> str:
            line, why = row.text, f"has {row.actual_columns} cells, the header {row.expected_columns}"
            if quotes is not None and (marked := quotes.line_of(line)) is not None:
                line, why = marked, "has a quote that is not closed"
            unreadable.append(Unreadable(None, f"line {row.number} {why}", line[:LONGEST_LINE]))
            return "skip"

        # one thread: lines that are no rows are heard of in order, and with the block they are in
        return pa.csv.open_csv(
            QuoteParity(file) if quotes is None else quotes,
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(
                delimiter=self.policy.delimiter,
                newlines_in_values=self.policy.multiline,
                invalid_row_handler=refuse,
            ),
            convert_options=pa.csv.ConvertOptions(
                check_utf8=False,  # the guard saw to it
                include_columns=None if columns is None else list(columns),
                column_types={name: pa.string() for name in columns or ()},
                null_values=["", *self.policy.missing],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )


def check_columns(rows: RowsFile, names: Sequence[str]) -> None:
    """Raises SchemaIncompatible, naming file and columns, if some are absent or there more than once."""
    given = rows.schema.names
    if absent := [name for name in names if name not in given]:
        raise SchemaIncompatible(f"{rows.name} has no column {', '.join(absent)}; it has {', '.join(given)}")
    if twice := [name for name in names if given.count(name) > 1]:
        raise SchemaIncompatible(f"{rows.name} has {', '.join(twice)} more than once")


def _batch_rows(opened: pa.parquet.ParquetFile, groups: Sequence[int], columns: Sequence[str]) -> int:
    """How many rows are a batch: BATCH_ROWS, or fewer if they are wide."""
    first = next((group for group in groups if opened.metadata.row_group(group).num_rows), None)
    if first is None:
        return BATCH_ROWS
    probe = next(opened.iter_batches(PROBE_ROWS, row_groups=[first], columns=list(columns)))
    width = probe.nbytes / probe.num_rows
    for group in (opened.metadata.row_group(number) for number in groups):
        parts = [group.column(at) for at in range(group.num_columns)]
        stored = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
        width = max(width, stored / max(1, group.num_rows))
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(width, 1.0))))


def _bad_cells(block: pa.RecordBatch) -> list[Unreadable]:
    """The rows with bytes that were no text."""
    bad: dict[int, str] = {}
    for name, column in zip(block.schema.names, block.columns, strict=True):
        for row in pc.indices_nonzero(pc.match_substring(column, SUBSTITUTE)).to_pylist():
            bad.setdefault(row, name)
    return [Unreadable(row, f"{name} is not UTF-8") for row, name in sorted(bad.items())]


def _no_rows(schema: pa.Schema, columns: Sequence[str]) -> pa.RecordBatch:
    wanted = pa.schema([schema.field(name) for name in columns])
    return pa.RecordBatch.from_arrays([pa.array([], item.type) for item in wanted], schema=wanted)


@contextmanager
def _reading(name: str, error: type[BadSettings | InputDamaged] = InputDamaged) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as exc:
        raise error(f"{name} cannot be read: {' '.join(str(exc).split())[:300]}") from exc
