"""What the surfaces tell of requests that are traced, and what the core tells of the batches they share.

Where tracing is off none of this is there, and nobody asks whether it is.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from app.answering.asked_facts import ASKED, facts_of
from app.ports import TraceFacts
from app.records import Batch
from app.serving.shared_batch import Ended

Endpoint = Callable[[Request], Awaitable[Response]]
LONGEST_AGENT = 200  # characters of what a client says of itself


class CallTrace(Protocol):
    """The span of one request."""

    def known(self, facts: TraceFacts, *, failed: str | None = None) -> None:
        """failed: what by, if that is the server's error."""
        ...


class OpenTrace(CallTrace, Protocol):
    """The span of a stream."""

    def end(self) -> None:
        """It is over."""
        ...


class BatchSpan(Protocol):
    """The span of one batch of several requests' rows."""

    def happened(self, what: str, facts: TraceFacts = ...) -> None:
        """Something to be seen of it."""
        ...

    def failed(self, why: BaseException) -> None:
        """It came to nothing."""
        ...


class RequestTracing(Protocol):
    """Follows requests. Must not raise and must be quick."""

    def call(
        self, name: str, parents: Sequence[str], states: Sequence[str], facts: TraceFacts
    ) -> AbstractContextManager[CallTrace | None]:
        """Within this block a request is answered; None if it is not traced.

        parents, states: what it has under `traceparent` and `tracestate`.
        """
        ...

    def stream(self, name: str, parents: Sequence[str], states: Sequence[str], facts: TraceFacts) -> OpenTrace | None:
        """The same of a stream, which says itself when it ends; nothing that it asks is a part of it."""
        ...

    def asking(self) -> object | None:
        """The request that is being answered here, if it is traced; for `batch`."""
        ...

    def batch(
        self, model: str, batch: Batch[Any], asking: Sequence[object]
    ) -> AbstractContextManager[BatchSpan | None]:
        """Within this block a batch is answered; None if none of its requests is traced. asking: of those that are."""
        ...


def traced_endpoint(tracing: RequestTracing, route: str, endpoint: Endpoint, request_id: str) -> Endpoint:
    """The same endpoint, its requests traced. request_id: the header that has it."""

    async def traced(request: Request) -> Response:
        headers = request.headers
        facts = {
            "http.request.method": request.method,
            "http.route": route,
            "url.path": request.url.path,
            "url.scheme": request.url.scheme,
            "user_agent.original": headers.get("user-agent", "")[:LONGEST_AGENT],
        }
        parents, states = headers.getlist("traceparent"), headers.getlist("tracestate")
        with tracing.call(f"{request.method} {route}", parents, states, facts) as trace:
            response = await endpoint(request)
            if trace is not None:
                status = response.status_code
                told: TraceFacts = {
                    "http.response.status_code": status,
                    "inference.request_id": response.headers.get(request_id, ""),
                }
                trace.known(told, failed=str(status) if status >= 500 else None)
        return response

    return traced


def tell_of(ended: Sequence[Ended], trace: BatchSpan) -> None:
    """What became of a batch, or of each of its requests apart."""
    for spans, scored in ended:
        if isinstance(scored, Exception):
            trace.failed(scored)
            continue
        for asked in scored.fact.asked:
            trace.happened(ASKED, facts_of(asked))
        if rejected := len(scored.answers.rejected):
            rows = sum(span.many for span in spans)
            trace.happened("inference.rejected", {"inference.rows": rows, "inference.rows_rejected": rejected})
