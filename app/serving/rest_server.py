"""The HTTP server: its socket, TLS, and an orderly end. Lives on the loop that it is started on."""

import asyncio
import socket
import ssl
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from app.errors import BadSettings
from app.serving.rest_connections import PROBES, Doors, connections_of

BACKLOG = 2_048


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files. client_ca_file: authorities; clients must then show a certificate of theirs."""

    cert_file: Path
    key_file: Path
    key_password: str | None = field(default=None, repr=False)
    client_ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """receive_s: for a whole request to arrive, and for some more of an answer to be taken.

    idle_s: until the next one begins. connections: open at a time. probes: paths that are answered however many
    connections there are.
    """

    host: str = "127.0.0.1"
    port: int = 0
    receive_s: float = 10.0
    idle_s: float = 60.0
    connections: int = 4096
    message_bytes: int = 4 * 1024 * 1024
    tls: ServerTls | None = None
    probes: tuple[str, ...] = PROBES


class RestServer:
    """One application at one address."""

    def __init__(self, application: Any, policy: ServerPolicy) -> None:  # noqa: ANN401 - an ASGI application
        """Binds at once. Raises BadSettings if the address is taken or not ours, or the TLS files are of no use."""
        try:
            self._socket = socket.create_server((policy.host, policy.port), backlog=BACKLOG)
        except OSError as exc:
            raise BadSettings(f"serving: cannot listen on {policy.host}:{policy.port}: {exc.strerror}") from exc
        self.port = int(self._socket.getsockname()[1])
        tls = policy.tls
        self._doors = Doors(policy.connections, policy.receive_s, frozenset(policy.probes))
        requests, streams = connections_of(self._doors)
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=max(1, round(policy.idle_s)),
            http=requests,
            ws=streams,
            ws_max_size=policy.message_bytes,
            ws_per_message_deflate=False,  # a small message that inflates to gigabytes
            backlog=BACKLOG,
            ssl_certfile=tls.cert_file if tls else None,
            ssl_keyfile=tls.key_file if tls else None,
            ssl_keyfile_password=tls.key_password if tls else None,
            ssl_ca_certs=str(tls.client_ca_file) if tls and tls.client_ca_file else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca_file else ssl.CERT_NONE,
        )
        try:
            config.load()
        except (ssl.SSLError, OSError) as exc:
            self._socket.close()
            raise BadSettings(f"serving.tls: {exc}") from exc
        if config.ssl is not None:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._config = config
        self._server = _Quiet(config)
        self._server.handshake_s = policy.receive_s
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer from now on."""
        self._running = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started and not self._running.done():
            await asyncio.sleep(0.005)

    async def stop(self, within_s: float) -> None:
        """Take no more connections; what is being answered may finish in this time."""
        self._config.timeout_graceful_shutdown = max(1, round(within_s))
        self._doors.ending = True
        self._server.should_exit = True
        if self._running is not None:
            await asyncio.wait([self._running], timeout=within_s + 2.0)
        self._socket.close()


class _Quiet(uvicorn.Server):
    """Leaves the signals to whoever runs the process, and waits no longer for a TLS handshake than for a request."""

    handshake_s = 60.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's for sockets that are bound; that has no word on handshakes."""
        config, self.servers = self.config, []

        def protocol() -> asyncio.Protocol:
            made: Any = config.http_protocol_class
            return made(config=config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[no-any-return]

        loop = asyncio.get_running_loop()
        within_s = self.handshake_s if config.ssl else None
        for bound in sockets or ():
            server = await loop.create_server(
                protocol, sock=bound, ssl=config.ssl, backlog=BACKLOG, ssl_handshake_timeout=within_s
            )
            self.servers.append(server)
        self.started = True

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override] # a generator's is one too
        return nullcontext()
