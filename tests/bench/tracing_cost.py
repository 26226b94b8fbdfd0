"""What tracing costs a worker under backlog: `python -m tests.bench.tracing_cost [--pairs 10] [--events 3000000]`.

A real broker, a backlog of churn events, and two workers at once that read all of it, one with tracing and one without
(`paired_workers`): with 1 % of the batches traced, with 1 % where every record has a `traceparent` as well and one in a
hundred is sampled, and with every batch traced. Which of the two starts first changes from pair to pair. Printed are
the geometric mean of the pairs' ratios and its 95 % interval. CPU time is the whole process's, export included.
"""

import argparse
import os
import statistics
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from app.wiring.training import train
from deploy.local.stack import Stack
from loadgen.bench.broker import PARTITIONS, create
from loadgen.kafka_client import KafkaOptions
from tests.bench.paired_workers import compared, pair_at_once, topics
from tests.integration.rig import WAIT_S, Lane
from tests.otlp_receiver import http_collector

CHUNK = 20_000
TAKEN = 202  # the collector takes spans without a look at them: it is on this machine only for want of another
SAMPLED_OF_100 = 1


@dataclass(frozen=True)
class Variant:
    """sample_ratio: of the batches. carried: whether records have headers, also those of the worker beside it."""

    name: str
    sample_ratio: float
    carried: bool = False


VARIANTS = (
    Variant("1 %", 0.01),
    Variant("1 %, every record with a traceparent", 0.01, carried=True),
    Variant("100 %", 1.0),
)


def fill(lane, topic, events, *, carried):
    """So many events, dealt out to the partitions."""
    producer = Producer(
        {"bootstrap.servers": lane.kafka, "queue.buffering.max.messages": 0, "linger.ms": 20, "log_level": 2}
    )
    stream, rng = lane.event_stream(), np.random.default_rng(0)
    for start in range(0, events, CHUNK):
        count = min(CHUNK, events - start)
        chunk = stream.chunk(start, np.full(count, int(np.datetime64("now", "ms").astype(int)), np.int64))
        for row in range(count):
            headers = None
            if carried:
                flag = int(rng.integers(100) < SAMPLED_OF_100)
                headers = {"traceparent": f"00-{uuid.uuid4().hex}-{start + row + 1:016x}-0{flag}"}
            producer.produce(topic, chunk.values[row], chunk.keys[row], row % PARTITIONS, headers=headers)
        producer.flush(WAIT_S)


def pair(lane, variant, events, folder, collector, *, traced_first):
    """Two workers, each over the whole backlog into topics of its own: (the traced one's stretch, the other's)."""
    tracing = {"enabled": True, "sample_ratio": variant.sample_ratio, "endpoint": collector.url}
    with topics(lane.kafka, "predictions", "dead-letters", "predictions", "dead-letters") as names:
        with_it = lane.with_outputs(*names[:2]).settings(tracing=tracing)
        without = lane.with_outputs(*names[2:]).settings()
        return pair_at_once(with_it, without, events, folder, one_first=traced_first)


def spans(one, *results):
    """So many of these ends."""
    counted = one.scrape.of("inference_spans_total", "result")
    return sum(counted.get((result,), 0.0) for result in results)


def table_of(runs, events, pairs):
    """One line for each variant."""
    table = Table(
        title=f"{events:,} events, {pairs} pairs; means and intervals against a worker beside it, tracing off"
    )
    for name in ("tracing", "events/s, ratio", "CPU time, ratio", "batches traced", "spans", "lost"):
        table.add_column(name, justify="left" if name == "tracing" else "right")
    for variant in VARIANTS:
        traced, others = zip(*runs[variant.name], strict=True)
        table.add_row(
            variant.name,
            compared(traced, others, "events_per_s"),
            compared(traced, others, "cpu_us"),
            *(
                f"{statistics.median(counts):,.0f}"
                for counts in (
                    [one.scrape.total("inference_traced_batches_total") for one in traced],
                    [spans(one, "exported") for one in traced],
                    [spans(one, "dropped", "failed") for one in traced],
                )
            ),
        )
    return table


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--events", type=int, default=3_000_000)
    plan = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tracing-cost-"))
    stack = Stack(folder / "stack")
    stack.guard(os.getpid())
    runs = {variant.name: [] for variant in VARIANTS}
    try:
        kafka = stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"]
        store = folder / "models"
        train("churn", store=str(store), estimator=None, rows=5_000, seed=0, progress=lambda _: None)
        inputs = {carried: f"churn.events.{'headers' if carried else 'plain'}" for carried in (False, True)}
        lanes = {carried: Lane(kafka, "churn", (topic,), "", "", store) for carried, topic in inputs.items()}
        create(KafkaOptions(kafka), list(inputs.values()))
        for carried, lane in lanes.items():
            fill(lane, inputs[carried], plan.events, carried=carried)
        with http_collector() as collector:
            collector.answer = TAKEN
            for number in range(plan.pairs):
                for at, variant in enumerate(VARIANTS):
                    where = folder / f"{number}-{at}"
                    runs[variant.name].append(
                        pair(
                            lanes[variant.carried], variant, plan.events, where, collector, traced_first=number % 2 == 0
                        )
                    )
    finally:
        stack.down(wipe=True)
    Console(width=140).print(table_of(runs, plan.events, plan.pairs))


if __name__ == "__main__":
    main()
