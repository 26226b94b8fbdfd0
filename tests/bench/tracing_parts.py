"""CPU time of what tracing adds to a batch, part by part: `python -m tests.bench.tracing_parts`.

Records are the client's own, from its mock cluster in this process; each figure is CPU time of one thread, the least of
many stretches, so that another program on the machine hardly shows. `tracing_cost` measures the whole on a real broker.
"""

import argparse
import time
from contextlib import contextmanager

from confluent_kafka import Consumer, Producer, TopicPartition
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from rich.console import Console
from rich.table import Table

from app.clock import SystemClock
from app.observe.tracing import Allowance, Dice
from app.observe.tracing_batches import BatchSampling, StreamFacts, StreamTracing
from app.records import Batch, origin_of

ROWS, STRETCHES = 512, 40
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
OTHERS = [("content-type", "avro/binary"), ("source", "billing")]
HEADERS = {
    "no header": None,
    "a traceparent": [("traceparent", PARENT)],
    "three headers": [*OTHERS, ("traceparent", PARENT)],
}
FACTS = StreamFacts("churn", "group", "client", "churn.predictions", 1_000_000)


@contextmanager
def consumed(headers, batches):
    """A function that gives ROWS records with these headers, others each time: a message keeps the list it made."""
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})
    brokers = producer.list_topics(timeout=10).brokers.values()
    for _ in range(ROWS * batches):
        producer.produce("events", b"value", b"key", 0, headers=headers)
    producer.flush(30)
    servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "parts", "log_level": 0})
    consumer.assign([TopicPartition("events", 0, 0)])

    def read():
        found = []
        while len(found) < ROWS:
            found += consumer.consume(ROWS - len(found), 5)
        return found

    try:
        yield read
    finally:
        consumer.close()


def least_us(work, prepare, stretches=STRETCHES):
    """CPU microseconds of one call; each call is given what `prepare` made for it."""
    least = float("inf")
    for _ in range(stretches):
        given = prepare()
        began = time.thread_time_ns()
        work(given)
        least = min(least, time.thread_time_ns() - began)
    return least / 1000


def tracing_of(tracer, share):
    sampling = BatchSampling(Dice(share), Allowance(1e9, SystemClock()))
    return StreamTracing(tracer, FACTS, sampling, lambda why: None)


def batch_of(records):
    return Batch(records, "records", 0.001, 0.0, ROWS), origin_of(records, 1)


def trace_all(tracing, batch, origin):
    """Everything a traced batch does, but the work itself."""
    trace = tracing.begin(batch, origin)
    now = time.perf_counter()
    for stage in ("decode", "features", "infer", "encode"):
        with trace.current():
            pass
        trace.took(stage, now, 0.001, {"inference.rows": ROWS})
    trace.happened("inference.model.asked", {"inference.model": "churn", "inference.rows_answered": ROWS})
    trace.known({"inference.predicted": ROWS, "inference.model_versions": ["1"], "inference.dead_lettered": 0})
    with trace.delivering(ROWS, 0):
        pass
    tracing.settled()


def main():
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    tracer = provider.get_tracer("parts")
    table = Table(title=f"CPU µs for a batch of {ROWS} records, the least of {STRETCHES}")
    table.add_column("what")
    table.add_column("µs", justify="right")
    for name, headers in HEADERS.items():
        with consumed(headers, 2 * STRETCHES) as read:
            never = tracing_of(tracer, 0.0)
            looked = least_us(lambda given, never=never: never.begin(*given), lambda read=read: batch_of(read()))
            whole = least_us(lambda records: [record.headers() for record in records], read)
        table.add_row(f"not traced, {name}", f"{looked:.1f}")
        table.add_row(f"(headers of all {ROWS}, {name})", f"{whole:.1f}", style="dim")
    with consumed(None, 1) as read:
        always, given = tracing_of(tracer, 1.0), batch_of(read())
        table.add_row(
            "traced: its seven spans", f"{least_us(lambda given: trace_all(always, *given), lambda: given):.1f}"
        )
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace_all(always, *given)
    spans = exporter.get_finished_spans()
    encoded = least_us(lambda spans: encode_spans(spans).SerializeToString(), lambda: spans)
    table.add_row(f"encoding them for the collector, {len(spans)} spans (on the export thread)", f"{encoded:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
