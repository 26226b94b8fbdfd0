"""Time for a run: only differences count, and no correction of the wall's clock may move an intended time."""

import asyncio
import time
from typing import Protocol


class LoadClock(Protocol):
    """Milliseconds since some start, with fractions; never goes back."""

    def now_ms(self) -> float:
        """Return the time now."""

    async def sleep_until(self, at_ms: float) -> None:
        """Return at that time or later; if it has passed, after everybody else had a turn."""


class MonotonicClock:
    """The machine's own."""

    def now_ms(self) -> float:
        """See LoadClock."""
        return time.monotonic_ns() / 1e6

    async def sleep_until(self, at_ms: float) -> None:
        """See LoadClock."""
        await asyncio.sleep(max(at_ms - self.now_ms(), 0.0) / 1000.0)
