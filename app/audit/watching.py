"""A thread that watches another: a call of the Kafka client may never return, where no signal is heard any more."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Protocol

import structlog

LOOK_S = 1.0


class Overdue(Protocol):
    """A call that outlived its deadline."""

    @property
    def name(self) -> str:
        """Of the call."""
        ...

    @property
    def since_s(self) -> float:
        """How long ago it began."""
        ...


def watch(
    overdue: Callable[[], Overdue | None], end: Callable[[], None], stopped: Event, look_s: float = LOOK_S
) -> Thread:
    """Ask again and again until `stopped` is set; the first time something is overdue, `end` the process.

    Nothing is lost by that: what has no file is read again.
    """

    def look() -> None:
        while not stopped.wait(look_s):
            if (call := overdue()) is not None:
                structlog.get_logger().critical("call_overdue", call=call.name, since_s=round(call.since_s, 1))
                end()
                return

    thread = Thread(target=look, name="audit-watch", daemon=True)
    thread.start()
    return thread
