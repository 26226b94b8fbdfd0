"""How to reach Kafka: the options every client shares, topics, and what its errors mean to us."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined] # exported, untyped
from confluent_kafka.cimpl import NewTopic

from loadgen.errors import BadOption, BrokerFailed

ADMIN_TIMEOUT_S = 15.0
ASK_AGAIN_S = 0.2
# Of one question for offsets: the client may wait all its time for a leader that it missed, and is told by the next.
OFFSETS_TIMEOUT_S = 3.0

# The client would print a line for each attempt to connect, 20 a second; what matters is in our own messages.
QUIET = {"log_level": 2}

# While these last, the client goes on trying by itself; our own timeouts bound the wait.
PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - the library's own public error codes begin with _
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)

# A partition is just getting a leader, or the client or the broker does not know it yet.
LEADER_MOVES = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError._NOENT,  # noqa: SLF001 - of no partition, as the client's admin says it
    }
)


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """bootstrap_servers: host:port, … client: further librdkafka properties, which win over ours."""

    bootstrap_servers: str
    client: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def parse(bootstrap_servers: str, properties: Sequence[str]) -> "KafkaOptions":
        """From the command line's `--client key=value`. Raises BadOption for one without a key or `=`."""
        client = {}
        for entry in properties:
            key, equals, value = entry.partition("=")
            if not key or not equals:
                raise BadOption(f"--client {entry!r}: key=value is needed, as in security.protocol=SASL_SSL")
            client[key.strip()] = value
        return KafkaOptions(bootstrap_servers, client)

    def properties(self, defaults: Mapping[str, object]) -> dict[str, Any]:
        """Return the configuration of one client."""
        return {"bootstrap.servers": self.bootstrap_servers, **QUIET, **defaults, **self.client}


class ClientErrors:
    """Remembers the last error a client reported outside any call, to name the cause of a timeout."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Librdkafka's error callback."""
        self.last = error

    def suffix(self) -> str:
        """Return the error in parentheses, or nothing."""
        return f" ({self.last.str()})" if self.last else ""


class Topics:
    """Questions and orders about topics, each bounded in time."""

    def __init__(self, kafka: KafkaOptions) -> None:
        self._where = kafka.bootstrap_servers
        self._errors = ClientErrors()
        try:
            self._admin = AdminClient(kafka.properties({"error_cb": self._errors}))
        except KafkaException as error:
            raise BadOption(f"--client: {error.args[0].str()}") from error

    def partitions(self, topic: str) -> list[int]:
        """Return the partitions of a topic. Raises BrokerFailed if there is none, or no broker."""
        try:
            # All topics: to ask for one by name would create it where the broker creates topics by itself.
            metadata = self._admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics.get(topic)
        except KafkaException as error:
            self._admin.poll(0)
            raise BrokerFailed(f"{self._where}: {error.args[0].str()}{self._errors.suffix()}") from error
        if metadata is None or metadata.error is not None:
            raise BrokerFailed(f"topic {topic} does not exist (--create-topics makes it)")
        return sorted(metadata.partitions)

    def create(self, topics: Sequence[str], partitions: int) -> list[str]:
        """Make the topics that are not there yet; returns those made. Replication is the broker's default."""
        if partitions < 1:
            raise BadOption("--partitions: 1 or more")
        wanted = [NewTopic(topic, num_partitions=partitions, replication_factor=-1) for topic in topics]
        made = []
        for topic, future in self._admin.create_topics(wanted, operation_timeout=ADMIN_TIMEOUT_S).items():
            try:
                future.result(timeout=ADMIN_TIMEOUT_S)
                made.append(topic)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise BrokerFailed(f"cannot create topic {topic}: {error.args[0].str()}") from error
            except TimeoutError as error:
                raise BrokerFailed(f"cannot create topic {topic}: no answer{self._errors.suffix()}") from error
        return made

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Per partition, the offset the next record will get."""
        return self._offsets(topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def first_offsets(self, topic: str) -> dict[int, int]:
        """Per partition, the lowest offset that retention has left."""
        return self._offsets(topic, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def _offsets(self, topic: str, which: OffsetSpec) -> dict[int, int]:
        until = time.monotonic() + ADMIN_TIMEOUT_S
        while True:
            # each time, because with the partitions the client hears of their leaders
            asked = {TopicPartition(topic, partition): which for partition in self.partitions(topic)}
            try:
                return self._answered(asked)
            except KafkaException as error:
                if error.args[0].code() not in LEADER_MOVES | PASSING or time.monotonic() > until:
                    raise BrokerFailed(f"{topic}: {error.args[0].str()}{self._errors.suffix()}") from error
            except TimeoutError as error:
                raise BrokerFailed(f"{topic}: no offsets{self._errors.suffix()}") from error
            time.sleep(ASK_AGAIN_S)

    def _answered(self, asked: dict[TopicPartition, OffsetSpec]) -> dict[int, int]:
        futures = self._admin.list_offsets(asked, request_timeout=OFFSETS_TIMEOUT_S)
        return {place.partition: future.result(timeout=ADMIN_TIMEOUT_S).offset for place, future in futures.items()}
