"""When is a batch due."""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, NamedTuple, Protocol

from app.clock import Clock
from app.facts import PaceState
from app.records import Batch, Item, Timed


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Bounds of one micro-batch; reaching one makes it due. The model is given max_records at a time."""

    max_records: int = 512
    max_bytes: int = 4 * 1024 * 1024


class Pace(Protocol):
    """How long records may wait for company. All times are of the monotonic clock."""

    def arrived(self, records: Sequence[Timed]) -> float:
        """The deadline of these, which came together now; at least one."""
        ...

    def wait_s(self, left_s: float, held: int) -> float:
        """How much longer to wait with `held` records, the first of whose deadlines is `left_s` away; 0 is not."""
        ...

    def most(self, left_s: float) -> float:
        """How many records a batch may have, at least 1, when its deadline is `left_s` away."""
        ...

    def scored(self, count: int, seconds: float, taken_at: float) -> None:
        """A batch taken then was scored, `count` records in so many seconds; its outcomes are on their way."""
        ...

    def settled(self) -> None:
        """Everything scored so far is durable now."""
        ...

    def undone(self) -> None:
        """What was taken and not settled starts over."""
        ...

    def state(self) -> PaceState | None:
        """For whoever watches."""
        ...


class FixedWait:
    """Every record may wait as long as any other."""

    def __init__(self, max_wait_s: float, clock: Clock) -> None:
        self._max_wait_s, self._clock = max_wait_s, clock

    def arrived(self, _records: Sequence[Timed]) -> float:
        """The deadline to leave."""
        return self._clock.monotonic() + self._max_wait_s

    def wait_s(self, left_s: float, _held: int) -> float:
        """All that is left."""
        return max(0.0, left_s)

    def most(self, _left_s: float) -> float:
        """No bound."""
        return math.inf

    def scored(self, count: int, seconds: float, taken_at: float) -> None:
        """Changes nothing."""

    def settled(self) -> None:
        """Changes nothing."""

    def undone(self) -> None:
        """Changes nothing."""

    def state(self) -> None:
        """Nothing to watch."""


class _Arrival(NamedTuple):
    """Records that came together."""

    when: float
    deadline: float
    many: int


class MicroBatcher(Generic[Item]):
    """Collects records until a batch is due. Never waits; the caller asks.

    A batch is due at max_records, at max_bytes, or when its pace says so. An empty batcher is never due. After
    `drain()` whatever is left is due at once. Records leave in the order they came. A batch exceeds max_bytes only
    if its single record does, and max_records only as `allow` says.
    """

    def __init__(self, policy: BatchPolicy, clock: Clock, pace: Pace) -> None:
        self._policy, self._clock, self._pace = policy, clock, pace
        self._most_records = policy.max_records
        self._mean_bytes = 0.0  # of a record of the last batch
        self._records: list[Item] = []
        self._bytes = 0
        self._arrivals: deque[_Arrival] = deque()
        self._deadline = math.inf  # the first of them
        self._draining = False

    def __len__(self) -> int:
        return len(self._records)

    @property
    def size_bytes(self) -> int:
        """Bytes of the values held."""
        return self._bytes

    @property
    def records(self) -> Sequence[Item]:
        """What is held, oldest first; a view for looking, not for keeping."""
        return self._records

    def allow(self, together: int) -> None:
        """Let what is there leave together, up to so many times max_records; nothing waits for it.

        Each step has a cost per batch, whatever its size (docs/decisions/0004).
        """
        self._most_records = together * self._policy.max_records

    def room(self) -> int:
        """How many more records make the next batch full, if they are like those held or the last; 0 when it is."""
        records, size = len(self._records), self._bytes
        if size >= self._policy.max_bytes or records >= self._most_records:
            return 0
        mean_bytes = size / records if size else self._mean_bytes
        by_size = int((self._policy.max_bytes - size) / mean_bytes) if mean_bytes else self._most_records
        return max(1, min(self._most_records - records, by_size))

    @property
    def full(self) -> bool:
        """Whether a batch is due by the number of its records."""
        return len(self._records) >= self._policy.max_records

    def lacks(self) -> int:
        """How many more records make a batch due, if it is their number that does; at least 1."""
        return max(1, self._policy.max_records - len(self._records))

    def add(self, records: Sequence[Item]) -> None:
        """Take records over, in order."""
        if records:
            self._records.extend(records)
            self._bytes += sum(map(len, records))
            deadline = self._pace.arrived(records)
            self._arrivals.append(_Arrival(self._clock.monotonic(), deadline, len(records)))
            self._deadline = min(self._deadline, deadline)

    def drain(self) -> None:
        """From now on do not wait for more."""
        self._draining = True

    def due_in(self) -> float:
        """Seconds until a batch is due: 0.0 is now, infinity is never (nothing is held)."""
        if not self._records:
            return math.inf
        if self._draining or self.full or not self.room():
            return 0.0
        return self._pace.wait_s(self._deadline - self._clock.monotonic(), len(self._records))

    def take(self) -> Batch[Item]:
        """The oldest records that make a batch, due or not; raises IndexError if nothing is held."""
        now = self._clock.monotonic()
        waited_s = now - self._arrivals[0].when
        count, cause = self._next_batch()
        if count == len(self._records):
            batch, size = Batch(self._records, cause, waited_s, now, self._policy.max_records), self._bytes
            self._records = []
        else:
            batch = Batch(self._records[:count], cause, waited_s, now, self._policy.max_records)
            del self._records[:count]
            size = sum(map(len, batch.records))
        self._bytes -= size
        self._mean_bytes = size / count
        self._forget_arrivals(count)
        return batch

    def put_back(self, batch: Batch[Item]) -> None:
        """The batch taken last was not worked on: it is due again, before everything that came since."""
        self._records = [*batch.records, *self._records]
        self._bytes = sum(map(len, self._records))
        self._arrivals.appendleft(_Arrival(batch.taken_at - batch.waited_s, batch.taken_at, len(batch)))
        self._find_deadline()

    def drop(self, unwanted: Callable[[Item], bool]) -> int:
        """Forget records whose partition was taken away; returns how many."""
        held, self._records = self._records, []
        arrivals: deque[_Arrival] = deque()
        start = 0
        for arrival in self._arrivals:
            kept = [record for record in held[start : start + arrival.many] if not unwanted(record)]
            start += arrival.many
            if kept:
                self._records += kept
                arrivals.append(arrival._replace(many=len(kept)))
        self._arrivals = arrivals
        self._find_deadline()
        self._bytes = sum(map(len, self._records))
        return len(held) - len(self._records)

    def _next_batch(self) -> tuple[int, str]:
        policy = self._policy
        count = min(len(self._records), self._most_records)
        count = int(min(count, self._pace.most(self._deadline - self._clock.monotonic())))
        if self._bytes > policy.max_bytes:
            fitting = bisect_right(list(accumulate(map(len, self._records[:count]))), policy.max_bytes)
            if fitting < count:
                return max(1, fitting), "bytes"
        if count >= policy.max_records:
            return count, "records"
        if self._bytes >= policy.max_bytes:
            return count, "bytes"
        return count, "drain" if self._draining else "age"

    def _forget_arrivals(self, count: int) -> None:
        while count:
            arrival = self._arrivals.popleft()
            if arrival.many > count:
                self._arrivals.appendleft(arrival._replace(many=arrival.many - count))
                break
            count -= arrival.many
        self._find_deadline()

    def _find_deadline(self) -> None:
        self._deadline = min((arrival.deadline for arrival in self._arrivals), default=math.inf)
