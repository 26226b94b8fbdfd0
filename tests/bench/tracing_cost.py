"""What tracing costs a worker under backlog: `python -m tests.bench.tracing_cost [--rounds 8] [--events 1000000]`.

A real broker, a backlog of churn events, and one worker process after another that reads all of it: with tracing off,
with 1 % of the batches traced, with 1 % where every record has a `traceparent` as well and one in a hundred is sampled,
and with every batch traced. The four take turns in each round, in another order each time, and each round gives one
ratio to its own "off". Printed are the geometric mean of the ratios and its 95 % interval (Student's t over their
logarithms). Throughput is by the broker's clock: from the first prediction appended to the last. CPU time is the whole
process's, export included, from ready to done; another program on the machine shows in it less.
"""

import argparse
import math
import os
import statistics
import tempfile
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student_t

from app.wiring.training import train
from deploy.local.stack import Stack
from tests.integration.rig import WAIT_S, Lane
from tests.integration.worker_process import running_worker
from tests.otlp_receiver import http_collector

PARTITIONS, CHUNK = 4, 20_000
TAIL = 50  # offsets at a partition's end, transaction markers among them, in which a record is sure to be
TAKEN = 202  # the collector takes spans without a look at them: it is on this machine only for want of another
SAMPLED_OF_100 = 1


@dataclass(frozen=True)
class Variant:
    """tracing: the settings' section. carried: whether records have headers."""

    name: str
    tracing: dict
    carried: bool = False


OFF = Variant("off", {"enabled": False})
VARIANTS = (
    OFF,
    Variant("1 %", {"enabled": True, "sample_ratio": 0.01}),
    Variant("1 %, every record with a traceparent", {"enabled": True, "sample_ratio": 0.01}, carried=True),
    Variant("off, every record with a traceparent", {"enabled": False}, carried=True),
    Variant("100 %", {"enabled": True, "sample_ratio": 1.0}),
)


@dataclass(frozen=True)
class Run:
    """events_per_s, cpu_us of an event; traced batches and exported spans, as the worker counted them."""

    events_per_s: float
    cpu_us: float
    traced: float
    spans: float
    lost: float


def make_topics(kafka, *names, **config):
    admin = AdminClient({"bootstrap.servers": kafka})
    for made in admin.create_topics([NewTopic(name, PARTITIONS, 1, config=config) for name in names]).values():
        made.result(WAIT_S)


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


def appended_within_s(kafka, topic):
    """From the first record's time in the log to the last one's."""
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "tracing-cost", "isolation.level": "read_committed", "log_level": 2}
    )
    times = []
    try:
        for partition in range(PARTITIONS):
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=WAIT_S)
            for offset in (0, max(0, high - TAIL)):
                consumer.assign([TopicPartition(topic, partition, offset)])
                found = consumer.consume(TAIL, 2.0)
                times += [message.timestamp()[1] for message in found if message.error() is None]
    finally:
        consumer.close()
    return (max(times) - min(times)) / 1000


def run(lane, variant, events, folder, collector):
    """One worker over the whole backlog, into topics of its own."""
    output, dead_letters = (f"{kind}.{uuid.uuid4().hex[:12]}" for kind in ("predictions", "dead-letters"))
    make_topics(lane.kafka, output, dead_letters, **{"message.timestamp.type": "LogAppendTime"})
    one = replace(lane, output=output, dead_letters=dead_letters)
    settings = one.settings(tracing={**variant.tracing, "endpoint": collector.url})
    with running_worker(settings, folder) as worker:
        worker.wait_until_ready()
        before_s = worker.metrics().total("process_cpu_seconds_total")
        worker.wait_for_records(events)
        metrics = worker.metrics()
        worker.stop()
    spans = metrics.of("inference_spans_total", "result")
    found = Run(
        events / appended_within_s(lane.kafka, output),
        (metrics.total("process_cpu_seconds_total") - before_s) / events * 1e6,
        metrics.total("inference_traced_batches_total"),
        spans.get(("exported",), 0.0),
        spans.get(("dropped",), 0.0) + spans.get(("failed",), 0.0),
    )
    admin = AdminClient({"bootstrap.servers": lane.kafka})  # what it does ends with it
    for done in admin.delete_topics([output, dead_letters]).values():
        done.result(WAIT_S)
    return found


def interval(ratios):
    """Geometric mean and its 95 % interval; from one ratio alone there is none."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return math.exp(mean), math.nan, math.nan
    half = student_t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def table_of(runs, events):
    """One line for each variant; what has headers beside what has them and is off."""
    table = Table(title=f"{events:,} events, {len(runs[OFF.name])} rounds; means and intervals against off")
    for name in ("tracing", "events/s", "against off", "CPU µs", "against off", "batches traced", "spans", "lost"):
        table.add_column(name, justify="left" if name == "tracing" else "right")
    for variant in VARIANTS:
        base = next(one.name for one in VARIANTS if one.carried == variant.carried and not one.tracing["enabled"])
        own = runs[variant.name]
        table.add_row(
            variant.name,
            f"{statistics.median(one.events_per_s for one in own):,.0f}",
            compared([its.events_per_s / off.events_per_s for its, off in zip(own, runs[base], strict=True)]),
            f"{statistics.median(one.cpu_us for one in own):.2f}",
            compared([its.cpu_us / off.cpu_us for its, off in zip(own, runs[base], strict=True)]),
            *(f"{statistics.median(getattr(one, name) for one in own):,.0f}" for name in ("traced", "spans", "lost")),
        )
    return table


def compared(ratios):
    """Mean and interval, or nothing where something is compared with itself."""
    mean, low, high = interval(ratios)
    return "" if set(ratios) == {1.0} else f"{mean:.3f} ({low:.3f} to {high:.3f})"


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--events", type=int, default=1_000_000)
    plan = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tracing-cost-"))
    stack = Stack(folder / "stack")
    stack.guard(os.getpid())
    runs = {variant.name: [] for variant in VARIANTS}
    try:
        kafka = stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"]
        store = folder / "models"
        train("churn", store=str(store), estimator=None, rows=5_000, seed=0, progress=lambda _: None)
        topics = {carried: f"churn.events.{'headers' if carried else 'plain'}" for carried in (False, True)}
        lanes = {carried: Lane(kafka, "churn", (topic,), "", "", store) for carried, topic in topics.items()}
        make_topics(kafka, *topics.values())
        for carried, lane in lanes.items():
            fill(lane, topics[carried], plan.events, carried=carried)
        with http_collector() as collector:
            collector.answer = TAKEN
            for number in range(plan.rounds):
                for at in range(len(VARIANTS)):
                    variant = VARIANTS[(at + number) % len(VARIANTS)]
                    runs[variant.name].append(
                        run(lanes[variant.carried], variant, plan.events, folder / f"{number}-{at}", collector)
                    )
    finally:
        stack.down(wipe=True)
    Console(width=140).print(table_of(runs, plan.events))


if __name__ == "__main__":
    main()
