"""The sink: prediction topics in, files out, each record once. `trail` has the rules; this is who follows them.

One thread. It waits for nothing but the broker and the store; while one of them does not answer it goes on asking, and
reading pauses when the rows that wait fill their memory. Nothing is lost by ending at any point: what has no file is
read again.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from threading import Event

import numpy as np
import pyarrow as pa
import structlog

from app.audit.filing import AuditObserver, Filing, utc_day
from app.audit.lane import Chunk, Lane, RollPolicy
from app.audit.record_source import RecordSource
from app.audit.rows import PipelineRows
from app.audit.trail import Trail
from app.clock import Clock
from app.errors import NotReachable, SchemasPending, TransientError
from app.records import Origin, Record, TopicPartition, origin_of

MOST_RECORDS = 20_000  # at once: about 10 MB of predictions, decoded in a tenth of a second
MOST_BYTES = 33_554_432  # at once, of records as large as the last ones were: events may have many kB
LEAST_RECORDS = 32  # at once, however large the last ones were: 32 MB of those of 1 MB
FIRST_RECORDS = 500  # until it is known how large they are
GATHER_S = 0.5  # how long it waits for so many: a few large steps cost far less than many small ones
IDLE_POLL_S = 0.1  # while waiting for something else
FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 0.5, 30.0
COMMIT_POSITIONS_EVERY_S = 5.0  # so that transaction markers do not look like lag


@dataclass(frozen=True, slots=True)
class AuditPolicy:
    """memory_bytes: of rows that wait. retention_days: a file older than that is not missed."""

    roll: RollPolicy
    memory_bytes: int = 268_435_456
    retention_days: int | None = None
    drain_timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A pipeline whose predictions are kept."""

    trail: Trail
    rows: PipelineRows


