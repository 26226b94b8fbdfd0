"""How many records lie between two offsets: what was read is counted, what was not read yet is bounded.

Offsets are no count of records. Each transaction leaves a marker at its end, an aborted one leaves all it wrote, and
compaction takes records out of the middle: those offsets hold nothing that a group could read. No request of Kafka's
protocol tells how many; reading does. What lies below the last stable offset never changes but for what retention and
compaction take away, so that each offset is read once, and only what is new at the next look.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from app.records import IntArray

MOST_GAPS = 250_000  # 4 MB of each partition: one gap for each transaction in a backlog

Key = TypeVar("Key")


class Counted(NamedTuple):
    """records: at least as many as there are. uncounted: at most so many of them are none; 0: the number is exact."""

    records: int
    uncounted: int


class RecordCount:
    """Of one partition: the stretch [first, next_offset) in which every offset without a record is known."""

    def __init__(self) -> None:
        self._first = self.next_offset = 0
        self._gap_first: IntArray = np.empty(0, np.int64)
        self._gap_end: IntArray = np.empty(0, np.int64)

    @property
    def counted(self) -> int:
        """How many offsets it knows of."""
        return self.next_offset - self._first

    @property
    def has_room(self) -> bool:
        """Whether more may be counted."""
        return len(self._gap_first) < MOST_GAPS

    def begin_at(self, offset: int) -> None:
        """What lies before is of no interest any more. An offset that does not follow on makes it begin anew."""
        if not self._first <= offset <= self.next_offset:
            self.forget(offset)
            return
        keep = self._gap_end > offset
        if not keep.all():
            self._gap_first, self._gap_end = self._gap_first[keep], self._gap_end[keep]
        self._first = offset

    def forget(self, offset: int) -> None:
        """Nothing is known from here on."""
        self._first = self.next_offset = offset
        self._gap_first = self._gap_end = np.empty(0, np.int64)

    def seen(self, offsets: IntArray, reached: int) -> None:
        """These are the records from next_offset on, rising, and all there are below `reached`."""
        bounds = np.concatenate(([self.next_offset - 1], offsets, [reached]))
        after = np.flatnonzero(np.diff(bounds) > 1)
        self._gap_first = np.concatenate((self._gap_first, bounds[after] + 1))
        self._gap_end = np.concatenate((self._gap_end, bounds[after + 1]))
        self.next_offset = reached

    def up_to(self, end: int) -> Counted:
        """From where it begins to this offset. Offsets not looked at count as records."""
        known_end = min(end, self.next_offset)
        firsts, ends = np.maximum(self._gap_first, self._first), np.minimum(self._gap_end, known_end)
        gaps = int(np.maximum(ends - firsts, 0).sum())
        uncounted = max(0, end - self.next_offset)
        return Counted(max(0, known_end - self._first) - gaps + uncounted, uncounted)


def shares(wanted: Mapping[Key, int], budget: int) -> dict[Key, int]:
    """A budget divided so that as many as possible get all they want; at least 1 each, the rest shares alike."""
    found, left = {}, budget
    for position, (key, want) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        found[key] = max(1, min(want, left // (len(wanted) - position)))
        left = max(0, left - found[key])
    return found
