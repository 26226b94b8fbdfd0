"""When is a batch due."""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from app.clock import Clock
from app.records import Batch, Record


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Bounds of one micro-batch; the first one reached makes it due."""

    max_records: int = 512
    max_bytes: int = 4 * 1024 * 1024
    max_wait_s: float = 0.01


class MicroBatcher:
    """Collects records until a batch is due. Never waits; the caller asks.

    A batch is due at max_records, at max_bytes, or when its oldest record has been here for max_wait_s. An
    empty batcher is never due. After `drain()` whatever is left is due at once. Records leave in the order
    they came. A batch exceeds max_bytes only if its single record does.
    """

    def __init__(self, policy: BatchPolicy, clock: Clock) -> None:
        self._policy, self._clock = policy, clock
        self._records: list[Record] = []
        self._bytes = 0
        self._arrivals: deque[tuple[float, int]] = deque()  # (when, how many came together)
        self._draining = False

    def __len__(self) -> int:
        return len(self._records)

    @property
    def size_bytes(self) -> int:
        """Bytes of the values held."""
        return self._bytes

    @property
    def records(self) -> Sequence[Record]:
        """What is held, oldest first; a view for looking, not for keeping."""
        return self._records

    def room(self) -> int:
        """How many more records make the next batch full; 0 when it is."""
        if self._bytes >= self._policy.max_bytes:
            return 0
        return max(0, self._policy.max_records - len(self._records))

    def add(self, records: Sequence[Record]) -> None:
        """Take records over, in order."""
        if records:
            self._records.extend(records)
            self._bytes += sum(map(len, records))
            self._arrivals.append((self._clock.monotonic(), len(records)))

    def drain(self) -> None:
        """From now on do not wait for more."""
        self._draining = True

    def due_in(self) -> float:
        """Seconds until a batch is due: 0.0 is now, infinity is never (nothing is held)."""
        if not self._records:
            return math.inf
        if self._draining or not self.room():
            return 0.0
        return max(0.0, self._arrivals[0][0] + self._policy.max_wait_s - self._clock.monotonic())

    def take(self) -> Batch:
        """The oldest records that make a batch, due or not; raises IndexError if nothing is held."""
        waited_s = self._clock.monotonic() - self._arrivals[0][0]
        count, cause = self._next_batch()
        if count == len(self._records):
            batch = Batch(self._records, cause, waited_s)
            self._records, self._bytes = [], 0
        else:
            batch = Batch(self._records[:count], cause, waited_s)
            del self._records[:count]
            self._bytes -= sum(map(len, batch.records))
        self._forget_arrivals(count)
        return batch

    def drop(self, unwanted: Callable[[Record], bool]) -> int:
        """Forget records whose partition was taken away; returns how many."""
        held, self._records = self._records, []
        arrivals: deque[tuple[float, int]] = deque()
        start = 0
        for when, many in self._arrivals:
            kept = [record for record in held[start : start + many] if not unwanted(record)]
            start += many
            if kept:
                self._records += kept
                arrivals.append((when, len(kept)))
        self._arrivals = arrivals
        self._bytes = sum(map(len, self._records))
        return len(held) - len(self._records)

    def _next_batch(self) -> tuple[int, str]:
        policy = self._policy
        count = min(len(self._records), policy.max_records)
        if self._bytes > policy.max_bytes:
            fitting = bisect_right(list(accumulate(map(len, self._records[:count]))), policy.max_bytes)
            if fitting < count:
                return max(1, fitting), "bytes"
        if count == policy.max_records:
            return count, "records"
        if self._bytes >= policy.max_bytes:
            return count, "bytes"
        return count, "drain" if self._draining else "age"

    def _forget_arrivals(self, count: int) -> None:
        while count:
            when, many = self._arrivals.popleft()
            if many > count:
                self._arrivals.appendleft((when, many - count))
                return
            count -= many
