"""The trace of a batch of the stream: one span, linked to the records in it that somebody traces, and its stages.

A batch is traced if a record in it was sampled by its sender, up to so many batches a second, or by chance. Its span
is the root of a trace of its own, as the records are of many. Names are those of the semantic conventions for
messaging and Kafka (1.44, in development); what is ours alone begins with `inference.`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from app.observe.trace_context import TraceContext, sampled_rows
from app.observe.tracing import Allowance, Dice, span_context_of
from app.ports import TraceFacts
from app.records import Batch, Headers, IntArray, Origin, Predictions

LONGEST_REASON = 500
READ_OF = 512
_NS = 1_000_000_000
_NO_FACTS: TraceFacts = {}


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What is so of all batches of a pipeline. most_bytes: of a prediction, its key and its headers."""

    pipeline: str
    group_id: str
    client_id: str
    output_topic: str
    most_bytes: int


@dataclass(frozen=True, slots=True)
class BatchSampling:
    """Which batches are traced, and how many records they are linked to at most.

    records_read: of every READ_OF records, or fewer, so many are asked for their headers.
    """

    chance: Dice
    parents: Allowance
    records_read: int = 64
    most_links: int = 32


class StreamTracing:
    """Begins and ends the traces of one pipeline's batches; on the stream thread."""

    def __init__(
        self, tracer: trace.Tracer, facts: StreamFacts, sampling: BatchSampling, counted: Callable[[str], None]
    ) -> None:
        """counted: told why a batch is traced, "record" or "chance"."""
        self._tracer, self._facts, self._sampling, self._counted = tracer, facts, sampling, counted
        self._turn = 0
        self._under_way: set[Trace] = set()
        self._delivered: list[Trace] = []

    def begin(self, batch: Batch, origin: Origin) -> "Trace | None":
        """The trace of this batch, or None if it is not traced."""
        sampling, contexts = self._sampling, {}
        if sampling.records_read and sampling.parents.any():
            self._turn += 1
            read = sampling.records_read * -(-len(batch) // READ_OF)
            contexts = sampled_rows(batch.records, read, sampling.most_links, self._turn)
        if contexts:
            sampling.parents.take()
        elif not sampling.chance.wins():
            return None
        self._counted("record" if contexts else "chance")
        found = Trace(self._tracer, self._facts, self, batch, origin, contexts)
        self._under_way.add(found)
        return found

    def delivered(self, one: "Trace") -> None:
        """Its outputs are with the client."""
        self._under_way.discard(one)
        self._delivered.append(one)

    def over(self, one: "Trace") -> None:
        """It has its end."""
        self._under_way.discard(one)

    def settled(self) -> None:
        """What was delivered is durable."""
        for one in self._delivered:
            one.settled()
        self._delivered.clear()

    def undone(self, why: BaseException | None) -> None:
        """Nothing that was under way or delivered will be durable. why: None if no error is the reason."""
        for one in [*self._delivered, *self._under_way]:
            one.failed(why) if why is not None else one.dropped("partitions were taken away, or the worker ended")
        self._delivered.clear()
        self._under_way.clear()


class Trace:
    """Of one batch. Used by one thread at a time; what comes after its end is left out."""

    def __init__(
        self,
        tracer: trace.Tracer,
        facts: StreamFacts,
        stream: StreamTracing,
        batch: Batch,
        origin: Origin,
        contexts: Mapping[int, TraceContext],
    ) -> None:
        self._tracer, self._facts, self._stream, self._contexts = tracer, facts, stream, contexts
        self._to_wall = time.time_ns() - time.perf_counter_ns()
        self._handed_over = 0.0
        topics = sorted({source.topic for source in origin.sources})
        self._span: Span = tracer.start_span(
            f"process {topics[0]}" if len(topics) == 1 else "process",
            context=otel_context.Context(),  # nobody's child
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.batch.message_count": len(batch),
                "messaging.consumer.group.name": facts.group_id,
                "messaging.client.id": facts.client_id,
                "inference.pipeline": facts.pipeline,
                "inference.batch.cause": batch.cause,
                "inference.batch.waited_s": batch.waited_s,
                "inference.batch.partitions": len(origin.sources),
                **({"messaging.destination.name": topics[0]} if len(topics) == 1 else {}),
                **_partition_of(origin),
            },
            links=[Link(span_context_of(context), _place_of(origin, row)) for row, context in contexts.items()],
        )
        self._context = trace.set_span_in_context(self._span, otel_context.Context())

    @contextmanager
    def current(self) -> Iterator[None]:
        """Within this block, logs name the batch; an error that leaves it is the batch's end."""
        token = otel_context.attach(self._context)
        try:
            yield
        except BaseException as exc:
            self.failed(exc)
            raise
        finally:
            otel_context.detach(token)

    def took(self, stage: str, started: float, seconds: float, facts: TraceFacts = _NO_FACTS) -> None:
        """A stage is over. started: by the performance counter."""
        self._child(stage, SpanKind.INTERNAL, started, started + seconds, facts)

    def happened(self, what: str, facts: TraceFacts = _NO_FACTS) -> None:
        """Something to be seen of it."""
        if self._span.is_recording():
            self._span.add_event(what, dict(facts))

    def known(self, facts: TraceFacts) -> None:
        """What is so of the whole batch."""
        if self._span.is_recording():
            self._span.set_attributes(dict(facts))

    def carried(self, predictions: Predictions, rows: IntArray) -> Predictions:
        """The same, with the trace context of each record that has one; rows: of the batch, rising, one for each.

        A context for which a record has no room is left out.
        """
        headers: dict[int, Headers] = {}
        for row, context in self._contexts.items():
            at = int(np.searchsorted(rows, row))
            if at < len(rows) and rows[at] == row:
                its = context.headers()
                if int(predictions.sizes[at]) + sum(len(name) + len(value) for name, value in its) <= (
                    self._facts.most_bytes
                ):
                    headers[at] = its
        return replace(predictions, headers=headers) if headers else predictions

    @contextmanager
    def delivering(self, predictions: int, dead_letters: int) -> Iterator[None]:
        """Within this block its outputs are handed to the client."""
        started = time.perf_counter()
        with self.current():
            yield
        self._handed_over = time.perf_counter()
        facts = {
            **self._sending("send", predictions + dead_letters),
            "messaging.destination.name": self._facts.output_topic,
            "inference.predictions": predictions,
            "inference.dead_letters": dead_letters,
        }
        self._child(f"send {self._facts.output_topic}", SpanKind.PRODUCER, started, self._handed_over, facts)
        self._stream.delivered(self)

    def settled(self) -> None:
        """Its outputs and offsets are durable."""
        facts = self._sending("settle", None)
        self._child("settle", SpanKind.CLIENT, self._handed_over, time.perf_counter(), facts)
        self._end()

    def failed(self, why: BaseException) -> None:
        """This ends it: the batch left nothing behind."""
        kind = type(why).__name__
        if self._span.is_recording():
            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR, f"{kind}: {why}"[:LONGEST_REASON]))
        self._end()

    def dropped(self, why: str) -> None:
        """It ends here, and that is no error; its records come again, to us or to somebody else."""
        self.happened("inference.batch.dropped", {"inference.reason": why})
        self._end()

    def _end(self) -> None:
        if self._span.is_recording():
            self._span.end()
        self._stream.over(self)

    def _sending(self, operation: str, count: int | None) -> dict[str, str | int]:
        facts: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.client.id": self._facts.client_id,
        }
        return facts if count is None else {**facts, "messaging.batch.message_count": count}

    def _child(self, name: str, kind: SpanKind, started: float, ended: float, facts: TraceFacts) -> None:
        if self._span.is_recording():
            child = self._tracer.start_span(name, self._context, kind, dict(facts), start_time=self._wall(started))
            child.end(self._wall(ended))

    def _wall(self, counter: float) -> int:
        return int(counter * _NS) + self._to_wall


def _partition_of(origin: Origin) -> TraceFacts:
    if len(origin.sources) != 1:
        return {}
    return {"messaging.destination.partition.id": str(origin.sources[0].partition)}


def _place_of(origin: Origin, row: int) -> dict[str, str | int]:
    source = origin.sources[int(origin.source[row])]
    return {
        "messaging.destination.name": source.topic,
        "messaging.destination.partition.id": str(source.partition),
        "messaging.kafka.offset": int(origin.offsets[row]),
    }
