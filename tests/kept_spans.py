"""The real tracing library with an exporter that keeps what it is given, for tests of what is recorded."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from app.observe.tracing import Allowance, Dice
from app.observe.tracing_batches import BatchSampling, StreamFacts, StreamTracing
from app.observe.tracing_requests import RequestSampling, RequestTraces

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # pragma: allowlist secret
FACTS = StreamFacts("churn", "workers", "worker-1", "predictions", 1_000)


def traceparent(trace_id=TRACE_ID, *, sampled=True):
    """A record's header."""
    return ("traceparent", f"00-{trace_id}-{SPAN_ID}-0{int(sampled)}".encode())


class KeptSpans:
    """`tracer` makes spans; `named` and `batches` are those that have ended."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")
        self.counted = []

    def stream(self, clock, *, share=0.0, parents_per_s=50.0, throw=lambda: 0.5, **sampling):
        """Of a pipeline, traced by chance only if `share` is more than half."""
        chosen = BatchSampling(Dice(share, throw), Allowance(parents_per_s, clock), **sampling)
        return StreamTracing(self.tracer, FACTS, chosen, self.counted.append)

    def requests(self, clock, *, share=0.0, parents_per_s=50.0, **sampling):
        """Of a server, traced by chance only if `share` is more than half."""
        chosen = RequestSampling(Dice(share, lambda: 0.5), Allowance(parents_per_s, clock), **sampling)
        return RequestTraces(self.tracer, chosen, self.counted.append)

    @property
    def all(self):
        """In the order of their ends."""
        return list(self._exporter.get_finished_spans())

    def named(self, name):
        """Those of this name."""
        return [span for span in self.all if span.name == name]

    @property
    def batches(self):
        """The spans of whole batches."""
        return [span for span in self.all if span.name.startswith("process")]
