"""`/ws/predict`: a stream of single events over a WebSocket, answered in the order in which they came.

Each message is what `/predict` takes, with an `id` of the client's own if it likes; each answer is what `/predict`
gives, or `{"error": …}`. What is sent without waiting for answers shares batches, up to WINDOW of them or WINDOW_BYTES;
then reading stops until the oldest has its answer, so a client that does not read its answers is not read either.
Every event is a request to the metrics, and a row to `waiting_rows`; the WebSocket is a connection.
"""

import asyncio
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from app.serving.admission import StreamWindow
from app.serving.core import OnlineCore
from app.serving.refusals import BadRequest, NotAllowed, Overloaded
from app.serving.rest_calls import Calls, detail_of, dumped, json_object, status_of
from app.serving.rest_pages import answer_page, one, refusal_of

WINDOW = 256
WINDOW_BYTES = 4 * 1024 * 1024
ROUTE = "/ws/predict"
POLICY_VIOLATION = 1008
GOING_AWAY = 1001


class SocketEndpoint:
    """The WebSocket. ending: set when the server is about to end."""

    def __init__(self, core: OnlineCore, calls: Calls, ending: asyncio.Event) -> None:
        self._core, self._calls, self._ending = core, calls, ending

    async def serve(self, socket: WebSocket) -> None:
        """Until either side has enough."""
        try:
            self._calls.admit(socket.headers, "callers")
        except NotAllowed as exc:
            await socket.close(POLICY_VIOLATION, str(exc)[:100])  # before it is accepted: the client sees HTTP 403
            return
        await socket.accept()
        asked: asyncio.Queue[tuple[asyncio.Task[bytes], int] | None] = asyncio.Queue()
        window = StreamWindow(WINDOW, WINDOW_BYTES)
        reading = asyncio.create_task(self._read(socket, asked, window))
        ending = asyncio.create_task(self._ending.wait())
        ending.add_done_callback(lambda _: reading.cancel())
        try:
            while (next_one := await asked.get()) is not None:
                answer, size = next_one
                await socket.send_text((await answer).decode())
                window.leave(size)
            if self._ending.is_set():
                await socket.close(GOING_AWAY, "the server is about to end")
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # nobody is there any more
        finally:
            reading.cancel()
            ending.cancel()
            while not asked.empty():
                if (left := asked.get_nowait()) is not None:
                    left[0].cancel()

    async def _read(
        self, socket: WebSocket, asked: "asyncio.Queue[tuple[asyncio.Task[bytes], int] | None]", window: StreamWindow
    ) -> None:
        try:
            while (message := await socket.receive())["type"] == "websocket.receive":
                text = message.get("text")
                given = text if text is not None else message["bytes"]
                size = len(given)
                await window.enter(size)
                asked.put_nowait((asyncio.create_task(self._answer(given)), size))
        finally:
            asked.put_nowait(None)

    async def _answer(self, message: str | bytes) -> bytes:
        """Never raises anything but a cancellation."""
        own: dict[str, Any] = {}
        started, status = time.perf_counter(), 200
        try:
            self._calls.held.take(len(message))
            try:
                return dumped(await self._answered(message, own) | own)
            finally:
                self._calls.held.give(len(message))
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client is told, and its other events go on
            status = status_of(exc)[0]
            error: dict[str, object] = {
                "status": status,
                "detail": detail_of(exc),
                "field": getattr(exc, "field", None),
            }
            if isinstance(exc, Overloaded):
                error["retry_after"] = exc.retry_after_s
            return dumped({"error": error} | own)
        finally:
            self._calls.observer.call_ended(ROUTE, str(status), time.perf_counter() - started)

    async def _answered(self, message: str | bytes, own: dict[str, Any]) -> dict[str, object]:
        """The answer's page; what the answer has to repeat goes into `own`. Raises RequestRefused."""
        started, most = time.perf_counter(), self._calls.policy.body_bytes
        if len(message) > most:
            raise BadRequest(f"the message has more than {most} bytes", too_large=True)
        given = json_object(message)
        if "id" in given:
            own["id"] = given.pop("id")
        answers = await self._core.ask(one(given, self._calls.policy.answer_s))
        if answers.rejected:
            raise refusal_of(answers)
        page = answer_page(answers)
        page["latency_ms"] = round((time.perf_counter() - started) * 1000, 3)
        return page