class AuditWriter:
    """Keeps the trails of the pipelines whose topics it is given."""

    def __init__(
        self,
        source: RecordSource,
        kept: Mapping[str, Kept],
        policy: AuditPolicy,
        clock: Clock,
        wait: Callable[[float], object],
        observer: AuditObserver,
    ) -> None:
        """kept: by prediction topic. wait: for so many seconds, or until the process is told to stop."""
        self._joined = False
        self._filing = Filing(clock, policy.retention_days, observer)
        self._source, self._kept, self._policy, self._clock, self._wait = source, dict(kept), policy, clock, wait
        self._log = structlog.get_logger()
        self._new: set[TopicPartition] = set()  # held until it is known where their trail ends
        self._lanes: dict[TopicPartition, Lane] = {}
        self._undecoded: list[Record] = []  # their schemas are not known now
        self._to_commit: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._positions_due = clock.monotonic() + COMMIT_POSITIONS_EVERY_S
        self._back_off_s = 0.0
        self._not_before = 0.0
        self._at_once = FIRST_RECORDS

    def run(self, stop: Event) -> bool:
        """Until `stop` is set; returns whether all that was read has its file. Raises FatalError or StartupError."""
        self._source.subscribe(self)
        try:
            while not stop.is_set():
                self.turn()
            return self._drain()
        finally:
            self._source.close()

    def turn(self) -> None:
        """One round: what is new, what there is to read, what is due."""
        try:
            if self._clock.monotonic() >= self._not_before:
                self._resolve()
                self._decode_again()
                self._write_due()
                self._back_off_s = 0.0
        except (TransientError, NotReachable) as exc:
            self._back_off(exc)
        self._read()
        self._commit()

    def on_assigned(self, sources: Set[TopicPartition]) -> None:
        """Nothing is read of them before it is known where their trails end."""
        self._joined = True
        self._new |= sources
        self._source.hold(sources)

    def on_revoked(self, sources: Set[TopicPartition]) -> None:
        """What has no file yet is read again by whoever gets them."""
        self._new -= sources
        for source in sources:
            self._lanes.pop(source, None)
            self._to_commit.pop(source, None)
            self._committed.pop(source, None)
        self._undecoded = [
            record for record in self._undecoded if TopicPartition(record.topic(), record.partition()) not in sources
        ]

    def on_lost(self, sources: Set[TopicPartition]) -> None:
        """Likewise: claims and files are another member's to make now."""
        self.on_revoked(sources)

    def _drain(self) -> bool:
        """Whether every row got its file in time."""
        deadline = self._clock.monotonic() + self._policy.drain_timeout_s
        while True:
            try:
                self._decode_again()
                for lane in self._lanes.values():
                    lane.close()
                self._write_due()
                self._commit()
            except (TransientError, NotReachable) as exc:
                self._back_off(exc)
                if self._not_before >= deadline:
                    break
                self._wait(self._not_before - self._clock.monotonic())
                continue
            break
        left = len(self._undecoded) + sum(chunk.rows for lane in self._lanes.values() for chunk in lane.chunks)
        self._log.info("drained" if not left else "drain_deadline_passed", rows_left=left)
        return not left

    def _resolve(self) -> None:
        """Begin to read the partitions that are new."""
        for source in sorted(self._new):
            trail = self._kept[source.topic].trail
            last = trail.last_claim(source)
            filled = last is None or self._filing.is_expired(last) or trail.is_filled(last)
            lane = Lane(source, trail, self._policy.roll, last, filled=filled)
            self._source.read_from(source, lane.start)
            self._new.discard(source)
            self._lanes[source] = lane
            self._log.info("trail_goes_on", topic=source.topic, partition=source.partition, at=lane.start or 0,
                           to_fill=None if filled else last.path if last else None)  # fmt: skip

    def _read(self) -> None:
        waits = bool(self._undecoded) or not self._has_room()
        if waits:
            self._source.pause()
        else:
            self._source.resume()
        idle = waits or not self._lanes
        records = self._source.gather(self._at_once, IDLE_POLL_S if idle else GATHER_S)
        if not records:
            return
        self._at_once = _at_once(len(records), sum(map(len, records)))
        self._undecoded += records
        try:
            self._decode_again()
        except TransientError as exc:
            self._back_off(exc)

    def _decode_again(self) -> None:
        """Turn what was read into rows. Raises SchemasPending; then it all waits."""
        records = [r for r in self._undecoded if TopicPartition(r.topic(), r.partition()) in self._lanes]
        self._undecoded = records
        if not records:
            return
        added = []
        for same_topic in _by_topic(records):
            origin = origin_of(same_topic, self._clock.now_ms())
            added.append((origin, self._kept[same_topic[0].topic()].rows.rows_of(same_topic, origin)))
        self._undecoded = []
        for origin, rows in added:
            self._add(origin, rows)

    def _add(self, origin: Origin, rows: pa.RecordBatch) -> None:
        now, today = self._clock.monotonic(), utc_day(self._clock.now_ms())
        for number, source in enumerate(origin.sources):
            mine = np.flatnonzero(origin.source == number)
            whole = len(mine) == mine[-1] - mine[0] + 1
            part = rows.slice(int(mine[0]), len(mine)) if whole else rows.take(pa.array(mine))
            self._lanes[source].add(part, today, now)

    def _write_due(self) -> None:
        full = sum(lane.bytes for lane in self._lanes.values()) >= self._policy.memory_bytes
        if full:  # many partitions may fill the memory before any of them fills a file
            max(self._lanes.values(), key=lambda lane: lane.bytes).close()
        for lane in list(self._lanes.values()):
            while (chunk := lane.due(self._clock.monotonic())) is not None:
                if not self._write(lane, chunk):
                    break

    def _write(self, lane: Lane, chunk: Chunk) -> bool:
        """Whether the chunk has its file; if another writer is ahead of us, the partition begins anew."""
        claim = self._filing.file(lane, chunk)
        if claim is None:
            del self._lanes[lane.source]
            self.on_assigned({lane.source})
            return False
        self._to_commit[lane.source] = claim.next_offset
        lane.written(claim)
        return True

    @property
    def ready(self) -> bool:
        """Whether it is known of every partition of ours where its trail ends. Any thread may ask."""
        return self._joined and not self._new

    def waiting(self) -> dict[str, int]:
        """Rows that were read and have no file yet, by pipeline. Any thread may ask."""
        found = {kept.trail.pipeline: 0 for kept in self._kept.values()}
        for lane in list(self._lanes.values()):
            found[lane.trail.pipeline] += sum(chunk.rows for chunk in list(lane.chunks))
        for record in list(self._undecoded):
            found[self._kept[record.topic()].trail.pipeline] += 1
        return found

    def _commit(self) -> None:
        now = self._clock.monotonic()
        if now >= self._positions_due:
            self._positions_due = now + COMMIT_POSITIONS_EVERY_S
            idle = {source for source, lane in self._lanes.items() if not lane.chunks}
            if idle and not self._undecoded:
                positions = self._source.positions()
                self._to_commit |= {source: at for source, at in positions.items() if source in idle}
        news = {source: at for source, at in self._to_commit.items() if self._committed.get(source) != at}
        self._to_commit = {}
        if news:
            self._source.commit(news)
            self._committed |= news

    def _has_room(self) -> bool:
        return sum(lane.bytes for lane in self._lanes.values()) < self._policy.memory_bytes

    def _back_off(self, exc: Exception) -> None:
        self._back_off_s = min(LONGEST_BACK_OFF_S, max(FIRST_BACK_OFF_S, 2 * self._back_off_s))
        self._not_before = self._clock.monotonic() + self._back_off_s
        if not isinstance(exc, SchemasPending):
            self._log.warning("backing_off", seconds=self._back_off_s, reason=f"{type(exc).__name__}: {exc}")


def _at_once(records: int, size: int) -> int:
    """How many records as large as these to read at once. size: bytes of all."""
    return max(LEAST_RECORDS, min(MOST_RECORDS, MOST_BYTES * records // max(1, size)))


def _by_topic(records: Sequence[Record]) -> list[Sequence[Record]]:
    topics = [record.topic() for record in records]
    if topics.count(topics[0]) == len(records):
        return [records]
    return [
        [record for record, topic in zip(records, topics, strict=True) if topic == one] for one in dict.fromkeys(topics)
    ]
