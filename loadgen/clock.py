"""Wall-clock time for everything that is compared with a record's event_time."""

import time
from typing import Protocol


class Clock(Protocol):
    """Milliseconds since the epoch, with fractions."""

    def now_ms(self) -> float:
        """Return the time now."""

    def sleep_until(self, at_ms: float) -> None:
        """Return at that time, or at once if it has passed."""


class WallClock:
    """The machine's clock. Another process on the machine reads the same one."""

    def now_ms(self) -> float:
        """See Clock."""
        return time.time_ns() / 1e6

    def sleep_until(self, at_ms: float) -> None:
        """See Clock."""
        time.sleep(max(at_ms - self.now_ms(), 0.0) / 1000.0)
