"""Files of rows → part files of answers, chunk by chunk, each exactly once however often the job is killed.

A chunk is the same rows of the same file whenever it is cut. Its part file is created whole or not at all, and only
if there is none, so a row is answered in one part, even with two processes at work on the same job; what is under way
when a process dies is scored again. The mark that is written after the part says that nothing of the chunk is left
to do; a part without a mark is kept, and only counted again. Rejected rows are written before their part.

    part-00000-00003.parquet             chunk 3 of file 0
    _rejected/part-00000-00003.parquet   its rows that have no answer, if there are any
    _done/00000-00003.json               its counts; `last` if the file ends with it
    _SUCCESS                             the sums: every chunk of every file is done
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from app.errors import BadSettings, Reason, SchemaIncompatible, Stage
from app.records import Rejection
from app.scoring.keys import check_key_type, key_column
from app.scoring.local_folder import Folder
from app.scoring.rows_in import Piece, RowsFile, check_columns
from app.scoring.rows_out import Format, RejectedRows, check_schema, part_of
from app.scoring.scorer import Scorer
from app.specs import Spec

SUCCESS_FILE = "_SUCCESS"


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """key: the column that rollouts go by, which is kept as well. keep: input columns to keep beside the answers."""

    key: str | None = None
    keep: tuple[str, ...] = ()
    output: Format = "parquet"
    chunk_rows: int = 1_000_000

    @property
    def kept(self) -> list[str]:
        """Input columns in the output, in order."""
        return list(dict.fromkeys([*([self.key] if self.key else []), *self.keep]))


class Tally(Spec):
    """Counts of one chunk, or of many. Each answered or rejected row was read; lines that are no rows are rejected.

    last: the file ends with this chunk.
    """

    answered: int = 0
    rejected: int = 0
    last: bool = False

    def plus(self, other: "Tally") -> "Tally":
        """The sums."""
        return Tally(answered=self.answered + other.answered, rejected=self.rejected + other.rejected)


@dataclass(frozen=True, slots=True)
class SoFar:
    """What is done, by earlier starts included. total: rows there are, None if that cannot be known."""

    done: Tally
    total: int | None


class ScoreJob:
    """One job, or the rest of one. Raises SchemaIncompatible or BadSettings if a file does not fit it."""

    def __init__(
        self,
        files: Sequence[RowsFile],
        out: Folder,
        scorer: Scorer,
        policy: JobPolicy,
        told: Callable[[SoFar], None] = lambda _: None,
    ) -> None:
        self._files, self._out, self._scorer, self._policy, self._told = files, out, scorer, policy, told
        self._schema = _output_schema(files, scorer, policy)
        rows = [file.rows for file in files]
        self._total = None if None in rows else sum(filter(None, rows))
        self._done = Tally()

    def run(self) -> Tally:
        """Score what is left. Returns the sums of the whole job.

        Raises InputDamaged, ModelFailed and what `out` raises; what is done stays done, and the job can be started
        again.
        """
        there = self._out.names()
        for number, file in enumerate(self._files):
            self._score_file(number, file, there)
        self._out.create(SUCCESS_FILE, self._done.model_dump_json(exclude={"last"}).encode())
        self._out.tidy()
        return self._done

    def _score_file(self, number: int, file: RowsFile, there: set[str]) -> None:
        names = (f"{number:05d}-{index:05d}" for index in count())
        marks = [self._mark(name) for name in takewhile(lambda name: _mark_name(name) in there, names)]
        for mark in marks:
            self._count(mark)
        if marks and marks[-1].last:
            return
        size, chunk = self._policy.chunk_rows, None
        columns = _columns_of(file, self._scorer, self._policy)
        for cut in _cut(file.pieces(columns, len(marks) * size), size):
            if cut.chunk < len(marks):
                continue
            if chunk is None:
                chunk = _Chunk(file, self._schema, columns, self._policy)
            chunk.add(cut.piece, self._scorer)
            if cut.ends_chunk:
                mark = chunk.finish(f"{number:05d}-{cut.chunk:05d}", self._out, there, last=cut.ends_file)
                chunk = None
                self._count(mark)
            else:
                self._told(SoFar(self._done.plus(chunk.tally), self._total))

    def _count(self, tally: Tally) -> None:
        self._done = self._done.plus(tally)
        self._told(SoFar(self._done, self._total))

    def _mark(self, name: str) -> Tally:
        try:
            return Tally.model_validate_json(self._out.read(_mark_name(name)) or b"")
        except ValidationError as exc:
            raise BadSettings(f"{self._out.url}/{_mark_name(name)} was not written by this program") from exc


class _Chunk:
    """One chunk in the making: its part, and its rejected rows."""

    def __init__(self, file: RowsFile, schema: pa.Schema, columns: Sequence[str], policy: JobPolicy) -> None:
        self._policy, self._schema = policy, schema
        self._part = part_of(policy.output, schema)
        self._rejected = RejectedRows(file.name, policy.output, [file.schema.field(name) for name in columns])
        self._answered = 0

    @property
    def tally(self) -> Tally:
        """So far."""
        return Tally(answered=self._answered, rejected=self._rejected.count)

    def add(self, piece: Piece, scorer: Scorer) -> None:
        """Score these rows."""
        table, rows = piece.table, np.arange(piece.table.num_rows)
        unreadable = [
            Rejection(bad.row, Stage.DECODE, Reason.BAD_UTF8, "DecodeFailed", bad.message)
            for bad in piece.unreadable
            if bad.row is not None
        ]
        if unreadable:
            rows = np.delete(rows, [item.row for item in unreadable])
            table = table.take(pa.array(rows))
        keys = None if self._policy.key is None else key_column(table, self._policy.key)
        scored = scorer.score(table, keys)
        kept = table.select(self._policy.kept)
        if len(scored.rows) != table.num_rows:
            kept = kept.take(pa.array(scored.rows))
        arrays = [*kept.columns, *scored.answers.columns]
        self._part.write(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._answered += len(scored.rows)
        refused = [replace(item, row=int(rows[item.row])) for item in scored.rejected]
        self._rejected.add(piece.table, piece.first_row, sorted([*unreadable, *refused], key=lambda item: item.row))
        self._rejected.add_lines([bad for bad in piece.unreadable if bad.row is None])

    def finish(self, name: str, out: Folder, there: set[str], *, last: bool) -> Tally:
        """Commit it; returns its mark."""
        file_name = f"part-{name}.{self._policy.output}"
        if file_name not in there:
            side_file = self._rejected.finish()
            if side_file is not None:
                out.put(f"_rejected/{file_name}", side_file)
            out.create(file_name, self._part.finish())
        mark = self.tally.model_copy(update={"last": last})
        out.create(_mark_name(name), mark.model_dump_json().encode())
        return mark


@dataclass(frozen=True, slots=True)
class _Cut:
    """Rows of one chunk; the last of the chunk, of the file."""

    chunk: int
    piece: Piece
    ends_chunk: bool
    ends_file: bool


def _cut(pieces: Iterator[Piece], size: int) -> Iterator[_Cut]:
    """Cut pieces where chunks end. Lines that are no rows stay with what came before them in the file, or nearly."""
    ahead: tuple[int, Piece] | None = None
    for piece in pieces:
        for part in _slices(piece, size):
            # without rows it only brings lines, and belongs to the chunk before
            chunk = max(0, part.first_row - (not part.table.num_rows)) // size
            if ahead is not None:
                yield _Cut(*ahead, ends_chunk=chunk != ahead[0], ends_file=False)
            ahead = chunk, part
    if ahead is not None:
        yield _Cut(*ahead, ends_chunk=True, ends_file=True)


def _slices(piece: Piece, size: int) -> Iterator[Piece]:
    start, rows = 0, piece.table.num_rows
    while start < rows or start == 0:
        end = min(rows, start + size - (piece.first_row + start) % size)
        unreadable = [
            bad if bad.row is None else replace(bad, row=bad.row - start)
            for bad in piece.unreadable
            if (start == 0 if bad.row is None else start <= bad.row < end)
        ]
        yield Piece(piece.first_row + start, piece.table.slice(start, end - start), unreadable)
        start = max(end, 1)


def _columns_of(file: RowsFile, scorer: Scorer, policy: JobPolicy) -> list[str]:
    """To be read of it."""
    return list(dict.fromkeys([*scorer.fields_in(file.schema.names), *policy.kept]))


def _output_schema(files: Sequence[RowsFile], scorer: Scorer, policy: JobPolicy) -> pa.Schema:
    """Kept columns, then answers; the same for every file, which is seen to here."""
    for file in files:
        check_columns(file, _columns_of(file, scorer, policy))
        scorer.check(file.schema)
        if policy.key is not None:
            check_key_type(policy.key, file.schema.field(policy.key).type)
    first = files[0]
    kept = [pa.field(name, first.schema.field(name).type) for name in policy.kept]
    for file in files[1:]:
        for item in kept:
            if (found := file.schema.field(item.name).type) != item.type:
                raise SchemaIncompatible(
                    f"the column {item.name!r} is {item.type} in {first.name}, {found} in {file.name}: not to be kept"
                )
    schema = pa.schema([*kept, *scorer.schema])
    check_schema(policy.output, schema)
    return schema


def _mark_name(name: str) -> str:
    return f"_done/{name}.json"
