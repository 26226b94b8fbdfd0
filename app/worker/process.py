"""The main thread of a worker: signals, the watchdog, and the end of the process.

Stream threads may be stuck in a client call; this thread never makes one, so it can always end the process.
"""

import gc
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Thread
from types import FrameType

import structlog

from app.clock import Clock
from app.errors import DrainDeadline
from app.exit_status import EXIT_DRAIN_DEADLINE, EXIT_DRAINED
from app.overdue import end_if_overdue
from app.ports import Overdue
from app.worker.stream import StreamWorker

CHECK_EVERY_S = 0.25
# The longest single call of a turn is a commit with its retries; the watchdog ends what takes longer.
ALIVE_WITHIN_S = 60.0
CLOSE_MARGIN_S = 5.0  # beyond the drain deadline, to leave the group


@dataclass(frozen=True, slots=True)
class Stream:
    """One pipeline's worker and the watchdog over its client calls."""

    name: str
    worker: StreamWorker
    watchdog: Overdue


class WorkerProcess:
    """Runs streams on threads until a signal, a failure, or `stop`."""

    def __init__(self, streams: Sequence[Stream], drain_timeout_s: float, clock: Clock) -> None:
        self._streams, self._drain_timeout_s, self._clock = streams, drain_timeout_s, clock
        self._log = structlog.get_logger()
        self._wake = Event()
        self._stop_requested = False
        self._failures: list[BaseException] = []

    def alive(self) -> str | None:
        """What is wrong with the loops' progress, or None; whatever the broker does."""
        now = self._clock.monotonic()
        stuck = [s.name for s in self._streams if now - s.worker.turned_at > ALIVE_WITHIN_S]
        return f"no progress for {ALIVE_WITHIN_S:g} s: {', '.join(stuck)}" if stuck else None

    def ready(self) -> str | None:
        """Which pipelines have not joined their group, or None."""
        waiting = [s.name for s in self._streams if not s.worker.ready]
        return f"not in the consumer group yet: {', '.join(waiting)}" if waiting else None

    def stop(self) -> None:
        """Drain and end; any thread."""
        self._stop_requested = True
        self._wake.set()

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT drain; a second one ends the process at once. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def run(self) -> int:
        """Until drained; returns the exit status. Raises what a stream raised.

        Ends the process itself when a client call does not return in time.
        """
        _spare_the_collector()
        threads = [
            Thread(target=self._run_stream, args=(stream,), name=f"stream-{stream.name}", daemon=True)
            for stream in self._streams
        ]
        for thread in threads:
            thread.start()
        give_up_at: float | None = None
        while any(thread.is_alive() for thread in threads):
            self._wake.wait(CHECK_EVERY_S)
            self._wake.clear()
            for stream in self._streams:
                end_if_overdue(stream.watchdog, pipeline=stream.name)
            if (self._stop_requested or self._failures) and give_up_at is None:
                give_up_at = self._clock.monotonic() + self._drain_timeout_s + CLOSE_MARGIN_S
                for stream in self._streams:
                    stream.worker.stop()
            if give_up_at is not None and self._clock.monotonic() >= give_up_at:
                self._log.error("drain_deadline_passed", reason="a client call did not return")
                # not sys.exit: the stuck thread holds clients whose clean-up would block as well
                os._exit(EXIT_DRAIN_DEADLINE)
        for failure in self._failures:
            if not isinstance(failure, DrainDeadline):
                raise failure
        if self._failures:
            self._log.error("drain_deadline_passed", reason=str(self._failures[0]))
            return EXIT_DRAIN_DEADLINE
        self._log.info("drained")
        return EXIT_DRAINED

    def _run_stream(self, stream: Stream) -> None:
        structlog.contextvars.bind_contextvars(pipeline=stream.name)
        try:
            stream.worker.run()
        except BaseException as exc:  # noqa: BLE001 - the top of the thread; raised again by run()
            self._failures.append(exc)
        finally:
            self._wake.set()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop_requested:
            os._exit(EXIT_DRAIN_DEADLINE)
        # seen within CHECK_EVERY_S; not stop(): this thread may hold the lock that Event.set() waits for
        self._stop_requested = True


def _spare_the_collector() -> None:
    """A batch makes some 2,000 containers (messages, dicts) that die by reference count alone.

    With the default threshold of 700 the cyclic collector walks them, and everything imported, several times
    a batch and finds nothing. What is there now stays; look for cycles every 100,000 new containers.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
