"""How busy the loop is and how far behind, about once a second."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from app.clock import Clock
from app.facts import Committed, Lag, PaceState, Pulse
from app.pipeline.batcher import MicroBatcher
from app.pipeline.offsets import OffsetTracker
from app.ports import Source
from app.records import TopicPartition, source_of

INTERVAL_S = 1.0

Result = TypeVar("Result")


class PulseMeter:
    """Measures the time the loop waits for records, and the lag of each owned partition."""

    def __init__(self, source: Source, batcher: MicroBatcher, tracker: OffsetTracker, clock: Clock) -> None:
        self._source, self._batcher, self._tracker, self._clock = source, batcher, tracker, clock
        self._last_beat = clock.monotonic()
        self._waited_s = 0.0
        self._finished = 0
        self._starts: dict[TopicPartition, int] = {}  # where the group stood at assignment
        self._undone_ms: dict[TopicPartition, int] = {}  # the oldest of what is to be read again

    def waiting(self, wait: Callable[[float], Result], timeout_s: float) -> Result:
        """Call `wait(timeout_s)`, counting its time as idle if it was allowed to wait."""
        if timeout_s <= 0:
            return wait(0.0)
        before = self._clock.monotonic()
        result = wait(timeout_s)
        self._waited_s += self._clock.monotonic() - before
        return result

    def finished(self, fact: Committed) -> None:
        """These records are done."""
        self._finished += sum(outcomes.records for outcomes in fact.outcomes)

    def forget(self, sources: Iterable[TopicPartition]) -> None:
        """These partitions are no longer ours."""
        for source in sources:
            self._starts.pop(source, None)
            self._undone_ms.pop(source, None)

    def undone(self) -> None:
        """What is taken is about to be dropped, and will be read again, unless it is committed after all."""
        first, oldest_ms = self._unfinished()
        self._undone_ms |= oldest_ms
        for source in first:
            self._starts.pop(source, None)  # asked anew: after a rewind there is no position until something is read

    def due(self) -> bool:
        """Whether it is time for a beat."""
        return self._clock.monotonic() - self._last_beat >= INTERVAL_S

    def beat(
        self,
        waiting: Mapping[TopicPartition, int],
        rewinds: Mapping[TopicPartition, int],
        pace: PaceState | None,
    ) -> Pulse:
        """What happened since the last one.

        waiting: partitions that cannot go on, and from which offset. rewinds: those that will be read again from there.
        """
        now = self._clock.monotonic()
        elapsed = now - self._last_beat
        busy_s = max(0.0, elapsed - self._waited_s)
        rate = self._finished / busy_s if self._finished and busy_s > 0 else None
        self._last_beat, self._waited_s, self._finished = now, 0.0, 0
        return Pulse(
            busy_ratio=min(1.0, busy_s / elapsed) if elapsed > 0 else 0.0,
            records_per_second=rate,
            buffered_bytes=self._batcher.size_bytes,
            lag=self._lag(waiting, rewinds),
            waiting_partitions=len(waiting),
            pace=pace,
        )

    def _unfinished(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Of each partition with records in hand the first offset, and the lowest timestamp where one is known."""
        first = self._tracker.restart_points()
        oldest_ms = self._tracker.oldest_ms()
        for record in self._batcher.records:
            source = source_of(record)
            if source not in first:
                first[source] = record.offset()
                if (stamp_ms := record.timestamp()[1]) > 0:  # or it has none
                    oldest_ms[source] = stamp_ms
        return first, oldest_ms

    def _lag(
        self, waiting: Mapping[TopicPartition, int], rewinds: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, Lag]:
        """Records: from the first unfinished one to the end. Seconds: the age of that first one.

        While nothing of a lagging partition has been taken, the age of the last finished one stands in, and
        where there is none the age is not known. A partition whose end or start is not known is left out.
        """
        first, oldest_ms = self._unfinished()
        self._undone_ms = {source: at_ms for source, at_ms in self._undone_ms.items() if source in rewinds}
        first, oldest_ms = {**waiting, **rewinds, **first}, {**self._undone_ms, **oldest_ms}
        ends = self._source.end_offsets()
        reached = self._source.positions() | first
        self._starts |= self._source.starts(ends.keys() - reached.keys() - self._starts.keys())
        reached = self._starts | reached
        lag = {}
        for source in ends.keys() & reached.keys():
            behind = max(0, ends[source] - reached[source])
            since_ms = oldest_ms.get(source, self._tracker.last_finished_ms(source))
            if not behind:
                lag[source] = Lag(0, 0.0)
            else:
                age_s = None if since_ms is None else max(0, self._clock.now_ms() - since_ms) / 1000
                lag[source] = Lag(behind, age_s)
        return lag
