"""How long a batch may wait under a latency objective.

A record's age when its outcome is durable is made of waiting for company, the batch's own cost, and delivery. The
cost is fitted as a + b·n while batches pass, the delivery is remembered, and what the objective leaves after both
is spent on waiting: fewer, larger batches share the fixed cost `a`. Nothing is left under a backlog, so nothing is
waited for and batches are as full as the backlog makes them; and nothing is waited for when nobody is expected.
"""

import math
from collections.abc import Sequence

from app.clock import Clock
from app.facts import PaceState
from app.records import Timed

FADE = 0.98  # weight of a batch's cost after the next one: some 50 batches count
RELAX = 0.05  # how far a remembered peak of delivery comes down with each settlement: gone after some 60
RATE_MEMORY = 10.0  # objectives: over this long the arrival rate is an average
CAUTION = (
    0.5  # of the objective is planned with; the rest is for what no average foresees, a stall of the machine above all
)


class BatchCost:
    """Seconds that a batch of n records takes, as a + b·n with a, b >= 0.

    Least squares over all batches seen, each weighing FADE times the one after it. While batches of one size only
    were seen, a is 0: the cost of larger ones is then never underestimated.
    """

    def __init__(self) -> None:
        self._weight = self._n = self._nn = self._s = self._ns = 0.0  # sums of 1, n, n², s, n·s
        self.fixed_s = self.per_record_s = 0.0

    def seen(self, count: int, seconds: float) -> None:
        """A batch of `count` >= 1 records took this long."""
        self._weight = self._weight * FADE + 1.0
        self._n = self._n * FADE + count
        self._nn = self._nn * FADE + count * count
        self._s = self._s * FADE + seconds
        self._ns = self._ns * FADE + count * seconds
        mean_n, mean_s = self._n / self._weight, self._s / self._weight
        variance = self._nn / self._weight - mean_n * mean_n
        covariance = self._ns / self._weight - mean_n * mean_s
        through_origin = self._ns / self._nn
        if variance <= 1e-6 * mean_n * mean_n:
            self.fixed_s, self.per_record_s = 0.0, through_origin
        elif covariance <= 0:
            self.fixed_s, self.per_record_s = mean_s, 0.0
        else:
            slope = covariance / variance
            fixed = mean_s - slope * mean_n
            self.fixed_s, self.per_record_s = (fixed, slope) if fixed > 0 else (0.0, through_origin)

    def of(self, count: float) -> float:
        """Seconds, for a batch of this many records."""
        return self.fixed_s + self.per_record_s * count


class LatencyObjective:
    """A `batcher.Pace`: as long as records can be on time, and somebody is expected, wait.

    A record's age counts from its own timestamp; one from the future, or none, counts from its arrival.
    """

    def __init__(self, objective_s: float, clock: Clock) -> None:
        self._objective_s, self._clock = objective_s, clock
        self._cost = BatchCost()
        self._delivery_s = 0.0
        self._rate, self._rate_at = 0.0, clock.monotonic()
        self._unsettled: list[tuple[float, float]] = []  # (when a batch was taken, what its scoring took)

    def arrived(self, records: Sequence[Timed]) -> float:
        """When the oldest of these must be durable, on the monotonic clock."""
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        memory_s = RATE_MEMORY * self._objective_s
        self._rate = self._rate_now(now) + len(records) / memory_s
        self._rate_at = now
        oldest_ms = min([record.timestamp()[1] for record in records])
        if oldest_ms <= 0:
            oldest_ms = min([ms for record in records if (ms := record.timestamp()[1]) > 0], default=now_ms)
        return now + CAUTION * self._objective_s - max(0, now_ms - oldest_ms) / 1000

    def wait_s(self, left_s: float, held: int) -> float:
        """How much longer `held` records may wait, the oldest of which must be durable in `left_s`."""
        spare_s = left_s - self._delivery_s - self._cost.of(held)
        if spare_s <= 0:
            return 0.0
        rate = self._rate_now(self._clock.monotonic())
        # those who come meanwhile make the batch dearer: wait + b·rate·wait = spare
        wait_s = spare_s / (1.0 + rate * self._cost.per_record_s)
        return wait_s if rate * wait_s >= 1.0 else 0.0

    def most(self, left_s: float) -> float:
        """No batch takes so long that what comes meanwhile must be late; under a backlog it would be anyway."""
        if left_s <= self._delivery_s + self._cost.fixed_s or self._cost.per_record_s <= 0:
            return math.inf
        spare_s = (CAUTION * self._objective_s - self._delivery_s) / 2 - self._cost.fixed_s
        most = spare_s // self._cost.per_record_s
        return most if most >= 1 else math.inf

    def scored(self, count: int, seconds: float, taken_at: float) -> None:
        """A batch has its outcomes, which are on their way."""
        if count:
            self._cost.seen(count, seconds)
        self._unsettled.append((taken_at, seconds))

    def settled(self) -> None:
        """Everything scored so far is durable now."""
        if not self._unsettled:
            return
        now = self._clock.monotonic()
        slowest_s = max(now - taken_at - seconds for taken_at, seconds in self._unsettled)
        self._delivery_s += (1.0 if slowest_s > self._delivery_s else RELAX) * (slowest_s - self._delivery_s)
        self._unsettled.clear()

    def undone(self) -> None:
        """What was taken and not settled starts over."""
        self._unsettled.clear()

    def state(self) -> PaceState:
        """What the waiting is worked out from."""
        return PaceState(self._objective_s, self._cost.fixed_s, self._cost.per_record_s, self._delivery_s)

    def _rate_now(self, now: float) -> float:
        """Records per second, an exponentially fading average."""
        return self._rate * math.exp((self._rate_at - now) / (RATE_MEMORY * self._objective_s))
