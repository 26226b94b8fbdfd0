"""Input records against their outcomes: nothing lost, doubled, invented, reordered or renamed.

Every input record has a slot: the offsets of all input partitions, laid end to end. What has to be known
about a million records is then a handful of arrays of a million entries, and each law is one or two
operations on them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loadgen.violations import EXAMPLES, Kind, Place, Violation

HEALTHY = -1
Lane = tuple[str, int]  # an input topic and a partition of it


@dataclass(frozen=True, slots=True)
class Inputs:
    """The records of the input topics, one row each, in any order.

    lanes: the (topic, partition) each row's lane number stands for. window: per lane the first offset that
    is looked at (what lies below is nobody's business) and the end. tombstone: the value is null. poison:
    index into poison_kinds, or HEALTHY. keys: binary, may hold nulls.
    """

    lanes: Sequence[Lane]
    window: Sequence[tuple[int, int]]
    lane: NDArray[np.int32]
    offset: NDArray[np.int64]
    tombstone: NDArray[np.bool_]
    poison: NDArray[np.int16]
    poison_kinds: Sequence[str]
    keys: pa.Array

    def __len__(self) -> int:
        return len(self.offset)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The records of one output topic that could be read, one row each.

    lane: the lane of the source, -1 if it is no partition of an input topic. partition, offset: the place
    in the output topic. ids: the id inside the record as UTF-8 bytes, or None where there is none to
    compare (dead letters).
    """

    topic: str
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    lane: NDArray[np.int32]
    source_offset: NDArray[np.int64]
    keys: pa.Array
    ids: pa.Array | None

    def __len__(self) -> int:
        return len(self.offset)

    def place(self, row: int, detail: str = "") -> Place:
        """Where a row is."""
        return Place(self.topic, int(self.partition[row]), int(self.offset[row]), detail)


class Ledger:
    """The slots of the inputs, and the laws. Build it once everything has been read."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        first = np.array([window[0] for window in inputs.window], dtype=np.int64)
        end = np.array([window[1] for window in inputs.window], dtype=np.int64)
        self._first, self._end = first, np.maximum(end, first)
        self._start = np.concatenate([[0], np.cumsum(self._end - first)]).astype(np.int64)
        self._row_of = np.full(int(self._start[-1]), -1, dtype=np.int64)
        self._row_of[self._slots(inputs.lane, inputs.offset)] = np.arange(len(inputs))

    def _slots(self, lane: NDArray[np.int32], offset: NDArray[np.int64]) -> NDArray[np.int64]:
        slots: NDArray[np.int64] = self._start[lane] + offset - self._first[lane]
        return slots

    def rows(self, outcomes: Outcomes) -> NDArray[np.int64]:
        """Return the input row each outcome is about; -1: no such input; -2: below the window."""
        rows = np.full(len(outcomes), -1, dtype=np.int64)
        known = np.flatnonzero(outcomes.lane >= 0)
        lane, offset = outcomes.lane[known], outcomes.source_offset[known]
        inside = (offset >= self._first[lane]) & (offset < self._end[lane])
        rows[known[(offset >= 0) & (offset < self._first[lane])]] = -2
        rows[known[inside]] = self._row_of[self._slots(lane[inside], offset[inside])]
        return rows

    def unfinished(self, *outcomes: Outcomes) -> int:
        """How many input records, tombstones aside, have no outcome yet."""
        return int((self._counts(*outcomes) == 0).sum() - self._tombstones_without(*outcomes))

    def _counts(self, *outcomes: Outcomes) -> NDArray[np.int64]:
        counts = np.zeros(len(self.inputs), dtype=np.int64)
        for each in outcomes:
            rows = self.rows(each)
            counts += np.bincount(rows[rows >= 0], minlength=len(self.inputs))
        return counts

    def _tombstones_without(self, *outcomes: Outcomes) -> int:
        return int((self.inputs.tombstone & (self._counts(*outcomes) == 0)).sum())

    def judge(self, predictions: Outcomes, dead_letters: Outcomes, *, at_least_once: bool) -> list[Violation]:
        """Return the laws of delivery: lost, doubled, phantom, out_of_order, key_changed, id_changed."""
        inputs = self.inputs
        counts = self._counts(predictions, dead_letters)
        lost = np.flatnonzero((counts == 0) & ~inputs.tombstone)
        violations = Violation.found("lost", len(lost), (self._input_place(row) for row in self._first_of(lost)))
        if not at_least_once:
            doubled = np.flatnonzero(counts > 1)
            violations += Violation.found(
                "doubled",
                len(doubled),
                (self._input_place(row, f"{counts[row]} outcomes") for row in self._first_of(doubled)),
            )
        for outcomes in (predictions, dead_letters):
            rows = self.rows(outcomes)
            violations += self._named("phantom", outcomes, np.flatnonzero(rows == -1))
            violations += self._named(
                "out_of_order", outcomes, self._reordered(outcomes, rows, first_only=at_least_once)
            )
            violations += self._named("key_changed", outcomes, self._renamed(outcomes, rows))
            if outcomes.ids is not None:
                changed = ~_same(outcomes.ids, outcomes.keys)
                # A record that had no key cannot have its id as key.
                changed &= outcomes.keys.is_valid().to_numpy(zero_copy_only=False)
                violations += self._named("id_changed", outcomes, np.flatnonzero(changed))
        return _merged(violations)

    def judge_poison(
        self,
        predictions: Outcomes,
        dead_letters: Outcomes,
        reasons: Sequence[str],
        expected: Mapping[str, str],
        accepted: frozenset[str],
    ) -> list[Violation]:
        """Poison must be dead-lettered for its reason, anything else predicted.

        reasons: one per dead letter. expected: kind to reason. accepted: reasons a healthy record may have.
        """
        kind_of = self.inputs.poison
        rows = self.rows(predictions)
        known = np.flatnonzero(rows >= 0)
        poisoned = known[kind_of[rows[known]] != HEALTHY]
        violations = self._named("poison_predicted", predictions, poisoned, lambda row: self._kind(int(rows[row])))
        about = self.rows(dead_letters)
        wrong, healthy = [], []
        for row in np.flatnonzero(about >= 0).tolist():
            kind = int(kind_of[about[row]])
            if kind == HEALTHY:
                if reasons[row] not in accepted:
                    healthy.append(row)
            elif reasons[row] != expected.get(self.inputs.poison_kinds[kind]):
                wrong.append(row)
        violations += self._named(
            "wrong_reason",
            dead_letters,
            np.array(wrong, dtype=np.int64),
            lambda row: f"{self._kind(int(about[row]))} dead-lettered as {reasons[row]}",
        )
        violations += self._named(
            "healthy_dead_lettered", dead_letters, np.array(healthy, dtype=np.int64), lambda row: reasons[row]
        )
        return violations

    def _kind(self, input_row: int) -> str:
        return self.inputs.poison_kinds[int(self.inputs.poison[input_row])]

    def _reordered(self, outcomes: Outcomes, rows: NDArray[np.int64], *, first_only: bool) -> NDArray[np.int64]:
        """Rows whose source offset is not above the one before, per source and output partition."""
        kept = np.flatnonzero(rows >= 0)
        in_place = np.lexsort((outcomes.offset[kept], outcomes.partition[kept], outcomes.lane[kept]))
        kept = kept[in_place]
        if first_only:
            pair = rows[kept] * (int(outcomes.partition.max(initial=0)) + 1) + outcomes.partition[kept]
            kept = kept[np.sort(np.unique(pair, return_index=True)[1])]
        same = (np.diff(outcomes.lane[kept]) == 0) & (np.diff(outcomes.partition[kept]) == 0)
        back = np.diff(outcomes.source_offset[kept]) <= 0
        return np.sort(kept[1:][same & back])

    def _renamed(self, outcomes: Outcomes, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        known = np.flatnonzero(rows >= 0)
        was = self.inputs.keys.take(pa.array(rows[known]))
        now = outcomes.keys.take(pa.array(known))
        return known[~_same(was, now)]

    def _first_of(self, rows: NDArray[np.int64]) -> list[int]:
        order = np.lexsort((self.inputs.offset[rows], self.inputs.lane[rows]))
        return [int(row) for row in rows[order[:EXAMPLES]]]

    def _input_place(self, row: int, detail: str = "") -> Place:
        topic, partition = self.inputs.lanes[int(self.inputs.lane[row])]
        return Place(topic, partition, int(self.inputs.offset[row]), detail)

    def _named(
        self,
        kind: Kind,
        outcomes: Outcomes,
        rows: NDArray[np.int64],
        detail: "Callable[[int], str] | None" = None,
    ) -> list[Violation]:
        def place(row: int) -> Place:
            lane = int(outcomes.lane[row])
            source = f"{self.inputs.lanes[lane]}" if lane >= 0 else "no input topic"
            about = f"from {source} offset {int(outcomes.source_offset[row])}"
            return outcomes.place(row, f"{about}: {detail(row)}" if detail else about)

        return Violation.found(kind, len(rows), (place(row) for row in rows[:EXAMPLES].tolist()))


def _same(left: pa.Array, right: pa.Array) -> NDArray[np.bool_]:
    """Row by row; two nulls are the same."""
    equal = pc.fill_null(pc.equal(left, right), fill_value=False)
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    same: NDArray[np.bool_] = pc.or_(equal, both_null).to_numpy(zero_copy_only=False)
    return same


def _merged(violations: list[Violation]) -> list[Violation]:
    """One entry per kind."""
    by_kind: dict[Kind, Violation] = {}
    for one in violations:
        before = by_kind.get(one.kind)
        by_kind[one.kind] = (
            Violation(one.kind, before.count + one.count, (before.examples + one.examples)[:EXAMPLES])
            if before
            else one
        )
    return list(by_kind.values())
