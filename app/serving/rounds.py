"""When the core looks for a due batch: in the loop's next round, or later; and whether the loop is busy meanwhile."""

import asyncio
from collections.abc import Callable

from app.clock import Clock

# A round with nothing in it takes uvloop about 5 µs; one in which gRPC takes a call in, 70 µs and more.
QUIET_S = 25e-6
# The next call of a queue comes through a thread of gRPC's: 70 µs. As empty rounds, in case the clock is slower.
QUEUE_QUIET_S, QUEUE_QUIET_ROUNDS = 150e-6, 50


class Rounds:
    """Calls `look` on the event loop, once for however often it is asked to.

    busy: the round that the last look waited for had something else in it, so that another may have more. queued: there
    is a queue behind those who ask, so that busy is also who had something within QUEUE_QUIET_S. gRPC takes in one call
    a round, whatever is ready: who looks at once in the next round finds one request, under any load.
    """

    def __init__(self, look: Callable[[], None], clock: Clock) -> None:
        self._look, self._clock = look, clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.Handle | None = None
        self._at_once = False
        self._since = self._something_at = 0.0
        self._empty = 0  # rounds since then
        self.busy = self.queued = False

    def on(self, loop: asyncio.AbstractEventLoop) -> None:
        """This is the loop. Before it is known nothing is looked for."""
        self._loop = loop

    def soon(self) -> None:
        """Somebody is there: look in the next round, so that whoever asks in this one is seen."""
        self._something_at, self._empty = self._clock.monotonic(), 0
        self.again()

    def again(self, delay_s: float = 0.0) -> None:
        """Look in the next round, or after this time unless somebody comes sooner."""
        if self._loop is None or self._at_once:
            return
        if self._next is not None:
            self._next.cancel()
        self._at_once = delay_s <= 0
        self._since = self._clock.monotonic()
        self._next = self._loop.call_soon(self._now) if self._at_once else self._loop.call_later(delay_s, self._now)

    def now(self) -> None:
        """Look, and not again at what was asked for before."""
        if self._next is not None:
            self._next.cancel()
        self._next, self._at_once, self.busy = None, False, False
        self._look()

    def from_thread(self, call: Callable[[], None]) -> None:
        """Have the loop call this; on any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _now(self) -> None:
        now = self._clock.monotonic()
        self._empty += 1
        if now - self._since > QUIET_S:
            self._something_at, self._empty = now, 0
        self.busy = self._at_once and (self._empty == 0 or (self.queued and self._may_come(now)))
        self._next, self._at_once = None, False
        self._look()

    def _may_come(self, now: float) -> bool:
        """The next one of the queue."""
        return self._empty < QUEUE_QUIET_ROUNDS and now - self._something_at <= QUEUE_QUIET_S
