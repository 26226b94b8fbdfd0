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
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import pyarrow as pa

from app.answering.answers import Answers
from app.answering.asking import Asking
from app.answering.lineup import Lineup
from app.answering.scoring import Scoring
from app.clock import Clock
from app.facts import Committed
from app.pipeline.batcher import BatchPolicy, FixedWait, MicroBatcher, Pace
from app.pipeline.objective import LatencyObjective
from app.ports import OnlineObserver
from app.records import Batch
from app.serving.call_tracing import RequestTracing, tell_of
from app.serving.in_force import InForce, in_force_of
from app.serving.online_policy import OnlinePolicy
from app.serving.pace import WhileExpected
from app.serving.question import ROW_BYTES, Question, Span, Waiting, nothing
from app.serving.refusals import BadRequest, Expired, NotServing, Overloaded
from app.serving.rounds import Rounds
from app.serving.shared_batch import Ended, Scored, scored_spans
from app.serving.spans import TOO_LATE, give, spans_of

SHORTEST_RETRY_S = 0.05
SOONER_S = 150e-6  # to write an answer, carry it and take in the next call takes 250 µs of the quickest client


class OnlineCore:
    """Answers requests of one model.

    model: its name. event: the columns of its events, if they are known before there is a version.
    """

    def __init__(
        self,
        model: str,
        event: pa.Schema | None,
        policy: OnlinePolicy,
        clock: Clock,
        observer: OnlineObserver,
        tracing: RequestTracing | None = None,
    ) -> None:
        self.model, self.policy = model, policy
        self._tracing = tracing
        self._event, self._clock, self._observer = event, clock, observer
        self._in_force: InForce | None = None
        self._asking = Asking(policy.outputs, policy.fallback)
        self._pace: Pace
        if policy.slo_s is None:
            self._pace = WhileExpected(FixedWait(policy.max_wait_s, clock), self._expected)
        else:
            self._pace = LatencyObjective(policy.slo_s, clock)
        self._batcher: MicroBatcher[Waiting] = MicroBatcher(
            BatchPolicy(policy.max_rows, policy.max_rows * ROW_BYTES), clock, self._pace
        )
        self._scoring = Scoring(self._score, f"online-{model}", clock, told=self._told)
        self._serving = Lock()
        self._inside: tuple[Batch[Waiting], list[Span]] | None = None
        self._coming = 0
        self._gone = False  # some of those in the batcher are
        self._leaving = self._closed = False
        self._rounds = Rounds(self._turn, clock)
        self._batch_over_at = float("-inf")
        self._row_s = 0.0  # what a row took of late
        self.answered_rows = 0

    # ------------------------------------------------------------------------------------------ any thread

    def serve(self, lineup: Lineup, event: pa.Schema | None = None) -> None:
        """Batches taken from now on are this lineup's.

        event: the columns of its events, where they were not known before.
        """
        with self._serving:
            self._event = event if event is not None else self._event
            self._in_force = in_force_of(lineup, self._event, self._in_force)

    @property
    def in_force(self) -> InForce:
        """What answers now. Raises NotServing while there is nothing."""
        if self._in_force is None or self._closed:
            raise NotServing(f"model {self.model!r} is not ready" if not self._closed else "the server is about to end")
        return self._in_force

    @property
    def ready(self) -> bool:
        """Whether more requests should be sent here: it answers, and will go on to."""
        return self._in_force is not None and not self._closed and not self._leaving

    def leave(self) -> None:
        """From now on it is not `ready`, so that nobody sends it more; what comes all the same is answered."""
        self._leaving = True

    # ------------------------------------------------------------------------------------------- the loop's

    @contextmanager
    def coming(self, *, queued: bool = False) -> Iterator[None]:
        """Somebody has begun to send a request: until the end of this block, or until it asks, others may wait for it.

        A surface enters it when it has read a request's head, and leaves it just before `ask`. queued: it reads one at
        a time. Who comes sooner after a batch than anybody could who waited for its answers was in a queue, and
        others may be behind it.
        """
        if queued and self._clock.monotonic() - self._batch_over_at <= SOONER_S:
            self._rounds.queued = True
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            if not self._coming and len(self._batcher):
                self._rounds.soon()  # those who waited for this one need not any more

    async def ask(self, question: Question) -> Answers:
        """The answers to all rows of a question, in its order. No rows have no answers, and that is an answer.

        Cancelled, it leaves the batch, unless that is being answered already. Raises RequestRefused (BadRequest,
        NotFound, NotServing, Overloaded, Expired), and ModelFailed; then no row is answered.
        """
        n = self._checked(question)
        events = self.in_force.events_for(question)
        if n == 0:
            return nothing()
        now = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        self._rounds.on(loop)
        within_s = question.within_s
        waiting = Waiting(
            question,
            events,
            loop.create_future(),
            self._clock.now_ms(),
            float("inf") if within_s is None else now + within_s,
        )
        if self._tracing is not None:
            waiting.trace = self._tracing.asking()
        if within_s is not None:
            if within_s <= 0:
                raise Expired("the time for this request was over before it began")
            waiting.timer = loop.call_later(within_s, self._expire, waiting)
        self._batcher.add([waiting] * n)  # one object for all of them: see Waiting
        self._rounds.soon()
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
        self._rounds.soon()
        deadline = time.monotonic() + within_s
        while (len(self._batcher) or self._inside) and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        for waiting in self._held():
            waiting.refuse(NotServing("the server ended before this request's turn"))
        self._batcher.drop(lambda _: True)
        self._scoring.close()

    def _checked(self, question: Question) -> int:
        """How many rows it has. Raises RequestRefused."""
        if question.forms != 1:
            raise BadRequest("a question has instances, columns or vectors, one of the three")
        n, policy = len(question), self.policy
        if question.keys is not None and len(question.keys) != n:
            raise BadRequest(f"keys has {len(question.keys)} entries for {n} rows", field="keys")
        if n > policy.most_request_rows:
            raise BadRequest(f"{n} rows in one request, at most {policy.most_request_rows} are taken", too_large=True)
        waiting_rows = len(self._batcher)
        if waiting_rows and waiting_rows + n > policy.most_waiting_rows:
            retry_s = max(SHORTEST_RETRY_S, waiting_rows * self._row_s)
            raise Overloaded(f"{waiting_rows} rows are waiting, at most {policy.most_waiting_rows} may", retry_s)
        return n

    def _expire(self, waiting: Waiting) -> None:
        waiting.refuse(Expired(TOO_LATE))
        self._gone = True

    def _expected(self) -> bool:
        """Whether somebody may still join those who wait: on the way, or ready and not taken in yet."""
        return self._coming > 0 or self._rounds.busy

    def _turn(self) -> None:
        """Hand out batches while they are due and the model is quick."""
        while self._inside is None and (in_force := self._in_force) is not None:
            if self._gone:
                self._gone = False
                self._batcher.drop(lambda waiting: waiting.done.done())
            due_in = self._batcher.due_in()
            if due_in > 0:
                if due_in != float("inf"):
                    self._rounds.again(0.0 if self._rounds.busy else due_in)
                return
            batch = self._batcher.take()
            spans, refused = spans_of(batch.records, in_force, self._clock.monotonic())
            self._gone = self._gone or refused
            if not spans:
                continue
            self._inside = (batch, spans)
            self._rounds.queued = False
            self._scoring.submit((batch, spans, in_force), sum(span.many for span in spans))
            self._collect()

    def _told(self) -> None:
        """On the scoring thread: an answer is there."""
        self._rounds.from_thread(self._answer_is_there)

    def _answer_is_there(self) -> None:
        self._collect()
        self._rounds.now()

    def _collect(self) -> None:
        """Give what was answered to those who asked."""
        if self._inside is None:
            return
        batch, spans = self._inside
        try:
            ended = self._scoring.take(0.0)
        except BaseException as exc:  # whatever happened to the batch, each of its requests is told
            self._inside = None
            for span in spans:
                span.waiting.refuse(exc)
            raise
        if ended is None:
            return
        self._inside = None
        self._batch_over_at = self._clock.monotonic()
        for those, scored in ended:
            if isinstance(scored, Exception):
                for span in those:
                    span.waiting.refuse(scored)
                continue
            self._tell(batch, scored)
            give(those, scored.answers)

    def _tell(self, batch: Batch[Waiting], scored: Scored) -> None:
        rows = scored.fact.rows
        self.answered_rows += sum(outcomes.predicted for outcomes in scored.outcomes)
        self._row_s = (
            0.8 * self._row_s + 0.2 * scored.fact.scored_s / rows if self._row_s else (scored.fact.scored_s / rows)
        )
        self._pace.scored(rows, scored.fact.scored_s, batch.taken_at)
        self._pace.settled()
        self._observer.batch_scored(scored.fact)
        self._observer.committed(Committed(scored.outcomes, self._clock.now_ms()))

    def _held(self) -> list[Waiting]:
        inside = [span.waiting for span in self._inside[1]] if self._inside else []
        return [*dict.fromkeys([*self._batcher.records, *inside])]

    def _score(self, question: tuple[Batch[Waiting], list[Span], InForce]) -> list[Ended]:
        """On the loop or on the scoring thread, never on both."""
        batch, spans, in_force = question
        if self._tracing is None:
            return scored_spans(batch, spans, in_force, self._asking)
        traced = [span.waiting.trace for span in spans if span.waiting.trace is not None]
        with self._tracing.batch(self.model, batch, traced) as trace:
            ended = scored_spans(batch, spans, in_force, self._asking)
            if trace is not None:
                tell_of(ended, trace)
        return ended
