"""When a version that failed is asked again."""

from app.clock import Clock


class Breaker:
    """Keeps a version that failed from being asked with every batch.

    Closed, everyone may ask. A failure opens it for `retry_s`; then, half open, one batch may ask: an answer
    closes it, another failure opens it for as long again.
    """

    def __init__(self, retry_s: float, clock: Clock) -> None:
        self._retry_s, self._clock = retry_s, clock
        self._open_until: float | None = None
        self.why = ""  # the last failure, in words: an exception would hold on to its batch

    def allows(self) -> bool:
        """Whether to ask now. Who is let through while it is open is the probe, and nobody else is meanwhile."""
        if self._open_until is None:
            return True
        now = self._clock.monotonic()
        if now < self._open_until:
            return False
        self._open_until = now + self._retry_s
        return True

    def failed(self, why: str) -> bool:
        """It was asked and failed; True if that is news."""
        news = self._open_until is None
        self.why = why
        self._open_until = self._clock.monotonic() + self._retry_s
        return news

    def answered(self) -> bool:
        """It was asked and answered; True if it had failed before."""
        news = self._open_until is not None
        self._open_until = None
        return news
