"""What is done about a call of the Kafka client that does not return: the process ends, and its log says which call.

The thread that is stuck in it hears no signal, so that it takes another one to see it. Nothing is lost by such an end:
what was not committed is read again.
"""

import os
from collections.abc import Callable
from threading import Event, Thread

import structlog

from app.exit_status import EXIT_WATCHDOG
from app.ports import Overdue

LOOK_S = 1.0


def end_process() -> None:
    """At once. Not sys.exit: the stuck thread holds clients whose clean-up would block as well."""
    os._exit(EXIT_WATCHDOG)


def end_if_overdue(watchdog: Overdue, end: Callable[[], None] = end_process, **about: str) -> bool:
    """Ask once; if a call outlived its deadline, tell which and `end`. about: goes into the log. Whether it ended."""
    call = watchdog.overdue()
    if call is None:
        return False
    structlog.get_logger().error("client_call_overdue", call=call.name, since_s=round(call.since_s, 1), **about)
    end()
    return True


def watch(watchdog: Overdue, stopped: Event, end: Callable[[], None] = end_process, look_s: float = LOOK_S) -> Thread:
    """Ask again and again on a thread, until `stopped` is set or a call is overdue."""

    def look() -> None:
        while not stopped.wait(look_s):
            if end_if_overdue(watchdog, end):
                return

    thread = Thread(target=look, name="watchdog", daemon=True)
    thread.start()
    return thread
