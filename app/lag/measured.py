"""What looks at a group add up to: how much comes in, and how much one process can do. Averages over time, no clock."""

import math

LARGEST_CHANGE = 2.0  # of the measured capacity by one look: a seek over a million records is no feat of a process


class ArrivalRate:
    """Records per second, an average that follows a rise sooner than a fall."""

    def __init__(self, rise_s: float, fall_s: float) -> None:
        self._rise_s, self._fall_s = rise_s, fall_s
        self._idle_s = 0.0
        self._rate: float | None = None

    @property
    def value(self) -> float:
        """0 until something was seen."""
        return self._rate or 0.0

    def seen(self, count: int, seconds: float) -> None:
        """So many came in so long a time, both positive or the count 0."""
        now = count / seconds
        self._idle_s = 0.0 if count else self._idle_s + seconds
        if self._rate is None:
            self._rate = now
        else:
            memory_s = self._rise_s if now > self._rate else self._fall_s
            self._rate += -math.expm1(-seconds / memory_s) * (now - self._rate)

    def is_over(self, after_s: float) -> bool:
        """Whether nothing came for so long; an average alone never gets to 0."""
        return self._idle_s >= after_s


class ProcessCapacity:
    """Records per second that one process can do: measured, where it had enough to do; the seed until then."""

    def __init__(self, seed: float | None, memory_s: float) -> None:
        self.value = seed
        self._memory_s = memory_s

    def seen(self, rate: float, seconds: float) -> None:
        """A busy process did `rate` for so long; 0 is no measurement."""
        if rate <= 0.0:
            return
        if self.value is None:
            self.value = rate
            return
        rate = min(max(rate, self.value / LARGEST_CHANGE), self.value * LARGEST_CHANGE)
        self.value += -math.expm1(-seconds / self._memory_s) * (rate - self.value)
