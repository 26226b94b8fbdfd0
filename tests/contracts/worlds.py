"""One topic of two partitions with a source and a sink on it: in memory, and on the real broker."""

import time
import uuid

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from fake_stream import FakeBroker, FakeSink, FakeSource, RecordingObserver
from fakes import ManualClock

from app.clock import SystemClock
from app.errors import Reason, Stage
from app.kafka.client_config import ClientPolicy, DeliveryPolicy, GroupPolicy, consumer_properties, producer_properties
from app.kafka.outbox import OutputTopics
from app.kafka.sink import AtLeastOnceSink
from app.kafka.source import KafkaSource
from app.kafka.transactions import TransactionalSink
from app.kafka.watchdog import Watchdog
from app.records import DeadLetter, predictions_of, source_of
from app.records import TopicPartition as Source

WAIT_S = 60.0
COMMIT_INTERVAL_S = 0.2


class Listener:
    """Takes every assignment as it comes."""

    def on_assigned(self, sources):
        pass

    def on_revoked(self, sources):
        pass

    def on_lost(self, sources):
        pass


class World:
    """`source` owns both partitions; `sink` is ready."""

    transactional = True

    def append(self, partition, count):
        """So many more records."""
        raise NotImplementedError

    def outputs(self):
        """What readers see: values of predictions and dead letters, by topic and partition in order."""
        raise NotImplementedError

    def committed(self):
        """Partition number → the group's offset; absent where there is none."""
        raise NotImplementedError

    def close(self):
        self.sink.close()
        self.source.close()

    def polled(self, count):
        """Poll until so many records came: (partition, offset) in the order they came."""
        found = []
        deadline = time.monotonic() + WAIT_S
        while len(found) < count:
            assert time.monotonic() < deadline, f"{count} records were to come, {found} came"
            found += [(record.partition(), record.offset()) for record in self.source.poll(count - len(found), 0.05)]
        return found

    def polled_for(self, seconds):
        """What comes within this time."""
        found = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found += [source_of(record).partition for record in self.source.poll(1000, 0.05)]
        return found

    def deliver(self, *values, letters=()):
        """Hand predictions ("partition@anything") and dead letters over."""
        encoded = [value.encode() for value in values]
        partitions = np.array([int(value[0]) for value in values], np.int64)
        self.sink.deliver(
            predictions_of(encoded, [None] * len(values), partitions),
            [
                DeadLetter(None, value.encode(), (), None, int(value[0]), Stage.DECODE, Reason.BAD_FRAME)
                for value in letters
            ],
        )

    def settle(self, offsets, note=""):
        """Ask until it is settled and committed."""
        deadline = time.monotonic() + WAIT_S
        offsets = {self.at(partition): offset for partition, offset in offsets.items()}
        while not self.sink.settle(offsets, note, idle=True) or any(
            self.committed().get(source.partition) != offset for source, offset in offsets.items()
        ):
            assert time.monotonic() < deadline, f"not settled: {self.committed()}"
            self.source.poll(1, 0.05)


class MemoryWorld(World):
    """The fakes."""

    def __init__(self):
        self._broker = FakeBroker(2)
        self.source = FakeSource(self._broker, ManualClock())
        self.source.subscribe(Listener())
        self.source.events.append(("assigned", set(self._broker.sources)))
        self.source.poll(1, 0)
        self.sink = FakeSink(self._broker, self.source)

    def at(self, partition):
        return self._broker.sources[partition]

    def append(self, partition, count):
        self._broker.append(partition, count)

    def outputs(self):
        return [[str(offset) for where, offset in self._broker.outcomes if where.partition == p] for p in (0, 1)]

    def committed(self):
        return {source.partition: offset for source, offset in self._broker.committed.items() if offset}


class BrokerWorld(World):
    """The adapters."""

    def __init__(self, kafka, topics, *, transactional=True, protocol="classic", output_config=None):
        self.transactional = transactional
        self._kafka = kafka
        self._topic, dead_letters = (topics(name, 2) for name in ("events", "dead-letters"))
        output = topics("predictions", 2, output_config)
        self._outputs = (output, dead_letters)
        self._group = f"contract-{uuid.uuid4().hex[:12]}"
        clock, watchdog, observer = SystemClock(), Watchdog(SystemClock()), RecordingObserver()
        policy = ClientPolicy(kafka, "contract")
        properties = consumer_properties(policy, GroupPolicy(self._group, protocol), 1_000_000)
        self.source = KafkaSource(properties, [self._topic], "earliest", clock, watchdog, observer)
        self.source.subscribe(Listener())
        delivery = DeliveryPolicy(self._group if transactional else None, COMMIT_INTERVAL_S)
        where = OutputTopics(output, dead_letters)
        made = producer_properties(policy, delivery)
        if transactional:
            self.sink = TransactionalSink(made, self.source.consumer, where, delivery, clock, watchdog, observer)
        else:
            self.sink = AtLeastOnceSink(made, self.source, where, delivery, clock, watchdog)
        deadline = time.monotonic() + WAIT_S
        while len(self.source.owned) < 2 or not self.sink.recovered():
            assert time.monotonic() < deadline, "not joined"
            self.source.poll(1, 0.1)

    def at(self, partition):
        return Source(self._topic, partition)

    def append(self, partition, count):
        producer = Producer({"bootstrap.servers": self._kafka})
        for _ in range(count):
            producer.produce(self._topic, b"v", partition=partition)
        assert producer.flush(WAIT_S) == 0

    def outputs(self):
        reader = Consumer(
            {"bootstrap.servers": self._kafka, "group.id": "contract-reader", "enable.partition.eof": True}
        )
        try:
            found = {(topic, partition): [] for topic in self._outputs for partition in (0, 1)}
            reader.assign([TopicPartition(topic, partition, 0) for topic, partition in found])
            ended = 0
            deadline = time.monotonic() + WAIT_S
            while ended < len(found):
                assert time.monotonic() < deadline, "the outputs were not read to their end"
                for message in reader.consume(100, 0.2):
                    if message.error():
                        ended += 1
                    else:
                        found[message.topic(), message.partition()].append(message.value().decode()[2:])
            return [
                [value for (_, partition), values in found.items() if partition == p for value in values]
                for p in (0, 1)
            ]
        finally:
            reader.close()

    def committed(self):
        asker = Consumer({"bootstrap.servers": self._kafka, "group.id": self._group})
        try:
            found = asker.committed([TopicPartition(self._topic, partition) for partition in (0, 1)], timeout=WAIT_S)
            return {partition.partition: partition.offset for partition in found if partition.offset >= 0}
        finally:
            asker.close()
