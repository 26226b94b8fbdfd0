"""A shadow's process as the operating system knows it: how it is started, and what it gives up before it works.

Its memory is bounded, and if the machine runs out all the same, it is the first that the kernel ends. It runs only
when nobody else wants the processor. It ends with its worker however that ends: by the end of the line, and where the
candidate does not let it look at the line, by the kernel (Linux).
"""

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

LOWEST_PRIORITY = 19
FIRST_TO_GO = "1000"  # of oom_score_adj: the most there is
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
GONE_WITHIN_S = 5.0  # after SIGKILL; longer only in an uninterruptible wait
BEGIN = "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); from app.__main__ import main; main()"
# Pools that reserve gigabytes to use megabytes would look like a leak to the memory limit.
ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}


class ShadowProcess:
    """One process, and our end of the line to it; a `shadow.ShadowChild`."""

    def __init__(self, command: Sequence[str], stdin: str) -> None:
        """command: what follows `inference-worker`, without the last argument, the line's file descriptor.

        Raises OSError if the system cannot start it.
        """
        self.line, theirs = socket.socketpair()
        self.line.settimeout(0.0)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this program itself
                [sys.executable, "-P", "-c", BEGIN, *command, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, **ENVIRONMENT},
                text=True,
            )
        except OSError:
            self.line.close()
            raise
        finally:
            theirs.close()
        # not here: a process that does not get as far as reading must not hold us up
        Thread(target=self._tell, args=(stdin,), name="shadow-hand-over", daemon=True).start()

    def _tell(self, stdin: str) -> None:
        with suppress(OSError), self._process.stdin as pipe:  # type: ignore[union-attr] # it is a pipe
            pipe.write(f"{json.dumps(sys.path)}\n{stdin}")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def end(self, within_s: float) -> str:
        """End it, by force after `within_s`; returns how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GONE_WITHIN_S)
        self.line.close()
        status = self._process.returncode
        if status is None:
            return "not ended by SIGKILL"
        return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def waited_for_processor_s() -> float:
    """How long the calling thread could have run and had no processor, since it was started; 0.0 if nobody says.

    Linux keeps it (Documentation/scheduler/sched-stats.rst, the second of the three numbers).
    """
    try:
        return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def give_up(memory_bytes: int, worker: int) -> None:
    """What a shadow does first. worker: the process it ends with; if that is gone already, this does not return."""
    for what, limit in ((resource.RLIMIT_DATA, memory_bytes), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with suppress(ValueError):  # macOS
            resource.setrlimit(what, (allowed, allowed))
    os.setpriority(os.PRIO_PROCESS, 0, LOWEST_PRIORITY)
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO, encoding="ascii")
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != worker:
        os._exit(0)
