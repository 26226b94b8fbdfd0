"""Pairs → sums by version and window, each pair exactly once. Pure: what changed is handed back to be kept.

A pair is in the window in which it was completed: an outcome that takes an hour is shown for as long as one that
takes a second.

As windows do, each sum knows by topic the next offset that it has not seen. A pair belongs to the record that
completed it, records come in the order of their offsets, and those of one record come together: so a pair below the
offset has been added, whichever of join and sums a crash left behind.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from app.monitor.judged import Judged, Part, judge, part_of
from app.monitor.kept import read_kept
from app.monitor.waiting import Pair


@dataclass(frozen=True, slots=True)
class Fresh:
    """What was added now, not told again: for counters."""

    version: str
    right: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Added:
    """changes: what to keep by key; None: nothing any more. parts: that changed. fresh: by version.

    too_old: pairs of a window that is no longer kept, which are not added.
    """

    changes: dict[bytes, bytes | None]
    parts: Sequence[Part]
    fresh: Sequence[Fresh]
    too_old: int = 0


@dataclass(frozen=True, slots=True)
class _Sum:
    next_offsets: dict[str, int]
    part: Part


class JudgedTotals:
    """The sums of one partition of a sample."""

    def __init__(self, pipeline: str, model: str, partition: int, window_s: int, keep_s: int) -> None:
        self._pipeline, self._model, self._partition = pipeline, model, partition
        self._window_ms, self._keep_ms = 1000 * window_s, 1000 * keep_s
        self._sums: dict[bytes, _Sum] = {}

    def restore(self, kept: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin anew with what was kept: key, value."""
        self._sums = {}
        for key, value in kept:
            known = read_kept("judged", key, value, _sum_of)
            if known is not None:
                self._sums[key] = known

    def parts(self) -> list[Part]:
        """All of them: after a restart they are told again, in case the last ones were not."""
        return [known.part for known in self._sums.values()]

    def add(self, pairs: Iterable[Pair]) -> Added:
        """Add what was completed, in the order of records."""
        groups: dict[bytes, list[Pair]] = {}
        for pair in pairs:
            start_ms = pair.completed_ms - pair.completed_ms % self._window_ms
            groups.setdefault(orjson.dumps([self._partition, pair.version, start_ms]), []).append(pair)
        changes: dict[bytes, bytes | None] = {}
        parts: list[Part] = []
        fresh: list[Fresh] = []
        too_old, oldest_ms = 0, self._oldest_ms
        for key, group in groups.items():
            if key not in self._sums and _start_of(key) < oldest_ms:
                too_old += sum(not pair.again for pair in group)
                continue  # forgotten: it may have been added before
            known = self._sums.get(key) or self._nothing(group[0])
            new = [pair for pair in group if pair.offset >= known.next_offsets.get(pair.read_from, 0)]
            if not new:
                continue
            added = _judged(new)
            offsets = dict(known.next_offsets)
            for pair in new:
                offsets[pair.read_from] = max(offsets.get(pair.read_from, 0), pair.offset + 1)
            part = Part(
                self._pipeline, self._model, new[0].version, self._partition, known.part.window_start_ms,
                known.part.judged.merged(added),
            )  # fmt: skip
            self._sums[key] = _Sum(offsets, part)
            changes[key] = orjson.dumps({"next": offsets, "part": part.record()})
            parts.append(part)
            fresh.append(Fresh(part.version, added.right, added.rows - added.right))
        return Added(changes | self._forget_old(), parts, fresh, too_old)

    def _nothing(self, pair: Pair) -> _Sum:
        start_ms = pair.completed_ms - pair.completed_ms % self._window_ms
        return _Sum({}, Part(self._pipeline, self._model, pair.version, self._partition, start_ms, Judged()))

    @property
    def _oldest_ms(self) -> int:
        return max((known.part.window_start_ms for known in self._sums.values()), default=0) - self._keep_ms

    def _forget_old(self) -> dict[bytes, bytes | None]:
        oldest_ms = self._oldest_ms
        old = [key for key, known in self._sums.items() if known.part.window_start_ms < oldest_ms]
        for key in old:
            del self._sums[key]
        return dict.fromkeys(old)


def _start_of(key: bytes) -> int:
    return int(orjson.loads(key)[2])


def _sum_of(value: bytes) -> _Sum:
    content = orjson.loads(value)
    return _Sum({str(topic): int(offset) for topic, offset in content["next"].items()}, part_of(content["part"]))


def _judged(pairs: Sequence[Pair]) -> Judged:
    """Pairs with numbers and pairs without are judged apart: the latter have no log loss and no calibration."""
    by_width: dict[int, list[Pair]] = {}
    for pair in pairs:
        by_width.setdefault(len(pair.numbers), []).append(pair)
    judged = Judged()
    for width, some in by_width.items():
        truth = np.array([pair.truth for pair in some], np.int64)
        predicted = np.array([pair.predicted for pair in some], np.int64)
        numbers = np.array([pair.numbers for pair in some], np.float64).reshape(len(some), width)
        judged = judged.merged(judge(truth, predicted, numbers))
    return judged
