"""librdkafka's own in-process mock brokers, for the demo and for quick tests.

They speak groups and transactions, but prove nothing about delivery: they keep no transactional offsets, show
aborted records and keep only a few MB a partition. Topics appear on first use, with four partitions.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as ClientPartition

from app.errors import BrokerUnavailable
from app.records import Record

PARTITIONS = 4
START_WITHIN_S = 10.0
MOCK_FETCH_WAIT_MS = 5  # a waiting fetch is not answered when something arrives, only when its time is up


class MockCluster:
    """One mock broker, alive as long as this object's producer."""

    def __init__(self) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": "mock",
                "test.mock.num.brokers": 1,
                "log_level": 0,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        brokers = self._producer.list_topics(timeout=START_WITHIN_S).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self._readers: list[Consumer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.close()
        self._producer.flush(START_WITHIN_S)

    def make_topics(self, *topics: str) -> None:
        """Make these topics, empty."""
        for topic in topics:
            self._producer.list_topics(topic, timeout=START_WITHIN_S)

    def put(self, topic: str, values: Sequence[bytes], keys: Sequence[bytes], first: int) -> None:
        """Send values, spread evenly: value i goes to partition (first + i) % PARTITIONS; wait until they are there."""
        for partition in range(PARTITIONS):
            start = (partition - first) % PARTITIONS
            messages = [
                {"value": value, "key": key}
                for value, key in zip(values[start::PARTITIONS], keys[start::PARTITIONS], strict=True)
            ]
            self._producer.produce_batch(topic, messages, partition=partition)
        if self._producer.flush(START_WITHIN_S):
            raise BrokerUnavailable("the mock brokers did not take the events")

    def reader(self, *topics: str) -> "TopicReader":
        """Read these topics from their beginning, without a group."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "demo-reader",
                "enable.auto.commit": False,
                "fetch.queue.backoff.ms": 10,
                "fetch.wait.max.ms": MOCK_FETCH_WAIT_MS,
                "log_level": 0,
            }
        )
        consumer.assign([ClientPartition(topic, p, 0) for topic in topics for p in range(PARTITIONS)])
        self._readers.append(consumer)
        return TopicReader(consumer)


class TopicReader:
    """Reads what arrives."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def take(self, timeout_s: float) -> list[Record]:
        """What is there; waits up to `timeout_s` for a first record."""
        messages = self._consumer.consume(1, timeout_s)
        if messages:
            messages += self._consumer.consume(10_000, 0)
        return cast("list[Record]", [message for message in messages if message.error() is None])
