"""A server process that outlives its starter, and is never mistaken for another one.

A pid alone is no identity: it is given to another process once its owner ended. A process is recognised by
pid *and* start time. Both are written down the moment it is started, so that a later command, or a clean-up
after a crash, finds it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.local.errors import StartFailed
from deploy.local.json_record import read_record, write_record

_RECORD = "process.json"
_LOG = "server.log"
_SAME_START_S = 2.0  # start times are counted from a boot time that clock corrections move by a second
_POLL_S = 0.05
_KILL_WAIT_S = 10.0  # what the kernel needs to end a killed process, with a wide margin for a busy disk
_SUSPEND_WAIT_S = 10.0  # each thread stops when it next leaves the kernel
_LOG_TAIL_LINES = 25
_LOG_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """pid and start time (seconds since the epoch) of one process."""

    pid: int
    started_at: float

    def find(self) -> psutil.Process | None:
        """Return the process if it still runs. A zombie, or another process with the pid, is not it."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started_at) > _SAME_START_S:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.NoSuchProcess:
            return None


class ServerProcess:
    """One server, with its directory for the log and for the record of its identity.

    An object made on the same directory by another Python process means the same server.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory.absolute()

    @property
    def log_path(self) -> Path:
        """Where standard output and error go; appended to by every start."""
        return self.directory / _LOG

    @property
    def identity(self) -> ProcessIdentity | None:
        """Who was started last, alive or not; None if nobody, or if it was stopped since."""
        record = read_record(self.directory / _RECORD)
        return ProcessIdentity(pid=record["pid"], started_at=record["started_at"]) if record else None

    @property
    def pid(self) -> int | None:
        """The pid while the process runs, else None."""
        process = self._running()
        return process.pid if process else None

    @property
    def is_running(self) -> bool:
        """Whether the process that was started last still runs."""
        return self._running() is not None

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start the command in a session of its own, so that Ctrl-C in our terminal does not reach it.

        environment is added to ours. Afterwards the identity is on disk. Says nothing about readiness.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = [str(part) for part in command]
        # Not Popen: that object wants to be waited for, and warns when the server outlives it as intended.
        pid = os.posix_spawn(
            arguments[0],
            arguments,
            {**os.environ, **(environment or {})},
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        record = {"name": self.name, "pid": pid, "started_at": psutil.Process(pid).create_time()}
        write_record(self.directory / _RECORD, record)

    def wait_until(self, ready: Callable[[], bool], *, deadline: float) -> None:
        """Poll until ready() is true. deadline is on the monotonic clock.

        Raises StartFailed, with the tail of the log, when the process ends first or the deadline passes.
        """
        while not ready():
            if not self.is_running:
                raise StartFailed(f"{self.name} ended before it was ready\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{self.name} was not ready in time\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def stop(self, *, grace_s: float) -> None:
        """Ask the process to end, kill it after grace_s. Afterwards it does not run and has no record."""
        stop_all([self], grace_s=grace_s)

    def kill(self) -> None:
        """End the process at once, as a crash would (SIGKILL)."""
        process = self._running()
        if process:
            _kill(process)
        self._forget()

    def suspend(self) -> None:
        """Freeze the process (SIGSTOP): it keeps its connections and answers nothing from now on."""
        process = self._running()
        if process:
            process.send_signal(signal.SIGSTOP)
            self.wait_until(
                lambda: process.status() == psutil.STATUS_STOPPED, deadline=time.monotonic() + _SUSPEND_WAIT_S
            )

    def resume(self) -> None:
        """Undo `suspend`."""
        process = self._running()
        if process:
            process.send_signal(signal.SIGCONT)

    def log_tail(self) -> str:
        """Return the last lines of the log, headed by its path; for error messages."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - _LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        except FileNotFoundError:
            lines = ["(no log)"]
        return "\n  ".join([f"last lines of {self.log_path}:", *lines])

    def _running(self) -> psutil.Process | None:
        identity = self.identity
        return identity.find() if identity else None

    def _forget(self) -> None:
        (self.directory / _RECORD).unlink(missing_ok=True)


def stop_all(servers: Iterable[ServerProcess], *, grace_s: float) -> None:
    """Ask all to end at the same time, then wait; those left after grace_s are killed.

    Brokers that hold a quorum among themselves must be told together: the last one, told alone, would wait
    for a quorum that is gone.
    """
    told: list[tuple[ServerProcess, psutil.Process | None]] = []
    for server in servers:
        process = server._running()  # noqa: SLF001 - same module
        if process:
            process.terminate()
        told.append((server, process))
    deadline = time.monotonic() + grace_s
    for server, process in told:
        if process:
            _wait_for_end(process, deadline=deadline)
            if not _has_ended(process):
                _kill(process)
        server._forget()  # noqa: SLF001 - same module


def _kill(process: psutil.Process) -> None:
    process.kill()
    _wait_for_end(process, deadline=time.monotonic() + _KILL_WAIT_S)


def _wait_for_end(process: psutil.Process, *, deadline: float) -> None:
    while not _has_ended(process) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _has_ended(process: psutil.Process) -> bool:
    """Tell whether the process is gone or a zombie: psutil's own wait goes on until its parent buries it."""
    with contextlib.suppress(ChildProcessError):  # that is us if we started it; else somebody else has to
        if os.waitpid(process.pid, os.WNOHANG) == (0, 0):
            return False  # ours: a zombie may still have threads that end, and with them the ports it listened on
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
