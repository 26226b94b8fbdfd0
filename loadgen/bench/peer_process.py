"""A contender as a process of its own, watched from outside: is it alive, what has it used, what did it say last."""

import importlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loadgen.errors import LoadgenError, MissingExtra

STOP_TIMEOUT_S = 30.0
LOG_TAIL_LINES = 15
NOT_INHERITED = ("INFERENCE_", "KAFKA_", "SCHEMA_REGISTRY_", "BENCH_")


class ContenderFailed(LoadgenError):
    """A contender ended, stalled, or left something out; its figures would mean nothing."""


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without what would override a settings file, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    return kept | dict(more)


class PeerProcess:
    """One process and its children, from entry to exit of a `with` block; killed at the end if it still runs."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log
        self._psutil = _psutil()

    def __enter__(self) -> Self:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - nothing goes through a shell
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment(self._environment),
            )
        self._seen: Any = self._psutil.Process(self._process.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        children = self._tree()[1:] if self._process.poll() is None else []
        self._process.kill()
        self._process.wait()
        for child in children:
            with suppress(self._psutil.Error):
                child.kill()

    @property
    def pid(self) -> int:
        """Of the process itself."""
        return self._process.pid

    def check(self) -> None:
        """Raise ContenderFailed, with the end of what it said, if it has ended."""
        status = self._process.poll()
        if status is not None:
            raise ContenderFailed(f"it ended with status {status}:\n{self.tail()}")

    def cpu_s(self) -> float:
        """CPU seconds of all its threads, in user and kernel, and of its children."""
        total = 0.0
        for process in self._tree():
            with suppress(self._psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def peak_mb(self) -> float:
        """The most memory it has had resident, children added up."""
        return sum(_peak_mb(process) for process in self._tree())

    def stop(self, *, must_end_well: bool) -> None:
        """SIGTERM, and SIGKILL if that is not enough. Raises ContenderFailed if it must end with 0 and does not."""
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._process.poll() is None:
            self._process.kill()
        status = self._process.wait()
        if must_end_well and status:
            raise ContenderFailed(f"told to stop, it ended with status {status}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines it said."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:]) or "(it said nothing)"

    def _tree(self) -> list[Any]:
        try:
            return [self._seen, *self._seen.children(recursive=True)]
        except self._psutil.Error:
            return []


def _peak_mb(process: Any) -> float:  # noqa: ANN401 - psutil is imported late
    with suppress(OSError, StopIteration, ValueError):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    with suppress(Exception):  # no /proc: what it has now is the best there is
        return float(process.memory_info().rss) / 2**20
    return 0.0


def _psutil() -> Any:  # noqa: ANN401 - part of an extra
    try:
        return importlib.import_module("psutil")
    except ImportError as error:
        raise MissingExtra("for bench, install the extra: kafka-inference-worker[loadgen]") from error
