"""Event columns → answers in columns, by whichever version each row's key is given to.

The steps are the stream's own, and so are the choice and the fallback chain (`answering/`): the same key and the same
fields get the same version, by the same handler, and the same answer. A version that is at fault itself, and for
which nobody answers, ends the work or rejects its rows, as the pipeline has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.answering.asking import Asking, Reply
from app.answering.lineup import FALLBACK, Lane, lineup_of
from app.answering.parts import Part, part_of, parts_of
from app.clock import Clock
from app.errors import SchemaIncompatible
from app.ports import ModelChooser
from app.records import Columns, IntArray, Rejection
from app.scoring.answer_columns import PROVENANCE, answer_column, answer_fields
from app.scoring.file_lanes import FileLane
from app.scoring.steps import Steps


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of a table's rows. Every row is in exactly one of the two.

    answers: one row per answered one: the fields of the manifest's outputs, then the provenance.
    rows: (m,) which rows those answer, rising. rejected: the others, rising.
    """

    answers: pa.RecordBatch
    rows: IntArray
    rejected: list[Rejection]


class Scorer:
    """The versions of one page, ready for columns.

    lanes: by version, as `file_lanes.file_lane` makes them: every one that an arm of the page names, and the previous
    one if that is to answer for them. Raises SchemaIncompatible if their answers have different fields. Any thread
    may call it; one at a time is inside.
    """

    def __init__(
        self,
        page: ModelChooser,
        lanes: Mapping[str, FileLane],
        clock: Clock,
        steps: Steps | None = None,
    ) -> None:
        self._lineup = lineup_of(page, {version: each.lane for version, each in lanes.items()})
        self._inputs = [each.inputs for each in lanes.values()]
        self._clock = clock
        steps = steps or Steps()
        self._asking = Asking(steps.outputs, steps.fallback)
        self._fields = common_fields([each.lane for each in lanes.values()])
        # what is in every row's provenance is kept once, and rows point at it
        self._names = list(dict.fromkeys([*(arm.name for arm in page.arms), FALLBACK]))
        self._versions = list(lanes)
        self._inside = Lock()  # compiled feature plans are one thread's at a time

    @property
    def schema(self) -> pa.Schema:
        """Of the answers."""
        return pa.schema([*self._fields, *PROVENANCE])

    @property
    def fields(self) -> list[str]:
        """Names of the columns that some version may be fed from."""
        return list(dict.fromkeys(name for inputs in self._inputs for name in inputs.fields))

    def fields_in(self, names: list[str]) -> list[str]:
        """Those of them to be read where these are the columns; one that is absent and cannot be is among them."""
        absent = {name for inputs in self._inputs for name in inputs.absent(names)}
        return [name for name in self.fields if name in names or name in absent]

    @property
    def categories(self) -> list[str]:
        """Those of them that hold categories: few values, many times each."""
        return list(dict.fromkeys(name for inputs in self._inputs for name in inputs.categories))

    def check(self, schema: pa.Schema) -> None:
        """Raises SchemaIncompatible, naming the field, if a version cannot be fed from such columns."""
        for inputs in self._inputs:
            inputs.check(schema)

    def score(self, table: pa.RecordBatch, keys: pa.Array | None = None) -> Scored:
        """Answer or reject each row. keys: (n,) as `keys.key_column` gives them; without, stable answers all.

        Raises SchemaIncompatible as `check`, BadSettings for damaged columns, and ModelFailed if a version is at
        fault itself, nobody answers in its place, and that is to end the work.
        """
        with self._inside:
            return self._scored(self._replies(table, keys))

    def _replies(self, table: pa.RecordBatch, keys: pa.Array | None) -> list[Reply]:
        lanes, count = self._lineup.lanes, table.num_rows
        everything = Columns(table, np.arange(count, dtype=np.int64))
        times = np.zeros(count, np.int64)  # rows of files have none
        chosen = None
        if keys is not None and len(keys) and len(lanes) > 1:  # keys become objects only where they matter
            chosen = self._lineup.page.choose(keys.to_pylist())
        if chosen is None:
            parts: Sequence[Part] = (part_of(lanes[0], everything, [], 0, times),)
        else:
            parts = parts_of(lanes, chosen, everything, [], times)
        return [self._asking.ask(part) for part in parts]

    def _scored(self, replies: list[Reply]) -> Scored:
        now_us = self._clock.now_ms() * 1000
        rejected = [item for reply in replies for item in (*reply.part.rejected, *reply.inference.rejected)]
        rejected.sort(key=lambda item: item.row)
        tables = [self._table(reply, now_us) for reply in replies]
        if len(replies) == 1:
            return Scored(tables[0], replies[0].inference.rows, rejected)
        rows = np.concatenate([reply.inference.rows for reply in replies])
        order = np.argsort(rows)
        return Scored(pa.concat_batches(tables).take(pa.array(order)), rows[order], rejected)

    def _table(self, reply: Reply, now_us: int) -> pa.RecordBatch:
        inference, who = reply.inference, reply.lane.answerer
        count = len(inference.rows)
        arrays = [
            answer_column(inference.fields[item.name], item.type) if count else pa.nulls(0, item.type)
            for item in self._fields
        ]
        arrays.append(_same(who.model.version, self._versions, count))
        arrays.append(_same(who.answered_by, self._names, count))
        arrays.append(pa.array(np.full(count, who.rollout_revision, np.int32)))
        arrays.append(pa.array(np.full(count, now_us)).view(PROVENANCE[-1].type))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _same(word: str, words: list[str], count: int) -> pa.Array:
    indices: npt.NDArray[np.int32] = np.full(count, words.index(word), np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(words, pa.string()))


def common_fields(lanes: Sequence[Lane]) -> list[pa.Field]:
    """What the answers of all of them fill. Raises SchemaIncompatible if that is not the same."""
    first = lanes[0].answerer.model
    fields = answer_fields(first)
    for lane in lanes[1:]:
        if answer_fields(lane.answerer.model) != fields:
            raise SchemaIncompatible(
                f"versions {first.version} and {lane.version} of {first.name!r} fill different fields, which "
                "cannot be the columns of one table: name one with --version"
            )
    return fields
