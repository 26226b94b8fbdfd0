"""Time as an argument: the pure steps never read a clock of their own."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that only moves forward, for durations, and the wall's, for timestamps."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as Kafka's timestamps."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as Kafka's timestamps."""
        return time.time_ns() // 1_000_000
