"""An nginx that runs a configuration of ours, for its tests."""

import contextlib
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path

from deploy.local.artifacts import nginx_executable
from deploy.local.errors import StackMismatch
from deploy.local.local_server import LocalServer
from deploy.local.ports import LOOPBACK, is_open


class NginxServer(LocalServer):
    """One nginx in a directory, which runs `configuration` with other ports.

    ports: what stands in the configuration to what it shall be here. Each must be in it as `127.0.0.1:port`.
    """

    START_WITHIN_S = 20.0

    def __init__(self, directory: Path, configuration: Path, ports: Mapping[int, int]) -> None:
        super().__init__("nginx", directory)
        self._text = with_ports(configuration.read_text(encoding="utf-8"), ports)
        self._listens = [int(port) for port in re.findall(rf"listen\s+{re.escape(LOOPBACK)}:(\d+)", self._text)]

    def kill(self) -> None:
        """End it at once, with the processes that do its work: those would outlive the first one."""
        pid = self.process.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # it was started as the leader of a session
        super().kill()

    def _program(self) -> Path:
        return nginx_executable()

    def _launch(self, program: Path) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "nginx.conf"
        path.write_text(self._text, encoding="utf-8")
        self.process.start([program, "-p", self.directory, "-c", path, "-g", "daemon off;"])

    def _answers(self) -> bool:
        return all(map(is_open, self._listens))


def with_ports(text: str, ports: Mapping[int, int]) -> str:
    """A configuration with other ports on the loopback interface. Raises StackMismatch for one it does not have."""

    def other(found: re.Match[str]) -> str:
        return f"{LOOPBACK}:{ports.get(int(found[1]), int(found[1]))}"

    pattern = re.compile(rf"{re.escape(LOOPBACK)}:(\d+)")
    absent = set(ports) - {int(port) for port in pattern.findall(text)}
    if absent:
        raise StackMismatch(f"the configuration has no {LOOPBACK}:{min(absent)}")
    return pattern.sub(other, text)
