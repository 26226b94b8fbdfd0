"""Joins summaries to the stream: what is delivered is added up, and told along with the offsets that commit it.

In exactly_once a summary is part of the transaction that its predictions are part of, so that what summaries add up to
is what was committed, whatever ends the worker. That makes one of each version for each transaction. In at_least_once
nothing ties them together: summaries are of acknowledged predictions, every interval, and what was acknowledged since
the last one is lost with the worker.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from app.clock import Clock
from app.pipeline.summary.plan import Summary, SummaryPlan, SummedRows

FOLD_ROWS = 8192  # a fold of these costs hardly more a row than one of more, and until then the rows are kept


@dataclass(frozen=True, slots=True)
class SummingPolicy:
    """bucket_s: no summary has predictions of two such stretches of time, counted from the epoch.

    transactional: what is delivered and what is told of it are committed together or not at all; else summaries come
    every interval_s, and when a bucket has ended. most_bytes: of a summary and its key; one that is larger, of a model
    with thousands of features, goes without them.
    """

    bucket_s: int = 10
    interval_s: float = 1.0
    transactional: bool = True
    most_bytes: int = 1_000_000 - 512  # the client's default for a message, less its framing


@dataclass(slots=True)
class _Heap:
    """Rows of one version and bucket; those not folded yet are kept as they came."""

    plan: SummaryPlan
    rows: list[SummedRows] = field(default_factory=list)
    count: int = 0
    folded: Summary | None = None

    def add(self, rows: SummedRows) -> None:
        self.rows.append(rows)
        self.count += len(rows)
        if self.count >= FOLD_ROWS:
            self.fold()

    def join(self, other: "_Heap") -> None:
        if other.folded is not None:
            self.folded = other.folded if self.folded is None else self.folded.plus(other.folded)
        for rows in other.rows:
            self.add(rows)

    def fold(self) -> Summary | None:
        if self.rows:
            summary = self.plan.fold(self.rows)
            self.folded = summary if self.folded is None else self.folded.plus(summary)
            self.rows, self.count = [], 0
        return self.folded


_Heaps = dict[tuple[SummaryPlan, int], _Heap]  # by version and bucket


class Summing:
    """What was delivered and not told of yet, by version and bucket. On the stream thread.

    write: a record of schemas/model_summary.avsc → its datum.
    """

    def __init__(self, write: Callable[[Mapping[str, object]], bytes], policy: SummingPolicy, clock: Clock) -> None:
        self._write, self._policy, self._clock = write, policy, clock
        self._bucket_ms = policy.bucket_s * 1000
        self._open: _Heaps = {}  # delivered, and it may have to be delivered again
        self._safe: _Heaps = {}  # acknowledged; in a transaction nothing is, before it is over
        self._told_at = clock.monotonic()
        self._log = structlog.get_logger()
        self._too_large: set[str] = set()  # versions that was said of

    def delivered(self, several: Sequence[SummedRows]) -> None:
        """The sink has taken the predictions of these rows."""
        for rows in several:
            if len(rows):
                bucket = rows.at_ms // self._bucket_ms
                key = (rows.plan, bucket)
                if key not in self._open:
                    self._open[key] = _Heap(rows.plan)
                self._open[key].add(rows)

    def settled(self) -> None:
        """Everything delivered is durable."""
        for key, heap in self._open.items():
            if key in self._safe:
                self._safe[key].join(heap)
            else:
                self._safe[key] = heap
        self._open = {}

    def undone(self) -> None:
        """What was delivered since the last settlement will come again."""
        self._open = {}

    def to_commit(self, *, at_once: bool) -> list[tuple[bytes, bytes]]:
        """Key and value of the summaries to be delivered now; in a transaction, as its last records.

        They are handed out once: if a transaction with them is undone, so are the predictions they are about.
        at_once: do not wait for the interval.
        """
        heaps = self._open if self._policy.transactional else self._safe
        if not heaps or not (self._policy.transactional or at_once or self._is_due()):
            return []
        self._told_at = self._clock.monotonic()
        if self._policy.transactional:
            self._open = {}
        else:
            self._safe = {}
        return [self._told(plan, bucket, heap) for (plan, bucket), heap in heaps.items()]

    def _is_due(self) -> bool:
        now = self._clock.now_ms() // self._bucket_ms
        over = any(bucket < now for _, bucket in self._safe)
        return over or self._clock.monotonic() - self._told_at >= self._policy.interval_s

    def _told(self, plan: SummaryPlan, bucket: int, heap: _Heap) -> tuple[bytes, bytes]:
        summary = heap.fold()
        if summary is None:
            raise RuntimeError("a heap is made for rows")
        key = f"{plan.pipeline}/{plan.model.version}".encode()
        record = plan.record(summary, bucket * self._bucket_ms)
        value = self._write(record)
        size = len(key) + len(value)
        if size <= self._policy.most_bytes:
            return key, value
        if plan.model.version not in self._too_large:
            self._too_large.add(plan.model.version)
            self._log.warning("summaries_without_features", version=plan.model.version, bytes=size)
        return key, self._write(record | {"features": []})
