"""Topics that a program keeps for itself: made if they are not there, refused if they are not what they have to be."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from app.errors import BrokerRefused
from app.kafka.client_config import Properties, settings_accepted

WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class OwnTopic:
    """partitions: exactly so many. compacted: the newest record of each key is kept."""

    name: str
    partitions: int
    compacted: bool


def partition_counts(properties: Properties, topics: Iterable[str]) -> dict[str, int]:
    """How many partitions each topic has. Raises BrokerRefused if the broker does not answer, or one is not there."""
    with settings_accepted():
        admin = AdminClient(properties)
    counts = {}
    try:
        for name in dict.fromkeys(topics):
            found = admin.list_topics(name, timeout=WITHIN_S).topics[name]
            if found.error is not None:
                raise BrokerRefused(f"topic {name}: {found.error.str()}")
            counts[name] = len(found.partitions)
    except KafkaException as exc:
        raise BrokerRefused(f"the broker does not answer: {exc.args[0].str()}") from exc
    return counts


def make_topics(properties: Properties, wanted: Sequence[OwnTopic], replication: int) -> None:
    """True afterwards: all of them are there, with so many partitions. Raises BrokerRefused."""
    with settings_accepted():
        admin = AdminClient(properties)
    new = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=replication,
            config={"cleanup.policy": "compact"} if topic.compacted else {},
        )
        for topic in wanted
    ]
    futures: Mapping[str, Future[None]] = admin.create_topics(new, operation_timeout=WITHIN_S) if new else {}
    for name, future in futures.items():
        try:
            future.result(WITHIN_S)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BrokerRefused(f"topic {name} cannot be made: {exc.args[0].str()}") from exc
    for topic in wanted:
        _check(topic, _known(admin, topic.name))


def _known(admin: AdminClient, name: str) -> int:
    """The partitions of a topic that is there, or was made a moment ago; 0 if it is not."""
    found = admin.list_topics(name, timeout=WITHIN_S).topics[name]
    return 0 if found.error is not None else len(found.partitions)


def _check(topic: OwnTopic, partitions: int) -> None:
    if partitions not in {0, topic.partitions}:  # 0: made a moment ago, and not known everywhere yet
        raise BrokerRefused(
            f"topic {topic.name} has {partitions} partitions, not {topic.partitions} as what is read: the number of "
            "partitions was changed; delete the monitor's own topics, or choose another monitor.group_id"
        )
