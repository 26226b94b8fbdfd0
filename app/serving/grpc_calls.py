"""What all calls have in common: who may make one, by when it has to be answered, how it fails, and its metadata.

Requests arrive here as bytes and leave as bytes. grpc would answer a message that it cannot read with INTERNAL; here
that is INVALID_ARGUMENT, like every other mistake of the client's.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from app.answering.answers import AnsweredBy, Answers
from app.errors import AppError, ModelFailed, Stage
from app.serving.admission import CallObserver, OpenBytes, Places, request_id_of, while_they_come
from app.serving.call_tracing import RequestTracing
from app.serving.grpc_tracing import traced_stream, traced_unary
from app.serving.refusals import BadRequest, Expired, NotAllowed, NotFound, NotServing, Overloaded

Request = TypeVar("Request", bound=Message)
Code = grpc.StatusCode
Context = grpc.aio.ServicerContext[bytes, bytes]
Metadata = list[tuple[str, str]]

# Metadata of requests and answers; see schemas/grpc/prediction.proto.
KEY, BINARY_KEY, REQUEST_ID = "inference-key", "inference-key-bin", "x-request-id"
MODEL_VERSION, ANSWERED_BY = "inference-model-version", "inference-answered-by"
ROLLOUT_REVISION = "inference-rollout-revision"
# When to try again: what clients with a retry policy obey (milliseconds), and what people look for (seconds).
PUSHBACK, RETRY_AFTER = "grpc-retry-pushback-ms", "retry-after"

PUBLIC_STREAMS = 100  # watchers of health: one for each balancer, and nobody has so many
LONGEST_MESSAGE = 1000  # characters; the message travels in a header, and clients take 8 kB of those

CODES: tuple[tuple[type[AppError], Code], ...] = (
    (BadRequest, Code.INVALID_ARGUMENT),
    (NotFound, Code.NOT_FOUND),
    (NotServing, Code.UNAVAILABLE),
    (Overloaded, Code.RESOURCE_EXHAUSTED),
    (Expired, Code.DEADLINE_EXCEEDED),
    (ModelFailed, Code.INTERNAL),
)


class CallFailed(AppError):
    """The call ends with this code, where no refusal says it."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Gate(Protocol):
    """Knows who may call."""

    def admit(self, authorization: str | None, api_key: str | None) -> None:
        """authorization, api_key: what the metadata `authorization` and `x-api-key` say. Raises NotAllowed."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its behaviour sees it.

    key: what rollouts stick to, or None. deadline: of the whole call, on the monotonic clock.
    answer_s: what its rows may take, however late the deadline is.
    trailing: metadata that its answer ends with; the behaviour may add to it. holding: within it a message of so many
    bytes counts as held; entering raises Overloaded. Of a stream that is the behaviour's to do.
    """

    key: str | None
    deadline: float
    answer_s: float
    trailing: Metadata
    holding: Callable[[int], AbstractContextManager[object]] = nullcontext

    @property
    def within_s(self) -> float:
        """What a row may take that comes now."""
        return min(self.deadline - time.monotonic(), self.answer_s)

    def answered(self, answers: Answers) -> Sequence[AnsweredBy]:
        """Whose answers these are, said in the trailing metadata too; several are separated by commas."""
        sources = [answers.sources[at] for at in sorted(set(answers.by.tolist()))]
        for name, values in (
            (MODEL_VERSION, [source.version for source in sources]),
            (ANSWERED_BY, [source.part for source in sources]),
            (ROLLOUT_REVISION, [str(source.revision) for source in sources]),
        ):
            self.trailing.append((name, ",".join(dict.fromkeys(values))))
        return sources


Coming = Callable[[], AbstractContextManager[None]]
# What a method does: the request's bytes → the answer's. And the same for streams of them.
Unary = Callable[[bytes, Call], Awaitable[bytes]]
Stream = Callable[[AsyncIterator[bytes], Call], AsyncGenerator[bytes, None]]


def read(kind: type[Request], body: bytes) -> Request:
    """The message. Raises BadRequest if the bytes are none of this kind."""
    try:
        return kind.FromString(body)
    except DecodeError as exc:
        raise BadRequest(f"the request is not a {kind.DESCRIPTOR.full_name}") from exc


def rejected(answers: Answers) -> AppError:
    """The first rejection as what the call fails with: the request's fault, or the model's."""
    row, why = next(iter(answers.rejected.items()))
    message = why.message
    if len(answers) > 1:
        message = f"instances[{row}]: {message} ({len(answers.rejected)} of {len(answers)} rows are rejected)"
    return ModelFailed(message) if why.stage in {Stage.MODEL, Stage.OUTPUT} else BadRequest(message)


