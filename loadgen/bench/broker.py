"""The broker of a sitting: given, or started for it; its topics, their ends, what a group has committed."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from loadgen.bench.commands import output_of
from loadgen.errors import BrokerFailed
from loadgen.kafka_client import ADMIN_TIMEOUT_S, KafkaOptions, Topics

PARTITIONS = 4
LED_TIMEOUT_S = 30.0


@contextmanager
def broker(bootstrap: str | None, directory: Path) -> Iterator[str]:
    """Bootstrap servers: the given ones, or those of a broker that runs in the directory until the block ends.

    It is started by `python -m deploy.local`; if we are killed, `python -m deploy.local down --wipe --dir DIR` ends it.
    """
    if bootstrap:
        yield bootstrap
        return
    stack = [sys.executable, "-m", "deploy.local"]
    where = ["--dir", str(directory)]
    try:
        started = json.loads(output_of(*stack, "up", *where, "--json"))
        yield str(started["environment"]["KAFKA_BOOTSTRAP_SERVERS"])
    finally:
        output_of(*stack, "down", *where, "--wipe")


class GroupOffsets:
    """What one group has committed on one topic, asked over one connection."""

    def __init__(self, kafka: KafkaOptions, group: str, topic: str) -> None:
        self._consumer = Consumer(kafka.properties({"group.id": group, "enable.auto.commit": False}))
        self._places = [TopicPartition(topic, number) for number in Topics(kafka).partitions(topic)]

    def committed(self) -> int:
        """Records, over all partitions; a coordinator that is not ready yet has none."""
        return sum(self.by_partition().values())

    def by_partition(self) -> dict[int, int]:
        """Records of each partition; 0 where nothing was committed, empty while the coordinator is not ready."""
        try:
            found = self._consumer.committed(self._places, timeout=ADMIN_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].retriable():
                return {}
            raise BrokerFailed(f"committed offsets: {error.args[0].str()}") from error
        return {place.partition: max(0, place.offset) for place in found}

    def close(self) -> None:
        """End the connection; the group is as it was."""
        self._consumer.close()


def shares(kafka: KafkaOptions, group: str) -> list[int]:
    """How many partitions each member of a group owns; empty while it is none, or not in agreement."""
    admin = AdminClient(kafka.properties({}))
    (asked,) = admin.describe_consumer_groups([group], request_timeout=ADMIN_TIMEOUT_S).values()
    try:
        described = asked.result(timeout=ADMIN_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].retriable() or error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return []
        raise BrokerFailed(f"group {group}: {error.args[0].str()}") from error
    if described.state != ConsumerGroupState.STABLE:
        return []
    return [len(member.assignment.topic_partitions) for member in described.members]


def create(kafka: KafkaOptions, names: Sequence[str], partitions: int = PARTITIONS) -> None:
    """Make topics and wait until their partitions are led: the controller knows a topic before its brokers do."""
    topics = Topics(kafka)
    topics.create(names, partitions)
    deadline = time.monotonic() + LED_TIMEOUT_S
    for name in names:
        while not _is_led(topics, name, partitions):
            if time.monotonic() > deadline:
                raise BrokerFailed(f"{name}: no leaders within {LED_TIMEOUT_S:g} s of its making")
            time.sleep(0.05)


def _is_led(topics: Topics, name: str, partitions: int) -> bool:
    try:
        return len(topics.end_offsets(name)) == partitions
    except BrokerFailed:  # also: not known yet
        return False


def delete(kafka: KafkaOptions, topics: Sequence[str]) -> None:
    """Ask for the topics to be deleted; whoever cannot be is left: it only takes room."""
    if topics:
        admin = AdminClient(kafka.properties({}))
        for deleted in admin.delete_topics(list(topics), operation_timeout=ADMIN_TIMEOUT_S).values():
            with suppress(KafkaException, TimeoutError):
                deleted.result(timeout=ADMIN_TIMEOUT_S)


def records_in(topics: Topics, topic: str) -> int:
    """How many offsets a fresh topic has given out: its records, and transaction markers."""
    return sum(topics.end_offsets(topic).values())
