"""Which port a local server may take."""

import fcntl
import os
import secrets
import socket
import tempfile
from functools import cache
from pathlib import Path

from deploy.local.json_record import read_record, write_record

LOOPBACK = "127.0.0.1"

# Below the range from which Linux (32768 up) and macOS (49152 up) number *outgoing* connections. In that
# range a client reconnecting to a broker that is down can be given the broker's own port, and the broker
# cannot come back.
_FIRST_PORT = 20_000
_LAST_PORT = 29_999
_ATTEMPTS = 200  # each fails only if the port is in use; on a sane machine the first or second succeeds


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the JVM does: TIME_WAIT is no obstacle
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Tell whether a server accepts connections on the loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def free_ports(count: int) -> list[int]:
    """Return that many different ports that are free now, and that no other process is given while this one lives.

    Raises OSError if the machine has none left.
    """
    chosen: list[int] = []
    for _ in range(_ATTEMPTS * count):
        if len(chosen) == count:
            return chosen
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT + 1)
        if port not in chosen and is_free(port) and _claim(port):
            chosen.append(port)
    if len(chosen) == count:
        return chosen
    raise OSError(f"no {count} free ports between {_FIRST_PORT} and {_LAST_PORT}")


def _claim(port: int) -> bool:
    """Whether the port is this process's now: until its server listens, another process would find it free as well.

    A claim is a lock on one byte of a file that all processes of this user share; it ends with the process.
    """
    claims = _claims()
    try:
        fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    # POSIX leaves it to the system which of the two it is; any other says that nothing locks here
    except (BlockingIOError, PermissionError):
        return False
    return True


@cache
def _claims() -> int:
    """A descriptor for as long as the process lives: to close it anywhere would give up its locks."""
    path = Path(tempfile.gettempdir()) / f"kafka-inference-worker-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def known_port(record: Path) -> int | None:
    """The port that `choose_port` wrote down here last, if it did."""
    found = read_record(record)
    return int(found["port"]) if found else None


def choose_port(record: Path) -> int:
    """The port of the last time if it is free, else another one; written down."""
    port = known_port(record)
    if port is None or not is_free(port):
        (port,) = free_ports(1)
        write_record(record, {"port": port})
    return port
