"""Where a batch is scored: at once when that is quick, else on a thread of its own, so that polling goes on.

Handing a batch to another thread makes its thousands of small objects change processor caches, and costs a
small model more than it gains; a slow one must never keep the consumer from polling. What the last batches
took decides (docs/decisions/0001). At most one batch is inside.
"""

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread

from app.records import Batch, Origin
from app.worker.chain import ScoredBatch

Score = Callable[[Batch, Origin], ScoredBatch]

# Longer than this and a batch is scored on the thread: well below any poll interval, and where polling meanwhile
# starts to pay for the hand-over.
QUICK_S = 0.005


class Scoring:
    """Takes a batch, gives back what it left behind or what it raised."""

    def __init__(self, score: Score, name: str) -> None:
        self._score, self._name = score, name
        self._jobs: SimpleQueue[tuple[int, Batch, Origin] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[int, ScoredBatch | BaseException]] = SimpleQueue()
        self._ticket = 0
        self._inside = False
        self._last_s = float("inf")  # nothing is known of the model: do not block the loop
        self._thread: Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a batch was submitted whose answer has not been taken, nor discarded."""
        return self._inside

    def submit(self, batch: Batch, origin: Origin) -> None:
        """Score this batch; only when not busy."""
        self._ticket += 1
        self._inside = True
        if self._last_s <= QUICK_S:
            self._work(self._ticket, batch, origin)
            return
        if self._thread is None:
            self._thread = Thread(target=self._run, name=f"scoring-{self._name}", daemon=True)
            self._thread.start()
        self._jobs.put((self._ticket, batch, origin))

    def take(self, timeout_s: float) -> ScoredBatch | None:
        """The answer, or None if it is not there within `timeout_s`. Raises what scoring raised."""
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
        """Forget the batch inside; its answer will never be taken."""
        self._ticket += 1
        self._inside = False

    def close(self) -> None:
        """End the thread after the batch inside, if any; does not wait for it."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._work(*job)

    def _work(self, ticket: int, batch: Batch, origin: Origin) -> None:
        started = time.perf_counter()
        try:
            answer: ScoredBatch | BaseException = self._score(batch, origin)
        except BaseException as exc:  # noqa: BLE001 - raised again on the stream thread, by take()
            answer = exc
        self._last_s = time.perf_counter() - started
        self._answers.put((ticket, answer))
