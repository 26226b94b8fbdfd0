"""Partitions that are to be read again from where they were: at once, or when a writer schema may be known."""

from collections.abc import Mapping, Set

from app.clock import Clock
from app.ports import Source
from app.records import TopicPartition

WAIT_FIRST_S, WAIT_MOST_S = 0.1, 5.0  # between two looks at whether a schema is known


class Rereads:
    """Of one stream, and for its thread. Until a partition is read again, what comes of it is to be left out."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source, self._clock = source, clock
        self._rewind_to: dict[TopicPartition, int] = {}
        self._waiting: dict[TopicPartition, int] = {}  # for a writer schema, from this offset on
        self._released: set[TopicPartition] = set()  # no longer waiting; nothing of them delivered yet
        self._wait_s, self._release_at = WAIT_FIRST_S, 0.0
        self._in_doubt = False  # whether the last transaction was committed, and so where to rewind to

    @property
    def waiting(self) -> Mapping[TopicPartition, int]:
        """Partitions held back for a schema, and from which offset on."""
        return self._waiting

    @property
    def rewinds(self) -> Mapping[TopicPartition, int]:
        """Partitions to be read again, and from which offset on."""
        return self._rewind_to

    def not_yet(self) -> Set[TopicPartition]:
        """Partitions whose next record is not the one that follows the last: they have not been rewound."""
        return self._rewind_to.keys() | self._waiting.keys() if self._rewind_to or self._waiting else frozenset()

    def hold(self, stops: Mapping[TopicPartition, int]) -> float:
        """These wait from there on; returns for how many seconds. Each time in a row it is twice as long."""
        self._source.hold(stops.keys())
        self._waiting.update(stops)
        waits_s = self._wait_s
        self._release_at = self._clock.monotonic() + waits_s
        self._wait_s = min(2 * waits_s, WAIT_MOST_S)
        return waits_s

    def delivered(self, sources: Set[TopicPartition]) -> None:
        """Records of these went through: if one of them had waited, schemas are answered for again."""
        if self._released & sources:
            self._released.clear()
            self._wait_s = WAIT_FIRST_S

    def undone(self, points: Mapping[TopicPartition, int], *, in_doubt: bool) -> None:
        """What was taken is dropped. in_doubt: it may have been committed all the same."""
        self._in_doubt |= in_doubt
        for source, offset in points.items():
            goal = self._waiting if source in self._waiting else self._rewind_to
            goal[source] = min(offset, goal.get(source, offset))

    def rewind(self) -> None:
        """Go back where it is due. Only once the sink has recovered: until then the group's offsets may still change.

        Raises BrokerUnavailable if that cannot be done now.
        """
        if self._in_doubt:
            self._skip_what_was_committed()
        if self._waiting and self._clock.monotonic() >= self._release_at:
            self._rewind_to.update(self._waiting)
            self._released |= self._waiting.keys()
            self._source.release(self._waiting.keys())
            self._waiting.clear()
        if self._rewind_to:
            self._source.rewind(self._rewind_to)
            self._rewind_to.clear()

    def forget(self, sources: Set[TopicPartition]) -> None:
        """These are no longer ours."""
        for source in sources:
            self._rewind_to.pop(source, None)
            self._waiting.pop(source, None)

    def _skip_what_was_committed(self) -> None:
        for goal in (self._rewind_to, self._waiting):
            for source, offset in self._source.committed(goal.keys() & self._source.owned).items():
                goal[source] = max(offset, goal[source])
        self._in_doubt = False
