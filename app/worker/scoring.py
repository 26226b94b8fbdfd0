"""Where the model is asked: at once when it answers quickly, else on a thread of its own.

ONNX Runtime releases the interpreter lock, so while a model works on that thread the loop polls, decodes the next
batch and encodes the last one. Handing a batch over costs more than that gains when the model is quick, and a slow
one must never keep the consumer from polling: what the last batch took decides (docs/decisions/0001). One batch at
a time is inside.
"""

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

QUICK_S = 0.001  # longer than this and the model is asked on the thread
MOST_TOGETHER = 4  # beyond 2,048 records they outgrow the caches, and nothing is gained
TOGETHER_S = 0.01  # what the model may take for batches together: a tenth of a commit interval


class Scoring(Generic[Question, Answer]):
    """Takes a question, gives back the answer, or what asking raised."""

    def __init__(self, ask: Callable[[Question], Answer], name: str, most_together: int = MOST_TOGETHER) -> None:
        self._ask, self._name, self._most_together = ask, name, most_together
        self._questions: SimpleQueue[tuple[int, Question] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[int, Answer | BaseException]] = SimpleQueue()
        self._ticket = 0
        self._inside = False
        self._run_s = float("inf")  # of one run of the model; nothing is known of it: do not block the loop
        self._runs = 1
        self._thread: Thread | None = None

    def together(self) -> int:
        """How many batches may be asked about as one: as many as the model answers in TOGETHER_S."""
        return int(max(1, min(self._most_together, TOGETHER_S // max(self._run_s, 1e-9))))

    def submit(self, question: Question, runs: int = 1) -> None:
        """Ask this, which is so many runs of the model; only when the last answer was taken or discarded."""
        self._ticket += 1
        self._inside = True
        self._runs = runs
        if self._run_s * runs <= QUICK_S:
            self._work(self._ticket, question)
            return
        if self._thread is None:
            self._thread = Thread(target=self._run, name=f"scoring-{self._name}", daemon=True)
            self._thread.start()
        self._questions.put((self._ticket, question))

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

    def _run(self) -> None:
        while (job := self._questions.get()) is not None:
            self._work(*job)

    def _work(self, ticket: int, question: Question) -> None:
        started = time.perf_counter()
        try:
            answer: Answer | BaseException = self._ask(question)
        except BaseException as exc:  # noqa: BLE001 - raised again on the stream thread, by take()
            answer = exc
        self._run_s = (time.perf_counter() - started) / self._runs
        self._answers.put((ticket, answer))
