"""The HTTP server: sockets, TLS, and patience with slow clients. Lives on the loop that it is started on."""

import asyncio
import socket
import ssl
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import BadSettings

MOST_HEADER_BYTES = 65_536
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
    """receive_s: for a whole request to arrive. idle_s: until the next one begins. connections: open at a time."""

    host: str = "127.0.0.1"
    port: int = 0
    receive_s: float = 10.0
    idle_s: float = 60.0
    connections: int = 4096
    message_bytes: int = 4 * 1024 * 1024
    tls: ServerTls | None = None


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
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=policy.connections,
            timeout_keep_alive=max(1, round(policy.idle_s)),
            http=_patient_for(policy.receive_s),
            ws="websockets-sansio",
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
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer from now on."""
        self._running = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started and not self._running.done():
            await asyncio.sleep(0.005)

    async def stop(self, within_s: float) -> None:
        """Take no more connections; what is being answered may finish in this time."""
        self._config.timeout_graceful_shutdown = max(1, round(within_s))
        self._server.should_exit = True
        if self._running is not None:
            await asyncio.wait([self._running], timeout=within_s + 2.0)
        self._socket.close()


class _Quiet(uvicorn.Server):
    """Leaves the signals to whoever runs the process."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override] # a generator's is one too
        return nullcontext()


def _patient_for(receive_s: float) -> type[HttpToolsProtocol]:
    class Patient(HttpToolsProtocol):
        """Cuts a connection whose request takes too long to arrive, or has a head that never ends.

        uvicorn would wait for ever for either.
        """

        _deadline: asyncio.TimerHandle | None = None
        _arriving = False
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._deadline is None:
                self._expect()
            self._head_bytes += len(data)
            super().data_received(data)
            if self._arriving and self._head_bytes > MOST_HEADER_BYTES:
                self.transport.abort()

        def on_message_begin(self) -> None:
            self._arriving = True
            if self._deadline is None:  # behind another one, in the same packet
                self._expect()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._arriving, self._head_bytes = False, 0
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._expect_nothing()
            self._head_bytes = 0
            super().on_message_complete()

        def handle_websocket_upgrade(self) -> None:
            self._expect_nothing()
            super().handle_websocket_upgrade()

        def _expect(self) -> None:
            self._deadline = self.loop.call_later(receive_s, self._late)

        def _late(self) -> None:
            cycle: Any = self.cycle  # None before the first request, whatever its type says
            answering = cycle is not None and not cycle.response_complete and not cycle.more_body
            if answering:  # what came since is for later
                self._expect()
            else:
                self.transport.abort()

        def _expect_nothing(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Patient
