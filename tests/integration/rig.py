"""Topics of one test, settings of a worker for them, events in and a verdict out."""

import time
import uuid
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import fastavro
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from loadgen.kafka_client import KafkaOptions
from loadgen.pacing import Pace
from loadgen.poison import POISON_HEADER, PoisonShare
from loadgen.produce_plan import ProducePlan
from loadgen.producing import Extent
from loadgen.schema_source import SchemaOptions
from loadgen.verify_plan import VerifyPlan
from loadgen.verifying import verify
from loadgen.wire import SINGLE_OBJECT

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
WAIT_S = 60.0
PARTITION_EOF = -191
PREDICTION_SCHEMAS = {"churn": "churn_prediction.avsc", "digits": "digit_prediction.avsc"}


@dataclass(frozen=True)
class Lane:
    """One pipeline's topics, and what goes in and comes out of them."""

    kafka: str
    pipeline: str
    inputs: tuple[str, ...]
    output: str
    dead_letters: str
    store: Path
    registry_url: str | None = None

    def section(self, **options):
        """The pipeline's section in the worker's settings."""
        return {
            "name": self.pipeline,
            "input_topics": list(self.inputs),
            "output_topic": self.output,
            "dead_letter_topic": self.dead_letters,
            "model": self.pipeline,
            **options,
        }

    def settings(self, *more_lanes, pipeline=None, **sections):
        """A worker's settings; `pipeline`: options of every pipeline; sections: merged over the defaults."""
        settings = {
            "kafka": {"bootstrap_servers": self.kafka, "group_id": f"group-{uuid.uuid4().hex[:12]}"},
            "worker": {"instance_id": f"worker-{uuid.uuid4().hex[:12]}"},
            "schemas": {"directory": str(SCHEMAS), "registry_url": self.registry_url},
            "pipelines": [lane.section(**(pipeline or {})) for lane in (self, *more_lanes)],
            "models": {"store": f"file://{self.store}"},
            "http": {"port": 0},
            "log": {"format": "json"},
        }
        for name, section in sections.items():
            settings[name] = settings.get(name, {}) | section
        return settings

    def with_inputs(self, *topics):
        """The same with other input topics."""
        return replace(self, inputs=topics)

    def with_outputs(self, output, dead_letters):
        """The same with other topics for its outputs."""
        return replace(self, output=output, dead_letters=dead_letters)

    def produce(self, events, *, poison=0.0, rate=0.0, topic=None, **options):
        """Send events to the first input topic, or to this one."""
        return self._produce_plan(events, poison, rate, topic, **options).run(lambda sent: None)

    def event_stream(self, *, poison=0.0, **options):
        """The events themselves, for those who want to send them in another way."""
        return self._produce_plan(1, poison, 0.0, None, **options).event_stream()

    def _produce_plan(self, events, poison, rate, topic, **options):
        return ProducePlan(
            pipeline=self.pipeline,
            topic=topic or self.inputs[0],
            kafka=KafkaOptions(self.kafka),
            schemas=SchemaOptions(SCHEMAS, self.registry_url),
            pace=Pace(rate=rate),
            extent=Extent(events=events),
            poison=PoisonShare(poison),
            **options,
        )

    def verify(self, **options):
        """Read until every event has its outcome; returns loadgen's verdict."""
        plan = VerifyPlan(
            pipeline=self.pipeline,
            input_topics=self.inputs,
            prediction_topic=self.output,
            dead_letter_topic=self.dead_letters,
            kafka=KafkaOptions(self.kafka),
            schemas=SchemaOptions(SCHEMAS, self.registry_url),
            **{"store": str(self.store), "timeout_s": 90, "quiet_s": 40, "settle_s": 0.3, **options},
        )
        return verify(plan, lambda *counts: None)

    def verified(self, **options):
        """The verdict, which must be good."""
        verdict = self.verify(**options)
        assert verdict.violations == ()
        return verdict


def write(kafka, topic, records, **properties):
    """Send (partition, key, value) as they are; in one transaction each 100 if `transactional.id` is given."""
    producer = Producer({"bootstrap.servers": kafka, **properties})
    transactional = "transactional.id" in properties
    if transactional:
        producer.init_transactions(WAIT_S)
    for start in range(0, len(records), 100):
        if transactional:
            producer.begin_transaction()
        for partition, key, value in records[start : start + 100]:
            producer.produce(topic, partition=partition, key=key, value=value)
        if transactional:
            producer.commit_transaction(WAIT_S)
    assert producer.flush(WAIT_S) == 0


def events_of(stream, count, partitions=4, first=0):
    """`count` events of a stream as (partition, key, value), dealt out to partitions in turn."""
    now_ms = int(np.datetime64("now", "ms").astype(int))
    chunk = stream.chunk(first, np.full(count, now_ms, np.int64))
    return [(row % partitions, chunk.keys[row], chunk.values[row]) for row in range(count)]


def read_all(kafka, topic):
    """Every committed record of a topic, as the client's messages, up to its end as it is now."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "tests-read-all",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        ended, found = set(), []
        deadline = time.monotonic() + WAIT_S
        while len(ended) < len(partitions):
            assert time.monotonic() < deadline, f"{topic} was not read to its end"
            for message in consumer.consume(1, 0.1) + consumer.consume(1000, 0):
                if message.error():
                    assert message.error().code() == PARTITION_EOF
                    ended.add(message.partition())
                else:
                    found.append(message)
        return found
    finally:
        consumer.close()


def answers(lane):
    """(message, prediction as a dict) of everything in the output topic of a lane in single-object encoding."""
    schema = fastavro.schema.load_schema(SCHEMAS / PREDICTION_SCHEMAS[lane.pipeline])
    found = []
    for message in read_all(lane.kafka, lane.output):
        datum = BytesIO(message.value()[SINGLE_OBJECT.header_size :])
        found.append((message, fastavro.schemaless_reader(datum, schema, None)))
    return found


def ends(kafka, topic):
    """Partition → end offset, markers included."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "tests-ends"})
    try:
        partitions = consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=WAIT_S)[1]
            for partition in partitions
        }
    finally:
        consumer.close()


def committed(kafka, group, topic):
    """Partition → committed offset of a group; -1001 where there is none."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": group})
    try:
        partitions = consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions
        asked = [TopicPartition(topic, partition) for partition in partitions]
        return {found.partition: found.offset for found in consumer.committed(asked, timeout=WAIT_S)}
    finally:
        consumer.close()


def poison_kind(message):
    """The kind of poison that loadgen put in, or None."""
    kind = dict(message.headers() or ()).get(POISON_HEADER)
    return kind.decode() if kind else None
