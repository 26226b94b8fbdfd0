"""Proxies that break connections on order: Shopify's toxiproxy, and its control API as far as tests need it.

A broker is behind a proxy when it *advertises* the proxy's port: clients follow what the metadata says, whatever
address they were given first.
"""

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.local.artifacts import toxiproxy_server
from deploy.local.errors import StackError, StartFailed
from deploy.local.local_server import LocalServer
from deploy.local.ports import LOOPBACK, choose_port, known_port

_SHAPE = "toxiproxy.json"
_CALL_TIMEOUT_S = 10.0

# https://github.com/Shopify/toxiproxy#toxics
Kind = Literal["latency", "bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data"]
Stream = Literal["upstream", "downstream"]  # what clients say to the server, and what it answers


@dataclass(frozen=True, slots=True)
class Toxic:
    """A fault on one direction of every connection. Attributes are toxiproxy's: milliseconds, bytes."""

    kind: Kind
    stream: Stream
    attributes: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """What it is called in the proxy: one of each kind and direction."""
        return f"{self.kind}-{self.stream}"


class Toxiproxy(LocalServer):
    """One proxy server in a directory. Proxies are gone when the server is, and connections end.

    Control calls raise StackError if the server refuses or does not answer.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__("toxiproxy", directory)

    def _program(self) -> Path:
        return toxiproxy_server()

    def _launch(self, program: Path) -> None:
        port = choose_port(self.directory / _SHAPE)
        self.process.start([program, "-host", LOOPBACK, "-port", str(port)], {"LOG_LEVEL": "warn"})

    def add_proxy(self, name: str, *, port: int, server_port: int) -> None:
        """Listen on a loopback port and pass everything on to another one."""
        proxy = {"name": name, "listen": f"{LOOPBACK}:{port}", "upstream": f"{LOOPBACK}:{server_port}", "enabled": True}
        self._call("POST", "/proxies", proxy)

    def remove_proxy(self, name: str) -> None:
        """End the proxy and its connections."""
        self._call("DELETE", f"/proxies/{name}")

    def proxies(self) -> set[str]:
        """Names of the proxies there are."""
        return set(self._call("GET", "/proxies"))

    def switch_off(self, name: str) -> None:
        """Close the proxy's port and its connections."""
        self._call("POST", f"/proxies/{name}", {"enabled": False})

    def add_toxic(self, name: str, toxic: Toxic) -> None:
        """Put a toxic on every connection of a proxy, those that exist included."""
        order = {"name": toxic.name, "type": toxic.kind, "stream": toxic.stream, "attributes": dict(toxic.attributes)}
        self._call("POST", f"/proxies/{name}/toxics", order)

    def heal(self) -> None:
        """Switch every proxy on and take all toxics off."""
        self._call("POST", "/reset")

    def _answers(self) -> bool:
        try:
            self._call("GET", "/version")
        except StackError:
            return False
        return True

    def _call(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """The answer's JSON; empty for an answer without."""
        port = known_port(self.directory / _SHAPE)
        if port is None:
            raise StartFailed(f"the toxiproxy in {self.directory} has never been started")
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_CALL_TIMEOUT_S)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as exc:
            raise StackError(f"toxiproxy does not answer {method} {path}: {exc}") from exc
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise StackError(f"toxiproxy refuses {method} {path}: {answer.status} {text.strip()}")
        return json.loads(text) if text else {}
