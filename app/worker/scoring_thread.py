"""Scoring on a thread of its own, one batch deep, so that the stream thread keeps polling."""

from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

from app.records import Batch, Origin
from app.worker.chain import ScoredBatch

Score = Callable[[Batch, Origin], ScoredBatch]


@dataclass(frozen=True, slots=True)
class _Job:
    batch: Batch
    origin: Origin
    ticket: int


class ScoringThread:
    """Takes a batch, gives back what it left behind or what it raised. At most one batch is inside."""

    def __init__(self, score: Score, name: str) -> None:
        self._score = score
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[int, ScoredBatch | BaseException]] = SimpleQueue()
        self._ticket = 0
        self._awaited = False
        self._thread = Thread(target=self._run, name=f"scoring-{name}", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a batch was submitted whose answer has not been taken, nor discarded."""
        return self._awaited

    def submit(self, batch: Batch, origin: Origin) -> None:
        """Score this batch next; only when not busy."""
        self._ticket += 1
        self._awaited = True
        self._jobs.put(_Job(batch, origin, self._ticket))

    def take(self, timeout_s: float) -> ScoredBatch | None:
        """The answer, or None if it is not there within `timeout_s`. Raises what scoring raised."""
        while self._awaited:
            try:
                ticket, answer = self._answers.get(timeout=timeout_s) if timeout_s > 0 else self._answers.get_nowait()
            except Empty:
                return None
            if ticket != self._ticket:
                continue  # discarded meanwhile
            self._awaited = False
            if isinstance(answer, BaseException):
                raise answer
            return answer
        return None

    def discard(self) -> None:
        """Forget the batch inside; its answer will never be taken."""
        self._ticket += 1
        self._awaited = False

    def close(self) -> None:
        """End the thread after the batch inside, if any; does not wait for it."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                answer: ScoredBatch | BaseException = self._score(job.batch, job.origin)
            except BaseException as exc:  # noqa: BLE001 - raised again on the stream thread, by take()
                answer = exc
            self._answers.put((job.ticket, answer))
