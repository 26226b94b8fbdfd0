"""Connections over HTTP: how many there are, whom a new one takes the place of, and patience with slow clients.

uvicorn would wait for ever for a request or a handshake that does not come, and for a client to read its answers; and
at its limit of connections it refuses everybody's requests, probes and old clients' too. Here the limit refuses only
who comes last:

- A connection beyond the limit takes the place of the oldest one that waits for a request: one that never sent any
  first, then one between two requests (as nginx does).
- If all are busy it has BEYOND more places to ask from once: a probe is answered, everything else gets 503, and the
  connection is closed. Beyond those the oldest of them goes.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MOST_HEADER_BYTES = 65_536
BEYOND = 64  # places of those that may only ask for a probe
CONTINUE = b"HTTP/1.1 100 "
LAST_S = 1.0  # what a connection that is made while the server ends has for its request
PROBES = ("/livez", "/readyz", "/health", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready")
FULL = b'{"detail":"too many connections","error":"too many connections"}'
HEADERS = [(b"content-type", b"application/json"), (b"retry-after", b"1"), (b"connection", b"close")]


@dataclass(slots=True)
class Doors:
    """Who is inside. most: connections. receive_s: see `connections_of`. probes: paths.

    Transports stand for their connections: they stay the same when a request becomes a WebSocket. Each is in `inside`
    or `beyond`; those in `inside` that wait for a request are in `unused` or `idle` as well. All are in the order in
    which they came there.
    """

    most: int
    receive_s: float
    probes: frozenset[str]
    ending: bool = False
    inside: dict[asyncio.BaseTransport, None] = field(default_factory=dict)
    beyond: dict[asyncio.Transport, None] = field(default_factory=dict)
    unused: dict[asyncio.Transport, None] = field(default_factory=dict)
    idle: dict[asyncio.Transport, None] = field(default_factory=dict)

    def enter(self, transport: asyncio.Transport) -> bool:
        """Whether it has a place like any other; else it is `beyond`."""
        waits = self.unused or self.idle
        if len(self.inside) >= self.most and waits:
            oldest = next(iter(waits))
            self.leave(oldest)
            oldest.abort()
        if len(self.inside) < self.most:
            self.inside[transport] = None
            self.unused[transport] = None
            return True
        if len(self.beyond) >= BEYOND:
            oldest = next(iter(self.beyond))
            self.leave(oldest)
            oldest.abort()
        self.beyond[transport] = None
        return False

    def sent(self, transport: asyncio.Transport) -> None:
        """It began a request."""
        self.unused.pop(transport, None)
        self.idle.pop(transport, None)

    def waits(self, transport: asyncio.Transport) -> None:
        """Its requests are answered."""
        if transport in self.inside:
            self.idle[transport] = None

    def leave(self, transport: asyncio.Transport) -> None:
        """It is no more."""
        for places in (self.inside, self.beyond, self.unused, self.idle):
            places.pop(transport, None)


class Unread:
    """Cuts a connection whose client takes nothing of what is sent to it for `within_s`.

    By progress, not by the whole time: who reads slowly may have a large answer. What the system took counts as taken;
    over TLS so does what went into it.
    """

    def __init__(self, transport: asyncio.WriteTransport, within_s: float) -> None:
        self._transport, self._within_s = transport, within_s
        self._left = 0
        self._look: asyncio.TimerHandle | None = None

    def begins(self) -> None:
        """More waits to be taken than the transport likes."""
        self._left = self._transport.get_write_buffer_size()
        self._look = asyncio.get_running_loop().call_later(self._within_s, self._looked)

    def ends(self) -> None:
        """It was taken, or nobody waits for that any more."""
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _looked(self) -> None:
        if self._transport.get_write_buffer_size() < self._left:
            self.begins()
        else:
            self._transport.abort()


class HeadWithBody:
    """A transport for one answer, whose head it sends together with the beginning of the body.

    A proxy that has a head cannot ask another server any more when this one dies before the body.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._begun = False

    def write(self, data: bytes) -> None:
        """Keep what begins an answer of known length until more comes."""
        if not self._begun and not data.startswith(CONTINUE):
            self._begun = True
            if b"content-length: " in data:
                self._head = data
                return
        head, self._head = self._head, b""
        self._transport.write(head + data)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a transport has
        return getattr(self._transport, name)


