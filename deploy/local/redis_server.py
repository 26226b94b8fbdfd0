"""A Redis that keeps nothing on disk, for caches and their tests."""

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.artifacts import redis_executable
from deploy.local.errors import StartFailed
from deploy.local.ports import LOOPBACK, choose_port, known_port
from deploy.local.process import ServerProcess

_SHAPE = "redis.json"
_CALL_TIMEOUT_S = 2.0


class RedisServer:
    """One Redis in a directory. Another object on the same directory means the same server.

    The port outlives stop and kill; what it holds does not. As a context manager it starts on entry and stops on
    exit. password: of the default user. max_bytes: beyond them it evicts what was used least recently.
    """

    def __init__(self, directory: Path, *, password: str | None = None, max_bytes: int = 67_108_864) -> None:
        self.directory = directory.absolute()
        self.process = ServerProcess("redis", self.directory)
        self._password, self._max_bytes = password, max_bytes

    @property
    def port(self) -> int:
        """The port on the loopback interface. Raises StartFailed if the server was never started."""
        port = known_port(self.directory / _SHAPE)
        if port is None:
            raise StartFailed(f"the Redis in {self.directory} has never been started")
        return port

    @property
    def url(self) -> str:
        """Without credentials. Raises StartFailed if the server was never started."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def exists(self) -> bool:
        """Whether the server was ever started in this directory."""
        return known_port(self.directory / _SHAPE) is not None

    @property
    def is_running(self) -> bool:
        """Whether the server's process runs; it may not serve yet."""
        return self.process.is_running

    def start(self, *, timeout_s: float = 30.0) -> None:
        """Start the server if it does not run and wait until it answers. The download is not counted.

        Raises StartFailed (then it was stopped again) or DownloadFailed.
        """
        executable = redis_executable()
        deadline = time.monotonic() + timeout_s
        if not self.is_running:
            port = choose_port(self.directory / _SHAPE)
            options = {
                "bind": LOOPBACK,
                "port": str(port),
                "dir": str(self.directory),
                "save": "",
                "appendonly": "no",
                "maxmemory": str(self._max_bytes),
                "maxmemory-policy": "allkeys-lru",
            }
            if self._password is not None:
                options["requirepass"] = self._password
            arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
            self.process.start([executable, *arguments])
        try:
            self.process.wait_until(self._answers, deadline=deadline)
        except BaseException:  # Ctrl-C too must leave nothing behind that nobody asked for any more
            self.kill()
            raise

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop the server. No effect if it does not run."""
        self.process.stop(grace_s=grace_s)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self.process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        """Whether it says anything at all: with a password it says that one is needed."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=_CALL_TIMEOUT_S) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
