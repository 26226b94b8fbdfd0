"""Tracing of one process: who makes its spans, what is said of all of them, and where they go.

Whether something is traced is decided before there is a span of it (tracing_batches.py, tracing_requests.py), so the
library's own sampler is always on, and nothing else of the library is configured by the environment.
"""

import os
import platform
import random
from collections.abc import Callable, MutableMapping
from importlib.metadata import version as version_of_package
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from app.clock import Clock
from app.observe.trace_context import TraceContext
from app.observe.tracing_export import Counted, SpanQueue
from app.observe.tracing_settings import TracingSettings, pairs_of

MOST_ATTRIBUTES, MOST_EVENTS, LONGEST_VALUE = 64, 128, 1_024
SCOPE = "inference-worker"


class Tracing:
    """Makes tracers, and exports what they record until it is closed."""

    def __init__(
        self, settings: TracingSettings, instance: str, version: str, exporter: SpanExporter, counted: Counted
    ) -> None:
        """instance: what tells this process from all others of the service."""
        limits = SpanLimits(
            max_span_attributes=MOST_ATTRIBUTES,
            max_events=MOST_EVENTS,
            max_links=settings.most_links,
            max_span_attribute_length=LONGEST_VALUE,
            max_attribute_length=LONGEST_VALUE,
            max_event_attributes=MOST_ATTRIBUTES,
            max_link_attributes=MOST_ATTRIBUTES,
        )
        attributes: dict[str, str | int] = {
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": version_of_package("opentelemetry-sdk"),
            "process.pid": os.getpid(),
            "process.runtime.version": platform.python_version(),
            **pairs_of("resource_attributes", settings.resource_attributes),
            "service.name": settings.service_name,
            "service.version": version,
            "service.instance.id": instance,
        }
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource(attributes), span_limits=limits, shutdown_on_exit=False
        )
        self._queue = SpanQueue(exporter, settings.queue_spans, settings.close_timeout_s, counted)
        self._provider.add_span_processor(self._queue)
        self.tracer: trace.Tracer = self._provider.get_tracer(SCOPE, version)

    def close(self) -> None:
        """Export the last spans, within the time for it; spans that end later are dropped."""
        self._queue.shutdown()


class Allowance:
    """So many a second, and as many at once after a quiet second."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s, self._clock = per_s, clock
        self._most = max(1.0, per_s) if per_s else 0.0
        self._left, self._at = self._most, clock.monotonic()

    def any(self) -> bool:
        """Whether there is one left to take."""
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        return self._left >= 1.0

    def take(self) -> None:
        """One less. Only while there is any."""
        self._left -= 1.0


class Dice:
    """True for this share of all throws; another one each process, unless a test gives its own."""

    def __init__(self, share: float, throw: Callable[[], float] = random.random) -> None:
        self._share, self._throw = share, throw

    def wins(self) -> bool:
        """Of this one."""
        return self._throw() < self._share


def span_context_of(context: TraceContext) -> trace.SpanContext:
    """As the library has it."""
    return trace.SpanContext(
        trace_id=context.trace_id,
        span_id=context.span_id,
        is_remote=True,
        trace_flags=trace.TraceFlags(context.flags),
        trace_state=trace.TraceState.from_header([context.state] if context.state else []),
    )


def name_spans_in_logs() -> None:
    """From now on a log line has the `trace_id` and `span_id` of the span that is current where it is written."""
    processors = structlog.get_config()["processors"]
    if add_span_ids not in processors:
        structlog.configure(processors=[add_span_ids, *processors])


def add_span_ids(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 - structlog's own
    """A structlog processor."""
    current = trace.get_current_span().get_span_context()
    if current.is_valid and current.trace_flags.sampled:
        event["trace_id"] = f"{current.trace_id:032x}"
        event["span_id"] = f"{current.span_id:016x}"
    return event
