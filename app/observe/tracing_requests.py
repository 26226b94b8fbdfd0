"""The traces of requests, over HTTP and gRPC, and of the batches that they share.

A request whose client has sampled it goes on with the client's trace, up to so many requests a second; one whose
client has not is not traced; one without a context is by chance. A batch is traced if one of its requests is: it has a
trace of its own, linked to theirs, and they to it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanKind, Status, StatusCode

from app.observe.trace_context import TraceContext, context_of
from app.observe.tracing import Allowance, Dice, span_context_of
from app.observe.tracing_batches import LONGEST_REASON
from app.ports import TraceFacts
from app.records import Batch

_NO_FACTS: TraceFacts = {}


@dataclass(frozen=True, slots=True)
class RequestSampling:
    """Which requests are traced, and how many of them a batch is linked to at most."""

    chance: Dice
    parents: Allowance
    most_links: int = 32


class TracedCall:
    """The span of one request or of one batch."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def context(self) -> otel_context.Context:
        """In which the span is current."""
        return trace.set_span_in_context(self._span, otel_context.Context())

    def end(self) -> None:
        """It is over."""
        self._span.end()

    def known(self, facts: TraceFacts, *, failed: str | None = None) -> None:
        """failed: what by, if that is the server's error."""
        self._span.set_attributes(dict(facts))
        if failed is not None:
            self._span.set_attribute("error.type", failed)
            self._span.set_status(Status(StatusCode.ERROR))

    def happened(self, what: str, facts: TraceFacts = _NO_FACTS) -> None:
        """Something to be seen of it."""
        self._span.add_event(what, dict(facts))

    def failed(self, why: BaseException) -> None:
        """It came to nothing."""
        kind = type(why).__name__
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, f"{kind}: {why}"[:LONGEST_REASON]))


class RequestTraces:
    """Of one server; `call` and `asking` on its event loop, `batch` there or on the scoring thread."""

    def __init__(self, tracer: trace.Tracer, sampling: RequestSampling, counted: Callable[[str], None]) -> None:
        """counted: told of every batch that is traced, "request"."""
        self._tracer, self._sampling, self._counted = tracer, sampling, counted

    @contextmanager
    def call(
        self, name: str, parents: Sequence[str], states: Sequence[str], facts: TraceFacts
    ) -> Iterator[TracedCall | None]:
        """Within this block a request is answered, and who answers it says how; None if it is not traced."""
        call = self.stream(name, parents, states, facts)
        if call is None:
            yield None
            return
        token = otel_context.attach(call.context)
        try:
            yield call
        finally:
            otel_context.detach(token)
            call.end()

    def stream(self, name: str, parents: Sequence[str], states: Sequence[str], facts: TraceFacts) -> TracedCall | None:
        """The same of a stream, which says itself when it ends; nothing that it asks is a part of it."""
        parent = _context_in(parents, states)
        if not self._chosen(parent):
            return None
        before = otel_context.Context()
        if parent is not None:
            before = trace.set_span_in_context(NonRecordingSpan(span_context_of(parent)), before)
        return TracedCall(self._tracer.start_span(name, before, SpanKind.SERVER, dict(facts)))

    def asking(self) -> Span | None:
        """The request that is being answered here, if it is traced."""
        current = trace.get_current_span()
        return current if current.is_recording() else None

    @contextmanager
    def batch(self, model: str, batch: Batch[Any], asking: Sequence[object]) -> Iterator[TracedCall | None]:
        """Within this block a batch is answered; None if none of its requests is traced."""
        if not asking:
            token = otel_context.attach(otel_context.Context())  # it is not of the request that it happens to run in
            try:
                yield None
            finally:
                otel_context.detach(token)
            return
        self._counted("request")
        requests = cast("Sequence[Span]", [*dict.fromkeys(asking)][: self._sampling.most_links])
        span = self._tracer.start_span(
            f"infer {model}",
            otel_context.Context(),
            SpanKind.INTERNAL,
            {
                "inference.model": model,
                "inference.batch.rows": len(batch),
                "inference.batch.cause": batch.cause,
                "inference.batch.waited_s": batch.waited_s,
            },
            [Link(request.get_span_context()) for request in requests],
        )
        for request in requests:
            request.add_link(span.get_span_context())
        found = TracedCall(span)
        token = otel_context.attach(found.context)
        try:
            yield found
        except BaseException as exc:
            found.failed(exc)
            raise
        finally:
            otel_context.detach(token)
            span.end()

    def _chosen(self, parent: TraceContext | None) -> bool:
        if parent is None:
            return self._sampling.chance.wins()
        if not parent.sampled or not self._sampling.parents.any():
            return False
        self._sampling.parents.take()
        return True


def _context_in(parents: Sequence[str], states: Sequence[str]) -> TraceContext | None:
    """Two contexts are none."""
    if len(parents) != 1:
        return None
    return context_of(parents[0].encode("utf-8", "replace"), [state.encode("utf-8", "replace") for state in states])
