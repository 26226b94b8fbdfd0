"""The loop of one pipeline: poll, batch, score, deliver, commit; assign, revoke, drain.

One thread runs it and owns the pipeline's Kafka clients. Every turn does what can be done now and waits in at
most one place: for records when nothing else is under way, for the model when it is busy. While the model works on
one batch the next is prepared, if it is full, and the last one encoded and delivered.

Longer than most files because its methods share one state, what is taken and not yet committed; the parts
that could be told apart are: `batcher`, `chain`, `scoring`, `offsets`, `pulse`, `rereads`.
"""

import math
import sys
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event

import structlog

from app.answering.scoring import Scoring
from app.clock import Clock
from app.errors import DeadLetterFlood, DrainDeadline, InDoubt, SchemasPending, TransientError
from app.facts import Committed, Outcomes
from app.pipeline.batcher import MicroBatcher, Pace
from app.pipeline.dead_letter import FloodGate
from app.pipeline.offsets import OffsetTracker
from app.ports import BatchTracing, Observer, Sink, Source
from app.records import Batch, Origin, Record, Span, TopicPartition, origin_of, source_of
from app.worker.chain import Answered, Chain, Prepared, ScoredBatch
from app.worker.pulse import PulseMeter
from app.worker.rereads import Rereads
from app.worker.shadow import Shadow
from app.worker.summing import Summing

LONGEST_WAIT_S = 0.1  # so that stop() and the pulse are noticed
ACK_WAIT_S = 0.001  # while outputs are on their way
SCORING_WAIT_S = 0.005  # so that commits fall due, and a batch that fills is prepared, while a slow model runs
MANY = 256  # records: with fewer at hand there is no backlog, and asking each time would cost more than it tells
PAUSE_AFTER_S = 1.0  # being full for less is not worth a pause, which throws away what was fetched ahead
REVOKE_BOUND_S = 5.0  # what a rebalance waits for our last batch; below any sensible rebalance timeout
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 5.0
NEVER = 2**63  # past every offset


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """drain_timeout_s: from stop() until everything taken is committed. topic: the only one read, or None."""

    drain_timeout_s: float = 20.0
    topic: str | None = None


@dataclass(slots=True, eq=False)
class _Held:
    """A batch on its way from the batcher to the sink, and how far it has come."""

    batch: Batch
    origin: Origin
    spans: dict[TopicPartition, Span]
    prepared: Prepared | None = None
    scored: ScoredBatch | None = None
    answered: Answered | None = None


