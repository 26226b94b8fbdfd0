"""`/ws/predict`: a stream of single events over a WebSocket, answered in the order in which they came.

Each message is what `/predict` takes, with an `id` of the client's own if it likes; each answer is what `/predict`
gives, or `{"error": …}`. What is sent without waiting for answers shares batches, up to WINDOW of them; then reading
stops until the oldest has its answer, so a client that does not read its answers is not read either.
"""

import asyncio
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from app.errors import AppError
from app.serving.core import OnlineCore
from app.serving.refusals import BadRequest, NotAllowed
from app.serving.rest_calls import Calls, detail_of, dumped, json_object, status_of
from app.serving.rest_pages import answer_page, one, refusal_of

WINDOW = 256
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
        asked: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(WINDOW)
        reading = asyncio.create_task(self._read(socket, asked))
        ending = asyncio.create_task(self._ending.wait())
        ending.add_done_callback(lambda _: reading.cancel())
        try:
            while (answer := await asked.get()) is not None:
                await socket.send_text((await answer).decode())
            if self._ending.is_set():
                await socket.close(GOING_AWAY, "the server is about to end")
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # nobody is there any more
        finally:
            reading.cancel()
            ending.cancel()
            while not asked.empty():
                if (answer := asked.get_nowait()) is not None:
                    answer.cancel()

    async def _read(self, socket: WebSocket, asked: "asyncio.Queue[asyncio.Task[bytes] | None]") -> None:
        try:
            while (message := await socket.receive())["type"] == "websocket.receive":
                text = message.get("text")
                await asked.put(asyncio.create_task(self._answer(text if text is not None else message["bytes"])))
        finally:
            await asked.put(None)

    async def _answer(self, message: str | bytes) -> bytes:
        """Never raises anything but a cancellation."""
        own: dict[str, Any] = {}
        try:
            return dumped(await self._answered(message, own) | own)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client is told, and its other events go on
            field = getattr(exc, "field", None) if isinstance(exc, AppError) else None
            return dumped({"error": {"status": status_of(exc)[0], "detail": detail_of(exc), "field": field}} | own)

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
