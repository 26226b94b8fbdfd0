"""One core for every online surface: concurrent requests share batches, and each gets the answers to its own rows.

It lives on one event loop: everything here is called on that loop's thread but `serve`, which is for any. Requests are
collected by the stream's own batcher; a batch is made into events, features and answers by the stream's own steps, on
the loop itself while the model is quick and on a scoring thread while it is not (`scoring.Scoring`). While a batch is
being answered the next one fills, so under load batches are as large as the load makes them.

    core = OnlineCore(...)
    core.serve(lineup)
    answers = await core.ask(Question(instances=[{"age": 34, ...}], keys=["customer-7"]))
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.answering.answers import Answers, answers_of, joined
from app.answering.asking import Asking, FallbackPolicy, Reply
from app.answering.event_columns import EventColumns, Made
from app.answering.lineup import Lineup
from app.answering.parts import Part, part_of, parts_of
from app.answering.scoring import Scoring
from app.clock import Clock
from app.facts import BatchScored, Committed, Outcomes
from app.pipeline.batcher import BatchPolicy, FixedWait, MicroBatcher, Pace
from app.pipeline.infer import OutputPolicy
from app.pipeline.objective import LatencyObjective
from app.ports import OnlineObserver
from app.records import Batch, Columns, IntArray, Record, Rejection
from app.serving.pace import WhileExpected
from app.serving.refusals import BadRequest, Expired, NotFound, NotServing, Overloaded

Array = npt.NDArray[Any]

ROW_BYTES = 256  # what a row counts for in the batcher: its bytes are bounded where they are read
SHORTEST_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class OnlinePolicy:
    """How requests share batches, and how much may wait.

    max_rows: of one batch. max_wait_s: how long a request waits for others that are on their way. slo_s: instead of
    max_wait_s, how old a request may be when it is answered; batches wait for company as long as that allows.
    most_waiting_rows: more are refused as Overloaded. most_request_rows: of one request.
    outputs, fallback: as in the stream.
    """

    max_rows: int = 512
    max_wait_s: float = 0.002
    slo_s: float | None = None
    most_waiting_rows: int = 20_000
    most_request_rows: int = 10_000
    outputs: OutputPolicy = field(default_factory=OutputPolicy)
    fallback: FallbackPolicy = field(default_factory=FallbackPolicy)


@dataclass(frozen=True, slots=True)
class Question:
    """Rows to be answered: exactly one of `instances` and `vectors`.

    instances: one mapping from field to value for each row. vectors: one sequence of numbers for each row, or an
    array (n, width); see `event_columns.EventColumns` for both. keys: one for each row or None, what a rollout
    chooses the version by; the same text as the key of the event in Kafka. A row without a key is stable's.
    version: only this one is to answer, whatever the rollout says. within_s: from now on; None is for ever.
    """

    instances: Sequence[object] | None = None
    vectors: Sequence[object] | Array | None = None
    keys: Sequence[str | None] | None = None
    version: str | None = None
    within_s: float | None = None

    @property
    def rows(self) -> Sequence[object] | Array:
        """Whichever was given."""
        rows = self.instances if self.instances is not None else self.vectors
        return () if rows is None else rows


@dataclass(frozen=True, slots=True)
class InForce:
    """What answers now, and how rows become its events."""

    lineup: Lineup
    events: EventColumns


class _Waiting:
    """A request inside. What the batcher asks of a row, its size and its time, is asked of this, once for each row."""

    __slots__ = ("answers", "arrived_ms", "deadline", "done", "keys", "question", "taken", "timer")

    def __init__(self, question: Question, done: asyncio.Future[Answers], arrived_ms: int, deadline: float) -> None:
        self.question, self.done, self.arrived_ms, self.deadline = question, done, arrived_ms, deadline
        self.keys = question.keys
        self.taken = 0  # rows that are in a batch already
        self.answers: list[Answers] = []
        self.timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return ROW_BYTES

    def timestamp(self) -> tuple[int, int]:
        return (1, self.arrived_ms)


class _Span(NamedTuple):
    """Rows `start` to `end` of a request, which are in this batch."""

    waiting: _Waiting
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Scored:
    answers: Answers
    fact: BatchScored
    outcomes: tuple[Outcomes, ...]


class OnlineCore:
    """Answers requests of one model.

    model: its name. event: the columns of its events, if they are known before there is a version.
    """

    def __init__(
        self, model: str, event: pa.Schema | None, policy: OnlinePolicy, clock: Clock, observer: OnlineObserver
    ) -> None:
        self.model, self.policy = model, policy
        self._event, self._clock, self._observer = event, clock, observer
        self._in_force: InForce | None = None
        self._asking = Asking(policy.outputs, policy.fallback)
        self._pace: Pace
        if policy.slo_s is None:
            self._pace = WhileExpected(FixedWait(policy.max_wait_s, clock), lambda: self._coming)
        else:
            self._pace = LatencyObjective(policy.slo_s, clock)
        self._batcher = MicroBatcher(BatchPolicy(policy.max_rows, policy.max_rows * ROW_BYTES), clock, self._pace)
        self._scoring = Scoring(self._score, f"online-{model}", clock, told=self._told)
        self._inside: tuple[Batch, list[_Span]] | None = None
        self._coming = 0
        self._gone = False  # some of those in the batcher are
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._soon: asyncio.Handle | None = None  # the next turn: in the next round, or when a batch is due
        self._soon_at_once = False
        self._row_s = 0.0  # what a row took of late
        self.answered_rows = 0

    # ------------------------------------------------------------------------------------------ any thread

    def serve(self, lineup: Lineup, event: pa.Schema | None = None) -> None:
        """Batches taken from now on are this lineup's. Vectors are laid out as its stable version's manifest says.

        event: the columns of its events, where they were not known before.
        """
        self._event = event if event is not None else self._event
        known = self._in_force
        inputs = lineup.lanes[0].answerer.model.inputs
        same = known is not None and known.events.inputs == inputs
        events = known.events if same and known is not None else EventColumns(self._event, inputs)
        self._in_force = InForce(lineup, events)

    @property
    def in_force(self) -> InForce:
        """What answers now. Raises NotServing while there is nothing."""
        if self._in_force is None or self._closed:
            raise NotServing(f"model {self.model!r} is not ready" if not self._closed else "the server is about to end")
        return self._in_force

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._in_force is not None and not self._closed

    # ------------------------------------------------------------------------------------------- the loop's

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Somebody has begun to send a request: until the end of this block, or until it asks, others may wait for it.

        A surface enters it when it has read a request's head, and leaves it just before `ask`.
        """
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            if not self._coming and len(self._batcher):
                self._turn_soon()  # those who waited for this one need not any more

    async def ask(self, question: Question) -> Answers:
        """The answers to all rows of a question, in its order. No rows have no answers, and that is an answer.

        Cancelled, it leaves the batch, unless that is being answered already. Raises RequestRefused (BadRequest,
        NotFound, NotServing, Overloaded, Expired), and ModelFailed; then no row is answered.
        """
        n = self._checked(question)
        if n == 0:
            return _nothing()
        now = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        self._loop = loop
        within_s = question.within_s
        waiting = _Waiting(
            question,
            loop.create_future(),
            self._clock.now_ms(),
            float("inf") if within_s is None else now + within_s,
        )
        if within_s is not None:
            if within_s <= 0:
                raise Expired("the time for this request was over before it began")
            waiting.timer = loop.call_later(within_s, self._expire, waiting)
        self._batcher.add(cast("list[Record]", [waiting] * n))  # one object for all of them: see _Waiting
        self._turn_soon()
        try:
            return await waiting.done
        except asyncio.CancelledError:
            self._gone = True
            raise
        finally:
            if waiting.timer is not None:
                waiting.timer.cancel()

    async def drain(self, within_s: float) -> None:
        """From now on refuse what comes, and answer what is there; what is not answered in time is refused."""
        self._closed = True
        self._batcher.drain()
        self._turn_soon()
        deadline = time.monotonic() + within_s
        while (len(self._batcher) or self._inside) and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        for waiting in self._held():
            _refuse(waiting, NotServing("the server ended before this request's turn"))
        self._batcher.drop(lambda _: True)
        self._scoring.close()

    def _checked(self, question: Question) -> int:
        """How many rows it has. Raises RequestRefused."""
        if (question.instances is None) == (question.vectors is None):
            raise BadRequest("a question has instances or vectors, one of the two")
        n, policy = len(question.rows), self.policy
        if question.keys is not None and len(question.keys) != n:
            raise BadRequest(f"keys has {len(question.keys)} entries for {n} rows", field="keys")
        if n > policy.most_request_rows:
            raise BadRequest(f"{n} rows in one request, at most {policy.most_request_rows} are taken", too_large=True)
        lineup = self.in_force.lineup
        if question.version is not None:
            _lane_index(lineup, question.version)
        waiting_rows = len(self._batcher)
        if waiting_rows and waiting_rows + n > policy.most_waiting_rows:
            retry_s = max(SHORTEST_RETRY_S, waiting_rows * self._row_s)
            raise Overloaded(f"{waiting_rows} rows are waiting, at most {policy.most_waiting_rows} may", retry_s)
        return n

    def _expire(self, waiting: _Waiting) -> None:
        _refuse(waiting, Expired("not answered in the time that was given"))
        self._gone = True

    def _turn_soon(self, delay_s: float = 0.0) -> None:
        """Look for a due batch in the loop's next round: whoever asks in this one is in it."""
        loop = self._loop
        if loop is None or self._inside is not None or self._soon_at_once:
            return  # the end of what is inside looks again
        if self._soon is not None:
            self._soon.cancel()
        self._soon_at_once = delay_s <= 0
        self._soon = loop.call_soon(self._turn) if self._soon_at_once else loop.call_later(delay_s, self._turn)

    def _turn(self) -> None:
        """Hand out batches while they are due and the model is quick."""
        self._soon, self._soon_at_once = None, False
        while self._inside is None and (in_force := self._in_force) is not None:
            if self._gone:
                self._gone = False
                self._batcher.drop(lambda record: cast("_Waiting", record).done.done())
            due_in = self._batcher.due_in()
            if due_in > 0:
                if due_in != float("inf"):
                    self._turn_soon(due_in)
                return
            batch = self._batcher.take()
            spans = self._spans(cast("Sequence[_Waiting]", batch.records), in_force.lineup)
            if not spans:
                continue
            self._inside = (batch, spans)
            self._scoring.submit((batch, spans, in_force), sum(span.end - span.start for span in spans))
            self._collect()

    def _spans(self, records: Sequence[_Waiting], lineup: Lineup) -> list[_Span]:
        """Whose rows these are; without those of requests that are over, or have nobody to answer any more."""
        spans, at, now = [], 0, self._clock.monotonic()
        while at < len(records):
            waiting = records[at]
            many = min(len(waiting.question.rows) - waiting.taken, len(records) - at)
            span = _Span(waiting, waiting.taken, waiting.taken + many)
            waiting.taken += many
            at += many
            if waiting.deadline <= now:
                self._expire(waiting)
            elif waiting.question.version is not None:
                try:
                    _lane_index(lineup, waiting.question.version)
                except NotFound as exc:
                    _refuse(waiting, exc)
                    self._gone = True
            if not waiting.done.done():
                spans.append(span)
        return spans

    def _told(self) -> None:
        """On the scoring thread: an answer is there."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._answer_is_there)

    def _answer_is_there(self) -> None:
        self._collect()
        if self._soon is not None:
            self._soon.cancel()
        self._turn()

    def _collect(self) -> None:
        """Give what was answered to those who asked."""
        if self._inside is None:
            return
        batch, spans = self._inside
        try:
            scored = self._scoring.take(0.0)
        except Exception as exc:  # noqa: BLE001 - whatever happened to the batch, each of its requests is told
            self._inside = None
            for span in spans:
                _refuse(span.waiting, exc)
            return
        if scored is None:
            return
        self._inside = None
        self._tell(batch, scored)
        at = 0
        for span in spans:
            many = span.end - span.start
            self._give(span, scored.answers if many == len(scored.answers) else scored.answers.between(at, at + many))
            at += many

    def _give(self, span: _Span, answers: Answers) -> None:
        waiting = span.waiting
        waiting.answers.append(answers)
        if span.end == len(waiting.question.rows) and not waiting.done.done():
            waiting.done.set_result(joined(waiting.answers))

    def _tell(self, batch: Batch, scored: _Scored) -> None:
        rows = scored.fact.rows
        self.answered_rows += sum(outcomes.predicted for outcomes in scored.outcomes)
        self._row_s = (
            0.8 * self._row_s + 0.2 * scored.fact.scored_s / rows if self._row_s else (scored.fact.scored_s / rows)
        )
        self._pace.scored(rows, scored.fact.scored_s, batch.taken_at)
        self._pace.settled()
        self._observer.batch_scored(scored.fact)
        self._observer.committed(Committed(scored.outcomes, self._clock.now_ms()))

    def _held(self) -> list[_Waiting]:
        held = cast("Sequence[_Waiting]", self._batcher.records)
        inside = [span.waiting for span in self._inside[1]] if self._inside else []
        return [*dict.fromkeys([*held, *inside])]

    # ------------------------------------------------------------- on the loop or on the scoring thread, never both

    def _score(self, question: tuple[Batch, list[_Span], InForce]) -> _Scored:
        """One batch through the steps. Raises ModelFailed."""
        batch, spans, in_force = question
        started = time.perf_counter()
        lineup = in_force.lineup
        n = sum(span.end - span.start for span in spans)
        stamps = np.repeat(
            np.array([span.waiting.arrived_ms for span in spans], np.int64),
            [span.end - span.start for span in spans],
        )
        choice = _choice(lineup, spans, n)
        parts = [
            part
            for columns, rows, refused in _columns(in_force.events, spans)
            for part in _parts(lineup, choice, columns, rows, refused, stamps)
        ]
        replies = [self._asking.ask(part) for part in parts]
        return _Scored(
            answers_of(replies, n),
            BatchScored(
                rows=n,
                cause=batch.cause,
                waited_s=batch.waited_s,
                scored_s=time.perf_counter() - started,
                asked=tuple(asked for reply in replies for asked in reply.asked),
                runs=[n],
            ),
            tuple(_outcomes(reply) for reply in replies),
        )


def _choice(lineup: Lineup, spans: Sequence[_Span], n: int) -> IntArray | None:
    """(n,) index into the lanes, None if the first answers all."""
    pinned = any(span.waiting.question.version is not None for span in spans)
    if len(lineup.lanes) == 1 and not pinned:
        return None
    keys: list[bytes | None] = []
    for span in spans:
        given = span.waiting.keys
        keys += (
            [None] * (span.end - span.start)
            if given is None
            else [None if key is None else key.encode("utf-8", "surrogatepass") for key in given[span.start : span.end]]
        )
    choice = lineup.page.choose(keys)
    if not pinned:
        return choice
    choice = np.zeros(n, np.int64) if choice is None else choice
    at = 0
    for span in spans:
        many = span.end - span.start
        if span.waiting.question.version is not None:
            choice[at : at + many] = _lane_index(lineup, span.waiting.question.version)
        at += many
    return choice


def _lane_index(lineup: Lineup, version: str) -> int:
    """The first lane with this version. Raises NotFound."""
    for index, lane in enumerate(lineup.lanes):
        if lane.version == version:
            return index
    there = ", ".join(dict.fromkeys(lane.version for lane in lineup.lanes))
    raise NotFound(f"version {version!r} is not answering; answering: {there}")


def _columns(
    events: EventColumns, spans: Sequence[_Span]
) -> Iterator[tuple[Columns, IntArray, Mapping[int, Rejection]]]:
    """Events of the instances and events of the vectors: their columns, which rows of the batch they are, refused."""
    starts = np.cumsum([0, *(span.end - span.start for span in spans)])
    for named in (True, False):
        mine = [
            (span, int(start))
            for span, start in zip(spans, starts, strict=False)
            if (span.waiting.question.instances is not None) is named
        ]
        if not mine:
            continue
        rows = np.concatenate([np.arange(start, start + span.end - span.start) for span, start in mine])
        made = _made(events, [span for span, _ in mine], named=named)
        refused = {
            int(rows[row]): Rejection(int(rows[row]), why.stage, why.reason, why.error, why.message)
            for row, why in made.refused.items()
        }
        yield Columns(made.columns.table, rows[made.columns.rows]), rows, refused


def _made(events: EventColumns, spans: Sequence[_Span], *, named: bool) -> Made:
    given = [span.waiting.question.rows for span in spans]
    if len(given) == 1:
        part = given[0][spans[0].start : spans[0].end]
        return events.of_instances(cast("Sequence[object]", part)) if named else events.of_vectors(part)
    rows: list[object] = []
    for each, span in zip(given, spans, strict=True):
        part = each[span.start : span.end]
        rows += part.tolist() if isinstance(part, np.ndarray) else part
    return events.of_instances(rows) if named else events.of_vectors(rows)


def _parts(
    lineup: Lineup,
    choice: IntArray | None,
    columns: Columns,
    rows: IntArray,
    refused: Mapping[int, Rejection],
    stamps: IntArray,
) -> Sequence[Part]:
    """rows: of the batch that these columns are of; the others are somebody else's."""
    rejected = list(refused.values())
    if choice is None:
        return (part_of(lineup.lanes[0], columns, rejected, 0, stamps[rows]),)
    own = np.full(len(choice), -1)
    own[rows] = choice[rows]
    return parts_of(lineup.lanes, own, columns, rejected, stamps)


def _outcomes(reply: Reply) -> Outcomes:
    part, inference, answerer = reply.part, reply.inference, reply.lane.answerer
    rejected: dict[Any, int] = {}
    for item in (*part.rejected, *inference.rejected):
        rejected[item.stage, item.reason] = rejected.get((item.stage, item.reason), 0) + 1
    return Outcomes(
        model=answerer.model.name,
        version=answerer.model.version,
        predicted=len(inference.rows),
        skipped=0,
        results=inference.results,
        rejected=rejected,
        timestamps_ms=part.timestamps_ms,
        confidence=inference.confidence,
        answered_by=answerer.answered_by,
    )


def _refuse(waiting: _Waiting, why: BaseException) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(why)


def _nothing() -> Answers:
    return Answers(np.zeros(0, np.int64), None, None, np.zeros(0, np.int64), (), {})
