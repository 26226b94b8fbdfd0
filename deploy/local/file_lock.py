"""One process at a time, across processes, bounded in time."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.errors import StackBusy

_POLL_S = 0.05


@contextmanager
def locked(path: Path, *, timeout_s: float) -> Iterator[None]:
    """Hold an exclusive lock on a file, made if missing and never deleted.

    The kernel drops the lock when its holder ends, however it ends: nothing stale is ever left.
    Raises StackBusy after timeout_s.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    raise StackBusy(f"another process has held {path} for more than {timeout_s:g} s") from exc
                time.sleep(_POLL_S)
        yield
