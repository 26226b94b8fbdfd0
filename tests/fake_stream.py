"""A broker in memory, a source and an exactly-once sink on it, and a score function that only copies offsets.

The broker keeps what a real one would: the records, the committed offsets, and the committed outcomes. It
refuses, by failing the test, what a real one would fence: commits for partitions that are not owned.
"""

from typing import NamedTuple

import numpy as np
from fakes import NOW_MS, FakeRecord

from app.answering.scoring import Scoring
from app.clock import SystemClock
from app.errors import Aborted, BrokerUnavailable, InDoubt
from app.facts import Asked, BatchScored, Outcomes
from app.pipeline.batcher import BatchPolicy, FixedWait, MicroBatcher
from app.pipeline.dead_letter import DeadLetterLimit, FloodGate
from app.records import Batch, Origin, TopicPartition, predictions_of, source_of
from app.worker.chain import ScoredBatch
from app.worker.stream import StreamPolicy, StreamWorker

NO_FLOOD = DeadLetterLimit(1_000_000, 60.0)


class FakeBroker:
    """records and committed offsets by partition; outcomes in the order they were committed."""

    def __init__(self, partitions=2):
        self.sources = [TopicPartition("events", number) for number in range(partitions)]
        self.records = {source: [] for source in self.sources}
        self.committed = dict.fromkeys(self.sources, 0)
        self.notes = {}
        self.outcomes = []
        self.summaries = []

    def append(self, partition, count=1):
        source = self.sources[partition]
        for _ in range(count):
            offset = len(self.records[source])
            self.records[source].append(
                FakeRecord(b"v", topic="events", partition=partition, offset=offset, timestamp=(1, NOW_MS + offset))
            )

    def everything(self):
        return sorted((source, record.offset()) for source, log in self.records.items() for record in log)


class FakeSource:
    """`events` are assignment changes for the next poll: ("assigned" | "revoked" | "lost", partitions)."""

    def __init__(self, broker, clock):
        self._broker, self._clock = broker, clock
        self.owned = set()
        self.joined = False
        self.events = []
        self.paused = False
        self.held = set()
        self.closed = False
        self.seeks_fail = 0
        self.asking_fails = 0
        self.at_hand = 1_000_000  # a poll gives no more
        self._gone = set()
        self.midway = False  # the next rebalance comes when records were already taken
        self.position = {}

    def subscribe(self, listener):
        self._listener = listener

    def poll(self, max_records, timeout_s):
        if not self.midway:
            self._rebalance()
        found = self._read(max_records)
        if self.midway:
            self.midway = False
            self._gone = set()
            self._rebalance()
            found = [record for record in found if source_of(record) not in self._gone]
        if not found:
            self._clock.advance(timeout_s)
        return found

    def _read(self, max_records):
        found = []
        max_records = min(max_records, self.at_hand)
        for source in sorted(self.owned - self.held):
            if self.paused:
                break
            log = self._broker.records[source][self.position[source] :][: max_records - len(found)]
            self.position[source] += len(log)
            found += log
        return found

    def gather(self, max_records, timeout_s):
        found = self.poll(max_records, 0)
        if len(found) < max_records:
            self._clock.advance(timeout_s)
            found += self.poll(max_records - len(found), 0)
        return found

    def pause(self):
        self.paused = True

    def resume(self):
        self.paused = False

    def hold(self, sources):
        self.held |= sources & self.owned

    def release(self, sources):
        self.held -= sources

    def rewind(self, points):
        if self.seeks_fail:
            self.seeks_fail -= 1
            raise BrokerUnavailable("seek timed out")
        for source, offset in points.items():
            if source in self.owned:
                self.position[source] = offset

    def positions(self):
        return dict(self.position)

    def starts(self, sources):
        return {source: self._broker.committed[source] for source in sources}

    def committed(self, sources):
        if self.asking_fails:
            self.asking_fails -= 1
            raise BrokerUnavailable("the committed offsets are not known")
        return {source: self._broker.committed[source] for source in sources if self._broker.committed[source]}

    def notes(self, sources):
        return [self._broker.notes[source] for source in sources if source in self._broker.notes]

    def end_offsets(self):
        return {source: len(self._broker.records[source]) for source in self.owned}

    def unread(self):
        ends = self.end_offsets()
        return sum(ends[source] - self.position[source] for source in self.owned - self.held)

    def close(self):
        self.closed = True

    def _rebalance(self):
        while self.events:
            kind, sources = self.events.pop(0)
            if kind == "assigned":
                self.owned |= sources
                self.position |= {source: self._broker.committed[source] for source in sources}
                self.joined = True
                self._listener.on_assigned(sources)
            elif kind == "revoked":
                self._listener.on_revoked(sources)
                self._drop(sources)
            else:
                self._drop(sources)
                self._listener.on_lost(sources)

    def _drop(self, sources):
        self.owned -= sources
        self.held -= sources
        self._gone |= sources
        for source in sources:
            self.position.pop(source, None)


