"""Server-sent events to whoever looks at the worker: a snapshot each second, and none while nobody looks.

All viewers get the same one. A viewer that does not read misses snapshots, and is cut when it has not read for
`http.STALLED_S`; one more than MOST_VIEWERS is told to come again later.
"""

import asyncio
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

MOST_VIEWERS = 16
EVERY_S = 1.0
RETRY_AFTER_S = 10

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
    (b"x-content-type-options", b"nosniff"),
]


class LiveFeed:
    """An ASGI application, on one event loop. `close` is for any thread."""

    def __init__(
        self,
        snapshot: Callable[[], bytes],
        forget: Callable[[], None] = lambda: None,
        *,
        every_s: float = EVERY_S,
        most_viewers: int = MOST_VIEWERS,
    ) -> None:
        """snapshot: JSON on one line; must be quick. forget: called when the last viewer has gone."""
        self._snapshot, self._forget = snapshot, forget
        self._every_s, self._most = every_s, most_viewers
        self._viewers: set[_Viewer] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """How many look now."""
        return len(self._viewers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the viewer goes or the feed is closed."""
        if len(self._viewers) >= self._most:
            words = f"{self._most} viewers look at this worker already, and it serves no more: try again later\n"
            refusal = PlainTextResponse(words, status_code=503, headers={"Retry-After": str(RETRY_AFTER_S)})
            await refusal(scope, receive, send)
            return
        viewer = _Viewer(send)
        self._viewers.add(viewer)
        self._begin()
        leaves = asyncio.create_task(_gone(receive))
        sends = asyncio.create_task(viewer.run())
        try:
            await asyncio.wait((leaves, sends), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._viewers.discard(viewer)
            for task in (leaves, sends):
                task.cancel()
            await asyncio.gather(leaves, sends, return_exceptions=True)

    def close(self) -> None:
        """Tell every viewer that the worker ends, and let it go."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended before us
                self._loop.call_soon_threadsafe(self._end)

    def _begin(self) -> None:
        if self._beat is None or self._beat.done():
            self._loop = asyncio.get_running_loop()
            self._beat = self._loop.create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while self._viewers:
                event = b"data: " + self._snapshot() + b"\n\n"
                for viewer in self._viewers:
                    viewer.offer(event)
                due = max(due + self._every_s, loop.time())  # after a pause of the machine none is caught up on
                await asyncio.sleep(due - loop.time())
        finally:
            self._end()  # should a snapshot fail: they come again
            self._forget()

    def _end(self) -> None:
        for viewer in self._viewers:
            viewer.end()


class _Viewer:
    """Sends the newest event; those that came while it was sending are passed over."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._newest: bytes | None = None
        self._ends = False
        self._woken = asyncio.Event()

    def offer(self, event: bytes) -> None:
        self._newest = event
        self._woken.set()

    def end(self) -> None:
        self._ends = True
        self._woken.set()

    async def run(self) -> None:
        start: MutableMapping[str, Any] = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
        await self._send(start)
        while not self._ends:
            await self._woken.wait()
            self._woken.clear()
            event, self._newest = self._newest, None
            if event is not None:
                await self._send({"type": "http.response.body", "body": event, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"event: ended\ndata: {}\n\n", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