class Calls:
    """Makes behaviours into what grpc serves.

    gate: None lets everybody in. answer_s: how long a row may wait for its answer where no deadline is sooner.
    receive_s: how long the message of a call may take to come; grpc would wait for ever. idle_s: how long the next one
    of a stream may. most: calls at a time that the gate let in; the public ones have places of their own, so that
    nobody without a key can take those of the others. held: what messages may hold together. tracing: of all calls but
    the public ones.
    """

    def __init__(
        self,
        gate: Gate | None,
        observer: CallObserver,
        *,
        answer_s: float = 10.0,
        receive_s: float = 10.0,
        idle_s: float = 60.0,
        most: int = 1000,
        held: OpenBytes | None = None,
        tracing: RequestTracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._gate, self._observer = gate, observer
        self._answer_s, self._receive_s, self._idle_s = answer_s, receive_s, idle_s
        self._held = held or OpenBytes(1 << 30)
        self._places, self._public = Places(most, "calls"), Places(most, "public calls")
        self._watchers = Places(min(most, PUBLIC_STREAMS), "public streams")
        self._log = structlog.get_logger()

    def service(
        self,
        name: str,
        unary: Mapping[str, Unary],
        streams: Mapping[str, Stream] = MappingProxyType({}),
        public: Set[str] = frozenset(),
        coming: Coming = nullcontext,
    ) -> grpc.GenericRpcHandler:
        """The methods of a service, by name.

        public: those that everybody may call, whatever the gate says. coming: as `OnlineCore.coming`, entered while
        the message of a call to one of the others is on its way.
        """
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        for method, behaviour in unary.items():
            if method in public:
                answer = self._unary(f"{name}/{method}", behaviour, None, self._public, nullcontext)
            else:
                answer = self._unary(f"{name}/{method}", behaviour, self._gate, self._places, coming)
                if self._tracing is not None:
                    answer = traced_unary(self._tracing, f"{name}/{method}", answer)
            handlers[method] = grpc.stream_unary_rpc_method_handler(answer)
        for method, stream in streams.items():
            gate, places = (None, self._watchers) if method in public else (self._gate, self._places)
            answered = self._stream(f"{name}/{method}", stream, gate, places)
            if self._tracing is not None and method not in public:
                answered = traced_stream(self._tracing, f"{name}/{method}", answered)
            handlers[method] = grpc.stream_stream_rpc_method_handler(answered)
        return grpc.method_handlers_generic_handler(name, handlers)

    def _unary(
        self, method: str, behaviour: Unary, gate: Gate | None, places: Places, coming: Coming
    ) -> Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]:
        async def answer(bodies: AsyncIterator[bytes], context: Context) -> bytes:
            started, code = time.perf_counter(), Code.UNKNOWN
            try:
                call = self._begun(context, gate)
                with places.taken():
                    with coming():
                        body = await self._received(bodies)
                    with call.holding(len(body)):
                        response = await behaviour(body, call)
                context.set_trailing_metadata(tuple(call.trailing))
                code = Code.OK
            except Exception as exc:  # noqa: BLE001 - whatever it is, only its own call fails
                code = self._code(exc, method)
                await _abort(context, code, exc)
            except asyncio.CancelledError:
                code = Code.CANCELLED
                raise
            finally:
                self._observer.call_ended(method, code.name, time.perf_counter() - started)
            return response

        return answer

    def _begun(self, context: Context, gate: Gate | None) -> Call:
        """The call, if it may be made. Raises NotAllowed, or BadRequest for a key that is none."""
        metadata = dict(context.invocation_metadata() or ())
        if gate is not None:
            gate.admit(_text(metadata.get("authorization")), _text(metadata.get("x-api-key")))
        request_id = request_id_of(_text(metadata.get(REQUEST_ID)))
        left_s = cast("float | None", context.time_remaining())  # None without a deadline, whatever its stub says
        deadline = math.inf if left_s is None else time.monotonic() + left_s
        return Call(_key_of(metadata), deadline, self._answer_s, [(REQUEST_ID, request_id)], self._holding)

    @contextmanager
    def _holding(self, size: int) -> Iterator[None]:
        self._held.take(size)
        try:
            yield
        finally:
            self._held.give(size)

    async def _received(self, bodies: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._receive_s):
                return await anext(aiter(bodies))
        except TimeoutError:
            raise Expired(f"the request did not come within {self._receive_s:g} s") from None
        except StopAsyncIteration:
            raise BadRequest("the call has no request") from None

    def _stream(
        self, method: str, behaviour: Stream, gate: Gate | None, places: Places
    ) -> Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]:
        async def answer(bodies: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            started, code = time.perf_counter(), Code.UNKNOWN
            try:
                call = self._begun(context, gate)
                coming = while_they_come(bodies, self._idle_s)
                with places.taken():
                    async with aclosing(behaviour(coming, call)) as responses:
                        async for response in responses:
                            yield response
                context.set_trailing_metadata(tuple(call.trailing))
                code = Code.OK
            except Exception as exc:  # noqa: BLE001 - whatever it is, only its own call fails
                code = self._code(exc, method)
                await _abort(context, code, exc)
            except (asyncio.CancelledError, GeneratorExit):
                code = Code.CANCELLED
                raise
            finally:
                self._observer.call_ended(method, code.name, time.perf_counter() - started)

        return answer

    def _code(self, exc: Exception, method: str) -> Code:
        if isinstance(exc, CallFailed):
            return exc.code
        if isinstance(exc, NotAllowed):
            return Code.PERMISSION_DENIED if exc.known else Code.UNAUTHENTICATED
        code = next((code for kind, code in CODES if isinstance(exc, kind)), Code.INTERNAL)
        if code is Code.INTERNAL:
            self._log.error("call_failed", method=method, reason=str(exc), exc_info=not isinstance(exc, AppError))
        return code


async def _abort(context: Context, code: Code, exc: Exception) -> None:
    """End the call with this. Raises what grpc ends a call by. Of an error of ours it is told that there was one."""
    message = str(exc) if isinstance(exc, AppError) else "internal error"
    trailing: Metadata = []
    if isinstance(exc, Overloaded):
        trailing += [(PUSHBACK, str(round(exc.retry_after_s * 1000))), (RETRY_AFTER, f"{exc.retry_after_s:g}")]
    await context.abort(code, message[:LONGEST_MESSAGE], tuple(trailing))


def _key_of(metadata: Mapping[str, str | bytes]) -> str | None:
    key = metadata.get(BINARY_KEY, metadata.get(KEY))
    if not isinstance(key, bytes):
        return key
    try:
        return key.decode()
    except UnicodeDecodeError as exc:
        raise BadRequest(f"{BINARY_KEY} is not UTF-8") from exc


def _text(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
