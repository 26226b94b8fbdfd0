"""Worker processes as the operating system knows them, and the main thread of their supervisor.

Each is started by `subprocess`, not forked and not by `multiprocessing`: it makes its own Kafka clients and
sessions, which do not survive a fork; it begins in a session of its own, so that a terminal's Ctrl-C comes once,
from the supervisor (multiprocessing could only leave ours after it had begun); and it costs no third process that
tracks resources.

A process is told by its standard input where Python found its modules and what the settings file said when the
supervisor read it: a file that was changed since then would give the processes of one worker different settings.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import IO

from app.exit_status import EXIT_DRAIN_DEADLINE
from app.facts import ProcessReport
from app.worker.slot import report_of
from app.worker.supervisor import Supervisor

TURN_EVERY_S = 0.25
READ_BYTES = 1 << 20
# -P: no module is taken from the working directory unless it was for the supervisor, too.
_BEGIN = "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); from app.__main__ import main; main()"


class ChildProcess:
    """A `supervisor.Child`: one process, and our end of the line to it."""

    def __init__(self, command: Sequence[str], stdin: str) -> None:
        """command: what follows `inference-worker`, without the last argument, the line's file descriptor.

        Raises OSError if the system cannot start it.
        """
        self.line, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this program itself
                [sys.executable, "-P", "-c", _BEGIN, *command, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                text=True,
            )
        except OSError:
            self.line.close()
            raise
        finally:
            theirs.close()
        self.line.settimeout(0.0)
        self._unread = b""
        # not here: a process that does not get as far as reading must not hold us up
        Thread(target=_hand_over, args=(self._process.stdin, stdin), name="hand-over", daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, see `supervisor.Child`."""
        return self._process.poll()

    def report(self) -> ProcessReport | None:
        """The newest whole line; one that is none, torn by a frozen supervisor, is passed over."""
        while self.line.fileno() >= 0:
            try:
                came = self.line.recv(READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                came = b""
            if not came:
                self.line.close()
            self._unread += came
        *lines, self._unread = self._unread.split(b"\n")
        for line in reversed(lines):
            with suppress(ValueError, TypeError):
                return report_of(line)
        return None

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def close(self) -> None:
        """Nothing is read any more."""
        self.line.close()


class Children:
    """Starts processes, and waits until one of them says something or a signal comes. Main thread only."""

    def __init__(self, settings_file: Path, settings: str) -> None:
        """settings: the file's text."""
        self._settings_file = settings_file
        self._stdin = f"{json.dumps(sys.path)}\n{json.dumps(settings)}"  # ASCII, whatever the locale
        self._living: list[ChildProcess] = []

    def spawn(self, slot: int) -> ChildProcess:
        """Start the process of a slot. Raises OSError."""
        child = ChildProcess(["run-slot", "--config", str(self._settings_file), str(slot)], self._stdin)
        self._living = [*(other for other in self._living if other.line.fileno() >= 0), child]
        return child

    def run(self, supervisor: Supervisor) -> int:
        """Until every process has ended; returns the exit status. SIGTERM and SIGINT drain, a second one kills."""
        stopping = False

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            nonlocal stopping
            if stopping:
                supervisor.kill()
                os._exit(EXIT_DRAIN_DEADLINE)
            stopping = True
            supervisor.stop()

        wakes, woken_by_signal = socket.socketpair()
        for end in (wakes, woken_by_signal):
            end.settimeout(0.0)
        with wakes, woken_by_signal:
            signal.set_wakeup_fd(woken_by_signal.fileno())
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, on_signal)
            while (status := supervisor.turn()) is None:
                self._wait(wakes)
            signal.set_wakeup_fd(-1)
        return status

    def _wait(self, wakes: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(wakes, selectors.EVENT_READ)
            for child in self._living:
                if child.line.fileno() >= 0:
                    selector.register(child.line, selectors.EVENT_READ)
            selector.select(TURN_EVERY_S)
        with suppress(BlockingIOError):
            wakes.recv(READ_BYTES)


def _hand_over(stdin: IO[str] | None, text: str) -> None:
    with suppress(OSError):  # it ended first
        if stdin is not None:
            with stdin:
                stdin.write(text)
