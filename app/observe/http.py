"""Probes, metrics and the live page over HTTP, on a thread of their own: they answer whatever the Kafka clients do."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Protocol

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from app.errors import BadSettings

REQUEST_WITHIN_S = 5.0  # and its answer within as long again
STALLED_S = 5.0  # a reader that takes nothing for so long, with more to be read, is gone or too slow
SEND_BUFFER_BYTES = 64 * 1024  # the kernel would take megabytes for a reader that has stopped
STREAMS = frozenset({"/live"})  # answers that do not end by themselves
MOST_CONNECTIONS = 256


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes ask. `None` means healthy, a text says what is wrong."""

    alive: Callable[[], str | None]
    ready: Callable[[], str | None]


class Exposed(Protocol):
    """Metrics, of one process or of several."""

    def exposition(self) -> bytes:
        """Prometheus text format."""
        ...


class Page(Protocol):
    """What people look at, beside what machines ask."""

    def routes(self) -> list[BaseRoute]:
        """What to serve."""
        ...

    def close(self) -> None:
        """End the answers that do not end by themselves. Any thread."""
        ...


class ProbeServer:
    """GET /livez, /readyz, /metrics and perhaps a page. Loopback unless told otherwise; nothing here changes state."""

    def __init__(self, host: str, port: int, metrics: Exposed, health: Health, page: Page | None = None) -> None:
        """Binds at once. Raises BadSettings if the address is taken or not ours."""
        self._page = page
        try:
            self._socket = socket.create_server((host, port))
        except OSError as exc:
            raise BadSettings(f"http: cannot listen on {host}:{port}: {exc.strerror}") from exc
        self.port = int(self._socket.getsockname()[1])
        routes = [
            Route("/livez", _probe(health.alive)),
            Route("/readyz", _probe(health.ready)),
            Route("/metrics", _metrics(metrics)),
            *(page.routes() if page else ()),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            limit_concurrency=MOST_CONNECTIONS,
            http=_Impatient,
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run, args=([self._socket],), name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        if self._page is not None:
            self._page.close()
        self._server.should_exit = True
        self._thread.join(5.0)
        self._socket.close()


class _Impatient(H11Protocol):
    """Cuts a connection whose next request, or the reading of its answer, takes too long.

    uvicorn would wait for ever for either. An answer that is a stream may take as long as it is read.
    """

    _deadline: asyncio.TimerHandle | None = None
    _answer_awaited = False
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if (connection := transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._expect_a_request()

    def pause_writing(self) -> None:
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._expect_a_request()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _expect_a_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._answer_awaited = False
        self._deadline = self.loop.call_later(REQUEST_WITHIN_S, self._give_up)

    def _give_up(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        answering = cycle is not None and not cycle.response_complete
        if cycle is not None and answering and cycle.response_started and cycle.scope["path"] in STREAMS:
            return
        if answering and not self._answer_awaited:
            # who asks every 5 s on one connection, as Prometheus may, would be cut in the middle of an answer
            self._answer_awaited = True
            self._deadline = self.loop.call_later(REQUEST_WITHIN_S, self._give_up)
        else:
            self.transport.abort()


def _probe(ask: Callable[[], str | None]) -> Callable[[Request], Response]:
    def answer(_request: Request) -> Response:
        wrong = ask()
        return PlainTextResponse(f"{wrong or 'ok'}\n", status_code=503 if wrong else 200)

    return answer


def _metrics(metrics: Exposed) -> Callable[[Request], Response]:
    def answer(_request: Request) -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return answer