class StreamWorker:
    """One pipeline. `run` on a thread of its own; `stop`, `turned_at` and `ready` are for any thread."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        batcher: MicroBatcher,
        pace: Pace,
        chain: Chain,
        scoring: Scoring[Prepared, Answered],
        flood: FloodGate,
        policy: StreamPolicy,
        clock: Clock,
        observer: Observer,
        shadow: Shadow | None = None,
        summing: Summing | None = None,
        tracing: BatchTracing | None = None,
    ) -> None:
        self._source, self._sink, self._chain, self._scoring = source, sink, chain, scoring
        self._shadow, self._summing, self._tracing = shadow, summing, tracing
        self._batcher, self._pace = batcher, pace
        self._flood, self._policy, self._clock, self._observer = flood, policy, clock, observer
        self._log = structlog.get_logger()
        self._tracker = OffsetTracker()
        self._pulse = PulseMeter(source, batcher, self._tracker, clock)
        self._stopping = Event()
        self._drain_until: float | None = None
        # one batch each, the oldest last
        self._next: _Held | None = None  # taken, to be prepared if it is not yet, and submitted
        self._asked: _Held | None = None  # with the model
        self._done: _Held | None = None  # scored, waiting for room in the sink
        self._unsettled: list[Outcomes] = []
        # of a transaction that nobody knows the end of: what was in it, and how far
        self._in_doubt: tuple[tuple[Outcomes, ...], dict[TopicPartition, int]] | None = None
        self._settled_to: dict[TopicPartition, int] = {}  # committed in this assignment
        self._rereads = Rereads(source, clock)
        self._undone_in_drain = False
        # by the last poll: room for how many, if fewer came, else 0; and whether many are at hand with those
        self._had_room_for, self._many_came = 1, False
        self._full_since: float | None = None
        self._backoff_s, self._not_before = BACKOFF_FIRST_S, 0.0
        self._commit_s = 0.0  # what the last one took
        self._closing = False
        self._sink_ready = False
        self.turned_at = clock.monotonic()

    @property
    def ready(self) -> bool:
        """Whether the group was joined and outputs can be delivered; an assignment is not required."""
        return self._source.joined and self._sink_ready and not self._stopping.is_set()

    def stop(self) -> None:
        """Finish what was taken, commit it, leave the group. Any thread, any number of times."""
        self._stopping.set()

    def run(self) -> None:
        """Work until stopped and drained.

        Raises DrainDeadline if that took too long, and any FatalError or StartupError; what was not
        committed then is read again by the next worker. On a DeadLetterFlood what came before it is committed,
        so that the next one does not dead-letter it again.
        """
        try:
            self._source.subscribe(self)
            while not self._drained():
                self.turn()
            self._commit_the_last()
        except DeadLetterFlood:
            with suppress(TransientError):
                committed = self._sink.settle_now(self._tracker.committable(), self._flood.note(), REVOKE_BOUND_S)
                if committed and self._tracing is not None:
                    self._tracing.settled()
            raise
        finally:
            self._closing = True
            if self._tracing is not None:
                self._tracing.undone(sys.exception())
            self._scoring.close()
            self._sink.close()
            self._source.close()

    def turn(self) -> None:
        """Do what can be done now."""
        now = self.turned_at = self._clock.monotonic()
        try:
            self._sink_ready = self._sink.recovered()
            if now < self._not_before or not self._sink_ready:
                self._only_serve_callbacks()
            else:
                self._rereads.rewind()
                self._settle_doubt()
                self._take_in()
                self._start()
                if self._commit_costs_nothing():
                    self._settle()
                self._collect(SCORING_WAIT_S)
            self._settle()  # in a back-off too: what was delivered must not wait for its transaction to time out
            self._beat()
        except SchemasPending as exc:
            self._hold_back(exc)
        except TransientError as exc:
            self._undo(exc)
            self._back_off(exc)

    # -- the steps of a turn -------------------------------------------------------------------------------

    def _take_in(self) -> None:
        room = 0 if self._stopping.is_set() else self._batcher.room()
        if self._stopping.is_set():
            self._batcher.drain()
        if room == 0:
            self._had_room_for, self._many_came = int(self._stopping.is_set()), False
            self._only_serve_callbacks_when_full()
            return
        self._full_since = None
        self._source.resume()
        wait_s = self._wait_s()
        # a first record may be due at once; with some in hand it is known how long there is to wait for more
        ask = self._source.gather if len(self._batcher) else self._source.poll
        if wait_s and len(self._batcher):
            room = min(room, self._batcher.lacks())  # gathering ends with these or with the time
        records = self._pulse.waiting(lambda wait_s: ask(room, wait_s), wait_s)
        self._add(records)
        self._had_room_for = room if len(records) < room else 0
        self._many_came = len(self._batcher) >= MANY or self._batcher.full

    def _add(self, records: Sequence[Record]) -> None:
        """Those of a partition that will be rewound come again: a poll may rewind and yet give back what it had."""
        if not_yet := self._rereads.not_yet():
            records = [r for r in records if source_of(r) not in not_yet]
        self._batcher.add(records)

    def _wait_s(self) -> float:
        if self._in_work():
            return 0.0
        most = ACK_WAIT_S if self._unsettled else LONGEST_WAIT_S
        due_in_s = self._batcher.due_in()
        # the client waits whole milliseconds: a part of one would be no wait, again and again until it is over
        return min(most, math.ceil(due_in_s * 1000) / 1000) if math.isfinite(due_in_s) else most

    def _in_work(self) -> bool:
        return self._next is not None or self._asked is not None or self._done is not None

    def _start(self) -> None:
        """Take a batch that is due, prepare it, and have it scored if the model is free."""
        if self._done is not None:
            return
        # while the model is busy there is time for the next batch to fill
        wanted = self._batcher.due_in() <= 0 if self._asked is None else not self._batcher.room()
        if self._next is None and wanted:
            self._hold(self._batcher.take())
        self._prepare_next()
        self._ask_next()

    def _prepare_next(self) -> None:
        if self._next is not None and self._next.prepared is None:
            self._next.prepared = self._chain.prepare(self._next.batch, self._next.origin)

    def _ask_next(self) -> None:
        held = self._next
        if self._asked is None and held is not None and held.prepared is not None:
            self._asked, self._next = held, None
            self._scoring.submit(held.prepared, held.prepared.asked_rows)

    def _hold(self, batch: Batch) -> None:
        if not len(batch):
            return
        origin = origin_of(batch.records, self._clock.now_ms(), self._policy.topic)
        self._next = _Held(batch, origin, origin.spans())
        self._tracker.taken(self._next.spans)

    def _collect(self, wait_s: float) -> None:
        """Take the model's answer, waiting for it; finish and deliver its batch while the model has the next one."""
        if self._done is None and self._asked is not None:
            answered = self._scoring.take(wait_s)
            if answered is not None:
                held, self._asked = self._asked, None
                self._ask_next()
                held.scored, held.answered = self._chain.finish(answered), answered
                row_s = held.scored.scored.scored_s / len(held.batch)
                self._batcher.allow(self._scoring.together(held.batch.model_rows, row_s))
                self._done = held
        self._deliver_if_room()

    def _deliver_if_room(self) -> None:
        held = self._done
        if held is None or held.scored is None or not self._sink.has_room():
            return
        scored = held.scored
        self._flood.admit(scored.dead_letters)
        self._observer.batch_scored(scored.scored)
        self._pace.scored(scored.scored.rows, scored.scored.scored_s, held.batch.taken_at)
        if scored.trace is None:
            self._sink.deliver(scored.predictions, scored.dead_letters)
        else:
            with scored.trace.delivering(len(scored.predictions.values), len(scored.dead_letters)):
                self._sink.deliver(scored.predictions, scored.dead_letters)
        self._tracker.finished(held.spans)
        self._unsettled += scored.outcomes
        if self._summing is not None:
            self._summing.delivered(scored.summed)
        if self._shadow is not None and held.answered is not None:
            self._shadow.offer(held.answered)
        self._done = None
        self._rereads.delivered(held.spans.keys())

    def _settle(self) -> None:
        # records that still wait for company are no backlog: those that come during the commit join them
        nothing_due = not self._in_work() and self._batcher.due_in() > 0 and self._caught_up()
        idle = nothing_due or self._commit_costs_nothing()
        offsets, began = self._tracker.committable(), self._clock.monotonic()
        if self._sink.settle(offsets, self._flood.note(), idle=idle) and self._unsettled:
            self._commit_s = self._clock.monotonic() - began
            self._settled(offsets)

    def _commit_costs_nothing(self) -> bool:
        """Without a backlog, and beside a model that is busy for longer: what was delivered need not wait for it."""
        return bool(self._unsettled) and self._scoring.busy_s() > self._commit_s and self._caught_up()

    def _caught_up(self) -> bool:
        """Whether the last poll brought what there is: the client may have less at hand than there was room for."""
        room = self._had_room_for
        return room > 0 and (not self._many_came or self._source.unread() < room)

    def _settled(self, offsets: Mapping[TopicPartition, int]) -> None:
        fact = Committed(tuple(self._unsettled), self._clock.now_ms())
        self._tracker.committed()
        self._flood.settled()
        self._pace.settled()
        if self._summing is not None:
            self._summing.settled()
        if self._tracing is not None:
            self._tracing.settled()
        self._unsettled.clear()
        self._settled_to.update(offsets)
        self._backoff_s = BACKOFF_FIRST_S
        self._counted(fact)

    def _settle_doubt(self) -> None:
        """Count what a transaction had that took effect after all: the group then stands where it was to bring it."""
        if self._in_doubt is None:
            return
        outcomes, offsets = self._in_doubt
        ours = {source: offset for source, offset in offsets.items() if source in self._source.owned}
        committed = self._source.committed(ours.keys())
        self._in_doubt = None
        if ours and committed == ours:  # neither before nor past it, where somebody else would have brought the group
            for note in self._source.notes(ours.keys()):
                self._flood.remember(note)
            self._counted(Committed(outcomes, self._clock.now_ms()))

    def _counted(self, fact: Committed) -> None:
        if fact.outcomes:
            self._pulse.finished(fact)
            self._observer.committed(fact)

    def _beat(self) -> None:
        if not self._pulse.due():
            return
        if self._nothing_taken() and self._sink_ready:
            self._commit_positions()
        self._observer.pulse(self._pulse.beat(self._rereads.waiting, self._rereads.rewinds, self._pace.state()))

    def _commit_positions(self) -> None:
        """Pass transaction markers that follow the last record, which would look like lag for ever.

        Only of partitions with a commit in this assignment, and never where a position may be past an unfinished
        record: a partition that waits, or is to be rewound (after which it has none until something is read).
        """
        positions = self._source.positions()
        not_read_again_yet = self._rereads.not_yet()
        ahead = {
            source: positions[source]
            for source, offset in self._settled_to.items()
            if positions.get(source, offset) > offset and source not in not_read_again_yet
        }
        if ahead and self._sink.settle_now(ahead, self._flood.note(), REVOKE_BOUND_S):
            self._settled_to.update(ahead)

    # -- waiting without working ---------------------------------------------------------------------------

    def _only_serve_callbacks(self) -> None:
        self._source.pause()
        self._add(self._source.poll(1, LONGEST_WAIT_S))  # paused: a record is the exception

    def _only_serve_callbacks_when_full(self) -> None:
        now = self._clock.monotonic()
        self._full_since = now if self._full_since is None else self._full_since
        if now - self._full_since >= PAUSE_AFTER_S or self._stopping.is_set():
            self._source.pause()
            # scoring and a sink without room wait by themselves; acknowledgements of the last outputs do not
            self._add(self._source.poll(1, 0.0 if self._in_work() else ACK_WAIT_S))

    def _back_off(self, why: Exception) -> None:
        self._log.warning("backing_off", seconds=self._backoff_s, error=type(why).__name__, reason=str(why))
        self._not_before = self._clock.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MOST_S)

    # -- partitions that wait for a writer schema ---------------------------------------------------------------

    def _hold_back(self, pending: SchemasPending) -> None:
        """Partitions with records whose schema is not known yet wait from there on; all others go on."""
        held, self._next = self._next, None
        if held is None:
            raise RuntimeError("schemas are only asked for to prepare a batch")
        self._tracker.returned(held.spans)
        stops: dict[TopicPartition, int] = {}
        for row in pending.rows:
            record = held.batch.records[row]
            source = source_of(record)
            stops[source] = min(record.offset(), stops.get(source, record.offset()))
        waits_s = self._rereads.hold(stops)
        self._batcher.drop(lambda record: source_of(record) in stops)
        self._log.warning(
            "partitions_wait_for_schemas",
            partitions=sorted(f"{source.topic}[{source.partition}]@{offset}" for source, offset in stops.items()),
            seconds=waits_s,
            reason=str(pending),
        )
        others = [record for record in held.batch.records if record.offset() < stops.get(source_of(record), NEVER)]
        self._hold(replace(held.batch, records=others))

    # -- starting over ---------------------------------------------------------------------------------------

    def _undo(self, why: Exception | None = None) -> None:
        """Drop everything taken and not committed; it is read again once the sink has recovered."""
        self._undone_in_drain |= self._stopping.is_set()
        self._sink.abandon()
        points = self._tracker.restart_points()
        for record in self._batcher.records:
            points.setdefault(source_of(record), record.offset())
        if isinstance(why, InDoubt) and self._unsettled:
            self._in_doubt = tuple(self._unsettled), dict(self._tracker.committable())
        self._pulse.undone()
        self._scoring.discard()
        self._batcher.drop(lambda _: True)
        self._tracker.forget(points)
        self._flood.undone()
        self._pace.undone()
        if self._summing is not None:
            self._summing.undone()
        if self._tracing is not None:
            self._tracing.undone(why)
        self._unsettled.clear()
        self._next = self._asked = self._done = None
        self._rereads.undone(points, in_doubt=isinstance(why, InDoubt))

    # -- assignment changes, inside poll -----------------------------------------------------------------------

    def on_assigned(self, sources: Set[TopicPartition]) -> None:
        """Positions come from the group, and with them how many dead letters there were of late."""
        for note in self._source.notes(sources):
            self._flood.remember(note)
        self._observer.rebalanced("assigned")

    def on_revoked(self, sources: Set[TopicPartition]) -> None:
        """Finish and commit what is under way within a bound; otherwise it is dropped, uncommitted."""
        self._observer.rebalanced("revoked")
        if not self._closing:
            try:
                finished = self._commit_before_losing(sources)
            except TransientError as exc:
                self._log.warning("revoked_before_commit", reason=str(exc))
                self._undo(exc)
            else:
                if not finished:
                    self._undo()
        self._forget(sources)

    def on_lost(self, sources: Set[TopicPartition]) -> None:
        """Commit nothing: another member has these already."""
        self._observer.rebalanced("lost")
        if self._concerned(sources):
            self._undo()
        self._forget(sources)

    def _concerned(self, sources: Set[TopicPartition]) -> bool:
        """Whether a batch under way, or an open transaction, has records of these partitions."""
        return bool(sources & self._tracker.restart_points().keys())

    def _commit_before_losing(self, sources: Set[TopicPartition]) -> bool:
        """Commit what is delivered, and finish the batch under way if it has records of these partitions.

        False: something of them could not be finished within the bound.
        """
        deadline = self._clock.monotonic() + REVOKE_BOUND_S
        self._put_next_back()  # there is time for what the model has, hardly for more
        concerned = self._concerned(sources)
        if concerned and self._in_work():
            self._collect(REVOKE_BOUND_S)
            if self._in_work():
                return False
        offsets = self._tracker.committable()
        if not self._sink.settle_now(offsets, self._flood.note(), max(0.1, deadline - self._clock.monotonic())):
            return not concerned
        self._settled(offsets)
        return True

    def _put_next_back(self) -> None:
        held, self._next = self._next, None
        if held is not None:
            self._tracker.returned(held.spans)
            self._batcher.put_back(held.batch)
            if held.prepared is not None and held.prepared.trace is not None:
                held.prepared.trace.dropped("partitions were taken away while it waited for the model")

    def _forget(self, sources: Set[TopicPartition]) -> None:
        self._batcher.drop(lambda record: source_of(record) in sources)
        self._tracker.forget(sources)
        self._sink.forget(sources)
        self._rereads.forget(sources)
        for source in sources:
            self._settled_to.pop(source, None)
            if self._in_doubt is not None:
                self._in_doubt[1].pop(source, None)  # whoever has it now may have brought it there
        self._pulse.forget(sources)
        self._observer.revoked(sources)

    # -- draining ----------------------------------------------------------------------------------------------

    def _nothing_taken(self) -> bool:
        return not len(self._batcher) and not self._in_work() and not self._tracker.in_flight()

    def _drained(self) -> bool:
        if not self._stopping.is_set():
            return False
        if self._drain_until is None:
            self._drain_until = self._clock.monotonic() + self._policy.drain_timeout_s
        if self._nothing_taken():
            return True
        if self._clock.monotonic() >= self._drain_until:
            raise DrainDeadline(
                f"{self._records_taken()} records were still in work {self._policy.drain_timeout_s:g} s after the "
                "stop; they are not committed and will be read again"
            )
        return False

    def _records_taken(self) -> int:
        """Records taken and not committed."""
        held = sum(len(held.batch) for held in (self._next, self._asked, self._done) if held is not None)
        return len(self._batcher) + held + sum(outcomes.records for outcomes in self._unsettled)

    def _commit_the_last(self) -> None:
        left_s = max(0.1, (self._drain_until or 0.0) - self._clock.monotonic())
        try:
            if self._undone_in_drain and not self._sink.recovered():
                raise DrainDeadline("what was under way could not be committed; its records will be read again")
            with suppress(TransientError):
                self._settle_doubt()
            committed = self._sink.settle_now(self._tracker.committable(), self._flood.note(), left_s)
        except TransientError as exc:
            raise DrainDeadline(f"the last offsets could not be committed: {exc}") from exc
        if not committed:
            raise DrainDeadline("the last offsets could not be committed; their records will be read again")
        if self._tracing is not None:
            self._tracing.settled()
