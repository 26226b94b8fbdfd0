"""Client calls that can block for ever, watched from another thread.

`send_offsets_to_transaction` and others may ignore their timeout after connection resets, holding their
thread where no signal handler can run (librdkafka issues 5456 and 5511). The stream thread says what it calls
and until when; the main thread ends the process when a call outlives its deadline. Restarting loses and
doubles nothing: the transaction is fenced and its records are read again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.clock import Clock

CALL_MARGIN_S = 8.0  # what a call may take beyond the timeout it was given, before the watchdog acts
SEEN_S = 1.0  # and how long it is seen overdue: a process that was frozen has not had the time that has passed


@dataclass(frozen=True, slots=True)
class OverdueCall:
    """A client call that outlived its deadline."""

    name: str
    since_s: float


class Watchdog:
    """One per stream thread. The attributes are replaced as a whole, so no lock is needed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._call: tuple[str, float, float] | None = None
        self._seen: tuple[object, float] | None = None  # the call that was overdue when last asked, since when

    @contextmanager
    def expecting(self, name: str, within_s: float) -> Iterator[None]:
        """The calls inside return within `within_s` seconds, or the process is to be ended."""
        outer = self._call
        now = self._clock.monotonic()
        self._call = (name, now, now + within_s)
        try:
            yield
        finally:
            self._call = outer

    def overdue(self) -> OverdueCall | None:
        """The call that outlived its deadline, and did so SEEN_S ago too, if there is one. Any thread may ask."""
        call, seen, now = self._call, self._seen, self._clock.monotonic()
        if call is None or now < call[2]:
            self._seen = None
            return None
        if seen is None or seen[0] is not call:
            self._seen = call, now
            return None
        return OverdueCall(call[0], now - call[1]) if now - seen[1] >= SEEN_S else None
