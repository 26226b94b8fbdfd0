"""gRPC calls that are traced. A stream is one span, whatever number of messages it has."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import cast

import grpc

from app.ports import TraceFacts
from app.serving.call_tracing import CallTrace, RequestTracing

Context = grpc.aio.ServicerContext[bytes, bytes]
UnaryAnswer = Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]
StreamAnswer = Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]

# By the conventions for a server's span: the client's own mistakes are no errors of ours.
ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def traced_unary(tracing: RequestTracing, method: str, answer: UnaryAnswer) -> UnaryAnswer:
    """The same method, its calls traced."""

    async def traced(bodies: AsyncIterator[bytes], context: Context) -> bytes:
        with tracing.call(method, *_sent(context), _facts_of(method)) as trace, _told(trace, context):
            return await answer(bodies, context)

    return traced


def traced_stream(tracing: RequestTracing, method: str, answer: StreamAnswer) -> StreamAnswer:
    """The same; what the stream asks is not traced message by message."""

    async def traced(bodies: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        trace = tracing.stream(method, *_sent(context), _facts_of(method))
        try:
            with _told(trace, context):
                async for response in answer(bodies, context):
                    yield response
        finally:
            if trace is not None:
                trace.end()

    return traced


@contextmanager
def _told(trace: CallTrace | None, context: Context) -> Iterator[None]:
    """At the end of this block the trace is told how the call ended."""
    cancelled = False
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        cancelled = True
        raise
    finally:
        if trace is not None:
            code = "CANCELLED" if cancelled else _code_of(context)
            trace.known({"rpc.response.status_code": code}, failed=code if code in ERRORS else None)


def _sent(context: Context) -> tuple[list[str], list[str]]:
    metadata = [*(context.invocation_metadata() or ())]
    parents, states = (
        [value for name, value in metadata if name == wanted and isinstance(value, str)]
        for wanted in ("traceparent", "tracestate")
    )
    return parents, states


def _facts_of(method: str) -> TraceFacts:
    return {"rpc.system.name": "grpc", "rpc.method": method}


def _code_of(context: Context) -> str:
    """As the call ended; none was set where all went well."""
    code = cast("object", context.code())  # what was set, or a number that stands for it, whatever its stub says
    return next((each.name for each in grpc.StatusCode if code in {each, each.value[0]}), "OK")