class FakeSink:
    """Outputs and offsets become the broker's together. `aborts` settlements fail first; `room` can be taken away.

    `settles`: whether anything falls due by itself; `patient`: only what is idle does. summaries: told of in each
    commit.
    """

    def __init__(self, broker, source, summaries=None):
        self._broker, self._source, self._summaries = broker, source, summaries
        self._open = []
        self.aborts = 0
        self.unheard = 0
        self.vanishing = 0
        self.room = True
        self.settles = True
        self.patient = False
        self.broken = 0
        self.commits = 0
        self.closed = False

    def has_room(self):
        return self.room

    def deliver(self, predictions, dead_letters):
        values = [*predictions.values, *(letter.value for letter in dead_letters)]
        self._open += [tuple(value.decode().split("@")) for value in values]

    def settle(self, offsets, note, *, idle):
        if not self._open and not offsets:
            return True
        if not self.settles or (self.patient and not idle):
            return False
        return self.settle_now(offsets, note, 1.0)

    def settle_now(self, offsets, note, within_s):
        told = self._summaries.to_commit(at_once=True) if self._summaries else []
        if self.aborts:
            self.aborts -= 1
            self._open.clear()
            raise Aborted("fenced")
        if self.vanishing:
            self.vanishing -= 1
            self._open.clear()
            raise InDoubt("it did not take effect, and nobody heard of it")
        assert offsets.keys() <= self._source.owned, "committed a partition that is another member's"
        for source, offset in offsets.items():
            assert offset >= self._broker.committed[source], "committed backwards"
            self._broker.committed[source] = offset
            self._broker.notes[source] = note
        for partition, offset in self._open:
            self._broker.outcomes.append((TopicPartition("events", int(partition)), int(offset)))
        self._open.clear()
        self._broker.summaries += told
        self.commits += 1
        if self.unheard:
            self.unheard -= 1
            raise InDoubt("it took effect, and nobody heard of it")
        return True

    def abandon(self):
        self._open.clear()

    def forget(self, sources):
        pass

    def recovered(self):
        if self.broken:
            self.broken -= 1
            return False
        return True

    def close(self):
        self.closed = True


class RecordingObserver:
    """Keeps the facts it is handed."""

    def __init__(self):
        self.facts = []

    def batch_scored(self, fact):
        self.facts.append(fact)

    def committed(self, fact):
        self.facts.append(fact)

    def rebalanced(self, kind):
        self.facts.append(kind)

    def revoked(self, sources):
        self.facts.append(("revoked", frozenset(sources)))

    def pulse(self, fact):
        self.facts.append(fact)

    def offset_reset(self, reason, missed):
        self.facts.append((reason, missed))

    def transaction(self, result):
        self.facts.append(result)


