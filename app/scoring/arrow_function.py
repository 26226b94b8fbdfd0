"""The scorer as a function of record batches, for whoever has the rows: Ray Data, Spark, a program of one's own.

It goes over the wire as the order to load a version, not as the version, and each process that is handed it loads
what is ordered once. Every row comes back, in its place: what was rejected has reasons instead of an answer.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.errors import BadSettings, SchemaIncompatible
from app.scoring.keys import key_column
from app.scoring.scorer import Scorer

REJECTED = (pa.field("rejected_reason", pa.string()), pa.field("rejected_message", pa.string()))
LOADED_AT_A_TIME = 4  # models a process keeps; jobs come and go in the processes of a cluster

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


class LoadScorer(Hashable, Protocol):
    """An order that can be sent to another process. The same order gives the same versions wherever it is."""

    def __call__(self) -> Scorer:
        """Load them."""
        ...


@dataclass(frozen=True, slots=True)
class ArrowFunction:
    """Event columns → kept columns, answers, and why there is none. Can be pickled; any thread may call it.

    key: the column that rollouts go by. keep: columns of the input to keep, in order, before the answers.
    """

    load: LoadScorer
    key: str | None = None
    keep: tuple[str, ...] = ()

    def __call__(self, rows: Rows) -> Rows:
        """Answer a batch or a table. Raises SchemaIncompatible, BadSettings and ModelFailed as `answer`."""
        if isinstance(rows, pa.Table):
            batches = [self._answer(batch) for batch in rows.to_batches()]
            return pa.Table.from_batches(batches, self.schema(rows.schema))
        return self._answer(rows)

    def over(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Answer one batch after another, as Spark's `mapInArrow` has them."""
        return map(self._answer, batches)

    def schema(self, given: pa.Schema) -> pa.Schema:
        """Of the answers to rows of this schema. Raises as `schema_of`."""
        return schema_of(_loaded(self.load), given, self.keep)

    def _answer(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return answer(_loaded(self.load), batch, self.key, self.keep)


def answer(scorer: Scorer, batch: pa.RecordBatch, key: str | None, keep: Sequence[str]) -> pa.RecordBatch:
    """Every row of a batch, in order, with its answer or with why it has none.

    Raises SchemaIncompatible if a column is absent or cannot be what it has to be, BadSettings if a column to keep
    has a name of the answers', and ModelFailed as `Scorer.score`.
    """
    schema = schema_of(scorer, batch.schema, keep)
    scored = scorer.score(batch, None if key is None else key_column(batch, key))
    answers: list[pa.Array] = [
        column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
        for column in scored.answers.columns
    ]
    count, rejected = batch.num_rows, scored.rejected
    reasons = [pa.nulls(count, pa.string())] * 2
    if rejected:
        answers = [_placed(column, scored.rows, count) for column in answers]
        rows = np.array([item.row for item in rejected])
        said = ([item.reason.value for item in rejected], [item.message for item in rejected])
        reasons = [_placed(pa.array(words, pa.string()), rows, count) for words in said]
    return pa.RecordBatch.from_arrays([*(batch.column(name) for name in keep), *answers, *reasons], schema=schema)


def schema_of(scorer: Scorer, given: pa.Schema, keep: Sequence[str]) -> pa.Schema:
    """Of the answers to rows of a schema. Raises SchemaIncompatible or BadSettings for what cannot be kept."""
    if absent := [name for name in keep if given.get_field_index(name) < 0]:
        raise SchemaIncompatible(f"no one column {', '.join(absent)} to keep, there are {', '.join(given.names)}")
    answers = (pa.field(item.name, _plain(item.type)) for item in scorer.schema)
    schema = pa.schema([*(given.field(name) for name in keep), *answers, *REJECTED])
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise BadSettings(f"the output would have {', '.join(twice)} more than once: keep fewer columns")
    return schema


def _placed(column: pa.Array, rows: npt.NDArray[np.int64], count: int) -> pa.Array:
    """Entry i of the column at row rows[i] of `count`, null elsewhere."""
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    return column.take(pa.array(place, mask=place < 0))


@lru_cache(maxsize=LOADED_AT_A_TIME)
def _loaded(load: LoadScorer) -> Scorer:
    # per process and not per function: every task of a cluster is handed a copy of its own
    return load()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
