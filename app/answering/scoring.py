"""Where the model is asked: at once when it answers quickly, else on a thread of its own.

ONNX Runtime releases the interpreter lock, so while a model works on that thread the loop polls, decodes the next
batch and encodes the last one. Handing a batch over costs more than that gains when the model is quick, and a slow
one must never keep the consumer from polling: what is expected of the next question decides (docs/decisions/0001).
One question at a time is inside.
"""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, NamedTuple, TypeVar

from app.clock import Clock

Question = TypeVar("Question")
Answer = TypeVar("Answer")

QUICK_S = 0.001  # longer than this and the model is asked on the thread
# How many batches are one question, see `together`.
MOST_TOGETHER = 16
MOST_ROWS = 8192  # beyond that little is gained, and a worker's memory at its peak grows
TOGETHER_S = 0.04  # what the model may take for them
TAKE_S = 0.05  # and all steps, half a commit interval: handlers and readers of single data have their time too


class _Took(NamedTuple):
    """The last question that had rows, and its time."""

    rows: int
    seconds: float


class Scoring(Generic[Question, Answer]):
    """Takes a question, gives back the answer, or what asking raised.

    run_rows, runs_at_once: what the model is given at a time, and how many of those it works on side by side.
    told: called on the thread when an answer has come there, for whoever cannot wait in `take`.
    """

    def __init__(
        self,
        ask: Callable[[Question], Answer],
        name: str,
        clock: Clock,
        most_rows: int = MOST_ROWS,
        run_rows: int = MOST_ROWS,
        runs_at_once: int = 1,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._told = told
        self._ask, self._name, self._clock, self._most_rows = ask, name, clock, most_rows
        self._run_rows, self._runs_at_once = run_rows, runs_at_once
        self._questions: SimpleQueue[tuple[int, Question, int] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[int, Answer | BaseException]] = SimpleQueue()
        self._ticket = 0
        self._inside = False
        self._last: _Took | None = None  # nothing is known of the model: do not block the loop
        self._thread: Thread | None = None
        self._handed = self._done = 0  # to the thread, by it
        self._ready_at = 0.0  # when the thread is expected to have the answer

    def together(self, batch_rows: int, row_s: float) -> int:
        """How many batches of so many rows may be one question: as many as the model answers in TOGETHER_S.

        row_s: what a row of the last question took in all steps; those of the next may take TAKE_S.
        """
        most = min(MOST_TOGETHER, self._most_rows // batch_rows)
        for many in range(most, 1, -1):
            rows = many * batch_rows
            if self._expected_s(rows, self._runs_at_once) <= TOGETHER_S and rows * row_s <= TAKE_S:
                return many
        return 1

    def submit(self, question: Question, rows: int) -> None:
        """Ask this, about so many rows; only when the last answer was taken or discarded."""
        self._ticket += 1
        self._inside = True
        if self._expected_s(rows, runs_at_once=1) <= QUICK_S and self._handed == self._done:
            self._answers.put((self._ticket, self._answer_to(question, rows)))
            return
        if self._thread is None:
            self._thread = Thread(target=self._run, name=f"scoring-{self._name}", daemon=True)
            self._thread.start()
        self._handed += 1
        self._ready_at = self._clock.monotonic() + self._expected_s(rows, self._runs_at_once)
        self._questions.put((self._ticket, question, rows))

    def busy_s(self) -> float:
        """How much longer the answer is expected to take; 0 if none is waited for, infinity if nothing is known."""
        return max(0.0, self._ready_at - self._clock.monotonic()) if self._inside and self._answers.empty() else 0.0

    def take(self, timeout_s: float) -> Answer | None:
        """The answer, or None if it is not there within `timeout_s`. Raises what asking raised."""
        while self._inside:
            try:
                ticket, answer = self._answers.get(timeout=timeout_s) if timeout_s > 0 else self._answers.get_nowait()
            except Empty:
                return None
            if ticket != self._ticket:
                continue  # discarded meanwhile
            self._inside = False
            if isinstance(answer, BaseException):
                raise answer
            return answer
        return None

    def discard(self) -> None:
        """Forget what is inside; its answer will never be taken."""
        self._ticket += 1
        self._inside = False

    def close(self) -> None:
        """End the thread after what is inside, if anything; does not wait for it."""
        self._questions.put(None)

    def _expected_s(self, rows: int, runs_at_once: int) -> float:
        """No less than a question of so many rows takes, if each row costs the same and none less than nothing.

        runs_at_once: 1 says so of what is made of the answers too, which is not done side by side.
        """
        if self._last is None:
            return float("inf")
        return self._last.seconds * max(
            1.0, self._in_turn(rows, runs_at_once) / self._in_turn(self._last.rows, runs_at_once)
        )

    def _in_turn(self, rows: int, runs_at_once: int) -> int:
        """How many of the rows are worked on one after another, where most of them are."""
        rounds, rest = divmod(rows, self._run_rows * runs_at_once)
        return rounds * self._run_rows + min(rest, self._run_rows)

    def _run(self) -> None:
        while (job := self._questions.get()) is not None:
            ticket, question, rows = job
            answer = self._answer_to(question, rows)
            self._done += 1  # before anybody hears of it, who might ask the next one at once
            self._answers.put((ticket, answer))
            self._told()

    def _answer_to(self, question: Question, rows: int) -> Answer | BaseException:
        started = self._clock.monotonic()
        try:
            answer: Answer | BaseException = self._ask(question)
        except BaseException as exc:  # noqa: BLE001 - raised again on the stream thread, by take()
            answer = exc
        if rows:
            self._last = _Took(rows, self._clock.monotonic() - started)
        return answer
