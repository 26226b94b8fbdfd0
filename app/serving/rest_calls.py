"""What all requests over HTTP have in common: who may send one, how large and how late it may be, and how it fails."""

import asyncio
import gc
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.answering.answers import Answers
from app.errors import AppError, ModelFailed
from app.serving.admission import CallObserver, OpenBytes, Places, request_id_of
from app.serving.call_tracing import RequestTracing, traced_endpoint
from app.serving.core import OnlineCore
from app.serving.gate import Gate
from app.serving.question import Question
from app.serving.refusals import BadRequest, Expired, NotAllowed, NotFound, NotServing, Overloaded

REQUEST_ID = "x-request-id"
GONE_AFTER_S = 0.05  # who hangs up sooner has its answer by then; a look at every connection would cost each request
CLIENT_GONE = 499  # nobody reads it: for the metrics, by the name that nginx gave it
LARGE_BYTES = 65_536
LONGEST_DETAIL = 2_000  # characters


class Malformed(BadRequest):
    """What was sent cannot be read at all."""


class Conflict(AppError):
    """What was asked for was tried, and everything stays as it was."""


class _Gone(AppError):
    """Nobody is there any more to be answered."""


STATUSES: tuple[tuple[type[AppError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (NotServing, 503),
    (Overloaded, 429),
    (Expired, 504),
    (ModelFailed, 500),
)


@dataclass(frozen=True, slots=True)
class RestPolicy:
    """body_bytes: of a request. concurrent: requests at the same time. answer_s: from its head to its answer."""

    body_bytes: int = 4 * 1024 * 1024
    concurrent: int = 1024
    answer_s: float = 10.0


class Call:
    """One request. `request_id` is the client's own, or a new one."""

    def __init__(self, request: Request, policy: RestPolicy, held: OpenBytes) -> None:
        self.request, self._policy = request, policy
        self.request_id = request_id_of(request.headers.get(REQUEST_ID))
        self._held, self._holds = held, 0
        self._started = time.perf_counter()
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    @property
    def took_s(self) -> float:
        """Since its head was read."""
        return time.perf_counter() - self._started

    @property
    def latency_ms(self) -> float:
        """The same, for the answer."""
        return round(self.took_s * 1000, 3)

    @property
    def within_s(self) -> float:
        """What is left of its time."""
        return self._policy.answer_s - self.took_s

    async def body(self) -> bytes:
        """All of it. Raises BadRequest if it is larger than allowed, as soon as that is known."""
        most = self._policy.body_bytes
        headers = self.request.headers
        if headers.get("content-encoding", "identity") != "identity":
            raise Malformed("content-encoding: a body is taken as it is, not compressed", field="content-encoding")
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() and len(announced) < 20 else 0
        chunks = []
        if size <= most:
            size = 0
            async for chunk in self.request.stream():
                size += len(chunk)
                if size > most:
                    break
                self._held.take(len(chunk))
                self._holds += len(chunk)
                chunks.append(chunk)
        if size > most:
            raise BadRequest(f"the body has more than {most} bytes", too_large=True)
        return b"".join(chunks)

    def ended(self) -> None:
        """It holds nothing any more."""
        self._held.give(self._holds)
        self._holds = 0

    async def json(self, core: OnlineCore) -> dict[str, Any]:
        """The body, a JSON object; meanwhile others may wait for it. Raises BadRequest."""
        with core.coming():
            body = await self.body()
        return json_object(body)

    async def ask(self, core: OnlineCore, question: Question) -> Answers:
        """As `OnlineCore.ask`; who hangs up leaves the batch."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        watch = loop.call_later(GONE_AFTER_S, self._watch, task)
        try:
            return await core.ask(question)
        except asyncio.CancelledError:
            if not self._gone or task is None:
                raise
            task.uncancel()
            raise _Gone from None
        finally:
            watch.cancel()
            if self._watcher is not None:
                self._watcher.cancel()

    def _watch(self, task: "asyncio.Task[Any] | None") -> None:
        if task is not None:
            self._watcher = asyncio.get_running_loop().create_task(self._until_gone(task))

    async def _until_gone(self, task: "asyncio.Task[Any]") -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        task.cancel()


Behaviour = Callable[[Call], Awaitable[Response]]
ErrorPage = Callable[[Call, str, Exception], dict[str, object]]
Who = Literal["anybody", "callers", "admins"]


def plain_error(call: Call, detail: str, exc: Exception) -> dict[str, object]:
    """`detail`, the `field` it is about, and the request's id."""
    return {"detail": detail, "field": getattr(exc, "field", None), "request_id": call.request_id}


def bare_error(_call: Call, detail: str, _exc: Exception) -> dict[str, object]:
    """As TensorFlow Serving and the Open Inference Protocol have it."""
    return {"error": detail}


class Calls:
    """Makes routes of behaviours. held: what bodies may hold together. tracing: of all requests but probes."""

    def __init__(
        self,
        gate: Gate,
        policy: RestPolicy,
        observer: CallObserver,
        held: OpenBytes | None = None,
        tracing: RequestTracing | None = None,
    ) -> None:
        self._gate, self.policy, self.observer, self._tracing = gate, policy, observer, tracing
        self.held = held or OpenBytes(1 << 30)
        self.places = Places(policy.concurrent, "requests")
        self._log = structlog.get_logger()

    def route(
        self, name: str, behaviour: Behaviour, *, who: Who = "callers", error: ErrorPage = plain_error, bad: int = 422
    ) -> Callable[[Request], Awaitable[Response]]:
        """What answers at a route. error: its error page. bad: the status of a request that makes no sense."""

        async def endpoint(request: Request) -> Response:
            call = Call(request, self.policy, self.held)
            try:
                with nullcontext() if who == "anybody" else self.places.taken():
                    self.admit(request.headers, who)
                    response = await behaviour(call)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the client is told, and only its own request fails
                response = self._refusal(call, exc, error, bad, name)
            finally:
                call.ended()
            response.headers[REQUEST_ID] = call.request_id
            self.observer.call_ended(name, str(response.status_code), call.took_s)
            return response

        if self._tracing is None or who == "anybody":
            return endpoint
        return traced_endpoint(self._tracing, name, endpoint, REQUEST_ID)

    def admit(self, headers: Mapping[str, str], who: Who) -> None:
        """Raises NotAllowed."""
        if who == "callers":
            self._gate.admit(headers.get("authorization"), headers.get("x-api-key"))
        elif who == "admins":
            self._gate.admit_admin(headers.get("authorization"), headers.get("x-api-key"))

    def _refusal(self, call: Call, exc: Exception, error: ErrorPage, bad: int, name: str) -> Response:
        if isinstance(exc, _Gone | ClientDisconnect):
            return Response(status_code=CLIENT_GONE)
        status, headers = status_of(exc, bad)
        if status == 500:
            self._log.error(
                "request_failed", route=name, request_id=call.request_id, exc_info=not isinstance(exc, AppError)
            )
        return json_response(error(call, detail_of(exc), exc), status, headers)


def status_of(exc: Exception, bad: int = 422) -> tuple[int, dict[str, str]]:
    """(status, headers) of a failure. bad: of a request that makes no sense."""
    status = next((code for kind, code in STATUSES if isinstance(exc, kind)), 500)
    headers: dict[str, str] = {}
    if isinstance(exc, BadRequest):
        status = 400 if isinstance(exc, Malformed) else 413 if exc.too_large else bad
        headers = {"connection": "close"} if exc.too_large else {}
    elif isinstance(exc, Overloaded):
        headers = {"retry-after": str(max(1, math.ceil(exc.retry_after_s)))}
    elif isinstance(exc, NotServing):
        headers = {"retry-after": "1"}
    elif isinstance(exc, NotAllowed):
        status, headers = (403, {}) if exc.known else (401, {"www-authenticate": "Bearer"})
    return status, headers


def detail_of(exc: Exception) -> str:
    """For the client: what we raise on purpose says what is wrong; of anything else it is told that there was one."""
    return str(exc)[:LONGEST_DETAIL] if isinstance(exc, AppError) else "internal error"


def json_object(body: bytes | str) -> dict[str, Any]:
    """Raises Malformed if it is no JSON, BadRequest if it is no object."""
    large = len(body) > LARGE_BYTES and gc.isenabled()
    if large:  # a million new lists make the collector look through everything there is, again and again, for nothing
        gc.disable()
    try:
        page = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Malformed(f"this is no JSON: {exc}") from None
    finally:
        if large:
            gc.enable()
    if not isinstance(page, dict):
        raise BadRequest(f"expected a JSON object, found {type(page).__name__}")
    return page


def json_response(page: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """NumPy columns and NaN (null) included."""
    return Response(dumped(page), status, headers=dict(headers or {}), media_type="application/json")


def dumped(page: object) -> bytes:
    """As JSON."""
    return orjson.dumps(page, option=orjson.OPT_SERIALIZE_NUMPY)
