"""How much time something may take that is only beside the work: so much of each second."""

from app.clock import Clock

SOON_S = 0.001  # a millisecond more than nothing: waiting for no time at all would turn round and round


class Allowance:
    """Time that accrues and is spent. What is saved is never more than a second's; it may be overdrawn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._a_second_s, self._left_s, self._at = 0.0, 0.0, clock.monotonic()

    def grant(self, a_second_s: float) -> None:
        """From now on so much; the first second's is there at once, whatever was left."""
        self._a_second_s = self._left_s = a_second_s

    def spend(self, seconds: float) -> None:
        """It took so long."""
        self._left_s -= seconds

    def accrue(self) -> bool:
        """Count what has come since the last time; whether there is some."""
        now = self._clock.monotonic()
        self._left_s = min(self._a_second_s, self._left_s + (now - self._at) * self._a_second_s)
        self._at = now
        return self._left_s > 0

    def due_in(self) -> float:
        """Seconds until there will be some; 0.0 if there is, infinity if nothing is granted."""
        if self._left_s > 0:
            return 0.0
        return SOON_S - self._left_s / self._a_second_s if self._a_second_s else float("inf")