def copy_offsets(batch, origin):
    """Score a batch: each record's prediction is "partition@offset"."""
    partitions = origin.partitions()
    values = [f"{p}@{o}".encode() for p, o in zip(partitions.tolist(), origin.offsets.tolist(), strict=True)]
    rows = len(batch)
    return ScoredBatch(
        predictions=predictions_of(values, [None] * rows, partitions),
        dead_letters=[],
        scored=BatchScored(rows, batch.cause, batch.waited_s, 0.001, (Asked("fake", "1", 0.001),), batch.runs),
        outcomes=(Outcomes("fake", "1", rows, 0, {"0": rows}, {}, origin.timestamps_ms, np.ones(rows)),),
    )


class ModelByHand:
    """Stands in for Scoring: gives as many answers as it was told to, and makes the loop wait for more."""

    def __init__(self, ask, clock):
        self._ask, self._clock, self._question = ask, clock, None
        self.answers = 0
        self.most_together = 1
        self.takes_s = 1.0

    def busy_s(self):
        return self.takes_s if self._question is not None else 0.0

    def together(self, batch_rows, row_s):
        assert batch_rows
        assert row_s >= 0
        return self.most_together

    def submit(self, question, rows):
        assert self._question is None
        assert rows == len(question.batch) == sum(question.batch.runs)
        self._question = question

    def take(self, timeout_s):
        if self._question is None:
            return None
        if not self.answers:
            self._clock.advance(timeout_s)
            return None
        self.answers -= 1
        question, self._question = self._question, None
        return self._ask(question)

    def discard(self):
        self._question = None

    def close(self):
        pass


class FakePrepared(NamedTuple):
    """What a chain prepares, as far as the loop looks at it."""

    batch: Batch
    origin: Origin

    @property
    def asked_rows(self):
        return len(self.batch)

    @property
    def trace(self):
        return None


class FakeChain:
    """Everything happens where the model is asked; a score function with `prepare` is asked that first."""

    def __init__(self, score):
        self._score = score

    def prepare(self, batch, origin):
        if check := getattr(self._score, "prepare", None):
            check(batch)
        return FakePrepared(batch, origin)

    def answer(self, prepared):
        return self._score(*prepared)

    def finish(self, answered):
        return answered


class Rig:
    """A stream worker on fakes; `turn` until nothing is left to do."""

    def __init__(
        self,
        clock,
        *,
        partitions=2,
        score=copy_offsets,
        max_records=4,
        max_wait_s=0.01,
        pace=None,
        drain_timeout_s=20.0,
        flood_limit=NO_FLOOD,
        broker=None,
        by_hand=False,
        summing=None,
        tracing=None,
    ):
        self.clock = clock
        self.broker = broker or FakeBroker(partitions)
        self.source = FakeSource(self.broker, clock)
        self.sink = FakeSink(self.broker, self.source, summing)
        self.observer = RecordingObserver()
        self.pace = pace or FixedWait(max_wait_s, clock)
        chain = FakeChain(score)
        self.model = (
            ModelByHand(chain.answer, clock) if by_hand else Scoring(chain.answer, "test", SystemClock(), most_rows=1)
        )
        self.worker = StreamWorker(
            source=self.source,
            sink=self.sink,
            batcher=MicroBatcher(BatchPolicy(max_records), clock, self.pace),
            pace=self.pace,
            chain=chain,
            scoring=self.model,
            flood=FloodGate(flood_limit, clock),
            policy=StreamPolicy(drain_timeout_s),
            clock=clock,
            observer=self.observer,
            summing=summing,
            tracing=tracing,
        )
        self.source.subscribe(self.worker)

    def change(self, kind, *partitions):
        self.source.events.append((kind, {self.broker.sources[number] for number in partitions}))

    def turn(self, times=1):
        for _ in range(times):
            self.worker.turn()

    def settle(self, turns=200):
        """Turn until every record of the owned partitions has its outcome."""
        for _ in range(turns):
            self.worker.turn()
            if all(self.broker.committed[source] == len(self.broker.records[source]) for source in self.source.owned):
                return
        raise AssertionError(f"not settled: {self.broker.committed}")
