"""A Redis that keeps nothing on disk, for caches and their tests."""

import socket
from pathlib import Path

from deploy.local.artifacts import redis_executable
from deploy.local.errors import StartFailed
from deploy.local.local_server import LocalServer
from deploy.local.ports import LOOPBACK, choose_port, known_port

_SHAPE = "redis.json"
_CALL_TIMEOUT_S = 2.0


class RedisServer(LocalServer):
    """One Redis in a directory. The port outlives stop and kill; what it holds does not.

    password: of the default user. max_bytes: beyond them it evicts what was used least recently.
    """

    START_WITHIN_S = 30.0

    def __init__(self, directory: Path, *, password: str | None = None, max_bytes: int = 67_108_864) -> None:
        super().__init__("redis", directory)
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

    def _program(self) -> Path:
        return redis_executable()

    def _launch(self, program: Path) -> None:
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
        self.process.start([program, *arguments])

    def _answers(self) -> bool:
        """Whether it says anything at all: with a password it says that one is needed."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=_CALL_TIMEOUT_S) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
