"""Where each partition is read from next, so that no record is ever passed over. Pure.

A record is behind us when it is in the inbox of the assignment it was read in, and in no other case. Whatever is lost
on the way there (a fetch that comes back after a seek, one of an assignment that has ended) is read again: the next
read begins where the last one that arrived has ended, wherever the library's consumer thinks it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.monitor.inbox import Inbox
from app.monitor.stage import Read

Place = tuple[str, int]  # topic and partition


@dataclass(frozen=True, slots=True)
class Stretch:
    """All records of one partition from `start` up to `next_offset`.

    Offsets in it without a record are transaction markers, aborted records, or were compacted away.
    """

    start: int
    next_offset: int
    records: Sequence[Read]


class Reading:
    """The next offset of each partition of ours, and the inbox of each topic. One event loop only."""

    def __init__(
        self, fetched: Callable[[str, int, int], None], started: Callable[[Mapping[Place, int]], None]
    ) -> None:
        """fetched: gets the last offset of each partition that something was read of. started: where reading begins."""
        self._fetched, self._started = fetched, started
        self._inboxes: dict[str, Inbox] = {}
        self._next: dict[Place, int] = {}
        self.epoch = 0

    def feed(self, topic: str, inbox: Inbox) -> None:
        """What is read of this topic goes there."""
        self._inboxes[topic] = inbox

    def begin_anew(self) -> None:
        """The assignment changes, and the inboxes are empty: nothing is read until `start` says from where."""
        self.epoch += 1
        self._next.clear()

    def start(self, epoch: int, places: Mapping[Place, int]) -> None:
        """Read from there: what is committed or, if nothing is, where the partition begins. Void if the epoch ended."""
        if epoch == self.epoch:
            ours = {place: offset for place, offset in places.items() if place[0] in self._inboxes}
            self._next |= ours
            self._started(ours)

    def due(self) -> tuple[int, Mapping[Place, int]]:
        """The epoch, and what is to be read next: of the partitions whose inbox has room."""
        return self.epoch, {place: offset for place, offset in self._next.items() if self._inboxes[place[0]].has_room}

    def place(self, topic: str, partition: int) -> int | None:
        """The next offset to be read; None before it is known."""
        return self._next.get((topic, partition))

    def take(self, epoch: int, stretches: Mapping[Place, Stretch]) -> None:
        """Into the inboxes with what follows on what is there. The rest is dropped, and read again."""
        if epoch != self.epoch:
            return
        for place, stretch in stretches.items():
            if stretch.start != self._next.get(place):
                continue
            self._next[place] = stretch.next_offset
            if stretch.records:
                self._inboxes[place[0]].add(stretch.records)
                self._fetched(*place, stretch.records[-1].offset)