def connections_of(doors: Doors) -> tuple[type[HttpToolsProtocol], type[WebSocketsSansIOProtocol]]:
    """Uvicorn's protocols, minding these doors.

    Within their `receive_s` a request or a handshake arrives, and a client takes some more of its answers.
    """

    class Watched(asyncio.Protocol):
        """What both have in common: a client that does not read is cut."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._unread = Unread(transport, doors.receive_s)

        def connection_lost(self, exc: Exception | None) -> None:
            self._unread.ends()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            self._unread.begins()
            super().pause_writing()

        def resume_writing(self) -> None:
            self._unread.ends()
            super().resume_writing()

    class Requests(Watched, HttpToolsProtocol):
        """Cuts a connection whose request takes too long to arrive, has a head that never ends, or is not read from."""

        _deadline: asyncio.TimerHandle | None = None
        _arriving = False
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if not doors.enter(transport):
                self.app = _only_probes(self.app, doors.probes)
            self._expect(min(LAST_S, doors.receive_s) if doors.ending else doors.receive_s)

        def connection_lost(self, exc: Exception | None) -> None:
            doors.leave(self.transport)
            self._expect_nothing()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            doors.sent(self.transport)
            if self._deadline is None:
                self._expect(doors.receive_s)
            self._head_bytes += len(data)
            super().data_received(data)
            if self._arriving and self._head_bytes > MOST_HEADER_BYTES:
                self.transport.abort()

        def on_message_begin(self) -> None:
            self._arriving = True
            if self._deadline is None:  # behind another one, in the same packet
                self._expect(doors.receive_s)
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._arriving, self._head_bytes = False, 0
            super().on_headers_complete()
            cycle: Any = self.cycle  # None before the first request, whatever its type says
            if cycle is not None and cycle.transport is self.transport and self.scope["method"] != "HEAD":
                cycle.transport = HeadWithBody(self.transport)
            if cycle is not None and (doors.ending or self.transport in doors.beyond):
                cycle.keep_alive = False

        def on_message_complete(self) -> None:
            self._expect_nothing()
            self._head_bytes = 0
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.timeout_keep_alive_task is not None and self._deadline is None:
                doors.waits(self.transport)
            elif self.transport.is_closing() and self._deadline is None and not self.flow.write_paused:
                self._expect(doors.receive_s)  # for the client to take what is left, too little to be told of

        def handle_websocket_upgrade(self) -> None:
            """Only of what can be one; the client has what is left of its time for the handshake."""
            self._expect_nothing()
            self._unread.ends()  # from here on the transport tells another protocol
            with_body = any(
                name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
                for name, value in self.headers
            )
            if self.scope["method"] != "GET" or with_body:
                self.send_400_response("A WebSocket begins with GET, and without a body.")
            elif doors.ending or self.transport in doors.beyond:
                self.transport.write(_full_response())
                self.transport.close()
            elif self.flow.write_paused:  # answers before it are not read; the next protocol would not be told of that
                self.transport.abort()
            else:
                super().handle_websocket_upgrade()

        def _expect(self, within_s: float) -> None:
            self._deadline = self.loop.call_later(within_s, self._late)

        def _late(self) -> None:
            cycle: Any = self.cycle
            answering = cycle is not None and not cycle.response_complete and not cycle.more_body
            if answering:  # what came since is for later
                self._expect(doors.receive_s)
            else:
                self.transport.abort()

        def _expect_nothing(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    class Streams(Watched, WebSocketsSansIOProtocol):
        """Cuts a connection whose handshake does not come to its end, or whose client does not read."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._deadline = self.loop.call_later(doors.receive_s, self._late)

        def connection_lost(self, exc: Exception | None) -> None:
            doors.leave(self.transport)
            if self._deadline is not None:
                self._deadline.cancel()
            super().connection_lost(exc)

        def keepalive_timeout(self) -> None:
            super().keepalive_timeout()  # says so, and waits until that is taken
            self._deadline = self.loop.call_later(doors.receive_s, self.transport.abort)

        def _late(self) -> None:
            if not self.handshake_complete:
                self.transport.abort()

    return Requests, Streams


def _only_probes(app: Any, probes: frozenset[str]) -> Any:  # noqa: ANN401 - ASGI applications
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in probes and scope["method"] in {"GET", "HEAD"}:
            await app(scope, receive, send)
            return
        length = (b"content-length", str(len(FULL)).encode())
        await send({"type": "http.response.start", "status": 503, "headers": [*HEADERS, length]})
        await send({"type": "http.response.body", "body": FULL})

    return answer


def _full_response() -> bytes:
    head = [b"HTTP/1.1 503 Service Unavailable", *(name + b": " + value for name, value in HEADERS)]
    return b"\r\n".join([*head, b"content-length: %d" % len(FULL), b"", FULL])
