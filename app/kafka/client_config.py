"""Settings → librdkafka properties. The reasons for each value we fix are beside it."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from confluent_kafka import KafkaException

from app.errors import BadSettings

# Further properties users may set. Those that load code (plugin.library.paths, ssl.engine.location, …), write
# files, or undo a promise (enable.auto.commit, isolation.level, acks, …) are not among them.
ALLOWED_CLIENT_PROPERTIES = frozenset(
    {
        "broker.address.family",
        "broker.address.ttl",
        "client.dns.lookup",
        "client.rack",
        "connections.max.idle.ms",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.wait.max.ms",
        "heartbeat.interval.ms",
        "linger.ms",
        "max.partition.fetch.bytes",
        "max.poll.interval.ms",
        "message.max.bytes",
        "metadata.max.age.ms",
        "queued.min.messages",
        "receive.message.max.bytes",
        "reconnect.backoff.max.ms",
        "reconnect.backoff.ms",
        "retry.backoff.max.ms",
        "retry.backoff.ms",
        "socket.connection.setup.timeout.ms",
        "socket.keepalive.enable",
        "socket.receive.buffer.bytes",
        "socket.send.buffer.bytes",
        "socket.timeout.ms",
        "topic.metadata.refresh.interval.ms",
    }
)
# Which client a property belongs to; the others go to both.
_CONSUMER_ONLY = ("fetch.", "heartbeat.", "max.partition.", "max.poll.", "queued.")
_PRODUCER_ONLY = ("linger.", "message.max.")

# With its next heartbeat a member hears of a rebalance: however long its session, not later than with the default one.
HEARTBEAT_MOST_MS = 2_000
HEARTBEATS_LEAST = 3  # in a session; with fewer one that comes late is the end of it

LARGEST_MESSAGE_BYTES = 1_000_000_000  # what the client allows
LARGEST_BATCH_BYTES = 1_000_000  # the client's default

Properties = dict[str, Any]  # text, numbers, truth values; and the logger


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """How to reach the cluster. `security` and `extra` are librdkafka properties."""

    bootstrap_servers: str
    client_id: str
    security: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refused = sorted(self.extra.keys() - ALLOWED_CLIENT_PROPERTIES)
        if refused:
            allowed = ", ".join(sorted(ALLOWED_CLIENT_PROPERTIES))
            raise BadSettings(f"kafka.client: {', '.join(refused)} may not be set; allowed are {allowed}")


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """Membership of the consumer group. `instance_id` makes it static (classic only)."""

    group_id: str
    protocol: Literal["classic", "consumer"] = "classic"
    session_timeout_s: float = 10.0
    instance_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """`transactional_id` is None in at-least-once."""

    transactional_id: str | None
    commit_interval_s: float = 0.1
    transaction_timeout_s: float = 10.0
    compression: str = "none"
    max_queued_bytes: int = 32 * 1024 * 1024
    max_message_bytes: int = 1_000_000
    max_batch_bytes: int = 1_000_000


@contextmanager
def settings_accepted() -> Iterator[None]:
    """Around the making of a client: properties it refuses are BadSettings."""
    try:
        yield
    except KafkaException as exc:
        text = exc.args[0].str()
        hint = " (the wrong key_password, or no PEM file?)" if "ssl.key.location" in text else ""
        raise BadSettings(f"kafka: the client refuses its settings: {text}{hint}") from exc


def admin_properties(policy: ClientPolicy) -> Properties:
    """For metadata and start-up checks."""
    return _common(policy, (*_CONSUMER_ONLY, *_PRODUCER_ONLY))


def consumer_properties(policy: ClientPolicy, group: GroupPolicy, queue_bytes: int) -> Properties:
    """For the pipeline's one consumer; at most about `queue_bytes` of fetched records wait in the client."""
    properties: Properties = {
        "group.id": group.group_id,
        "group.protocol": group.protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",  # told to us, who log and count it; the client would start anywhere silently
        # At its default of 1 s a client that has caught up with its queue limit sits idle most of the time.
        "fetch.queue.backoff.ms": 10,
        # An overhead of ~250 bytes a record is not counted in the limit by size, so bound the number too: a partition
        # then has these and one fetch more, some 13,000 small records.
        "queued.min.messages": 5_000,
        "fetch.message.max.bytes": 512 * 1024,
        "queued.max.messages.kbytes": max(1024, queue_bytes // 1024),
    }
    if group.protocol == "classic":
        session_ms = int(group.session_timeout_s * 1000)
        _check_heartbeat(policy.extra.get("heartbeat.interval.ms"), session_ms)
        properties |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": max(1, min(session_ms // 5, HEARTBEAT_MOST_MS)),
        }
        if group.instance_id:
            properties["group.instance.id"] = group.instance_id
    return properties | _common(policy, _PRODUCER_ONLY)


def outsider(policy: ClientPolicy) -> ClientPolicy:
    """The same for a consumer that joins no group: what users say of members may not fit the session it never has."""
    extra = {name: value for name, value in policy.extra.items() if not name.startswith(("heartbeat.", "max.poll."))}
    return replace(policy, extra=extra)


def producer_properties(policy: ClientPolicy, delivery: DeliveryPolicy) -> Properties:
    """For the pipeline's one producer."""
    properties: Properties = {
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": delivery.compression,
        "partitioner": "murmur2_random",  # as the Java clients
        "batch.num.messages": 10_000,
        # No bounds but the outbox's own, which is asked before a batch: a queue that is full in mid-batch reorders.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2_147_483_647,
        # One shared callback that sees only refusals; the client itself still looks at each record's report.
        "delivery.report.only.error": True,
    }
    if delivery.transactional_id is None:
        properties |= {
            "message.timeout.ms": 0,  # retries in order, for as long as it takes
            "linger.ms": 0,  # 0.5 cost 1 ms of latency (timer granularity) and gained nothing under load
        }
    else:
        timeout_ms = int(delivery.transaction_timeout_s * 1000)
        properties |= {
            "transactional.id": delivery.transactional_id,
            "transaction.timeout.ms": timeout_ms,
            "message.timeout.ms": timeout_ms,
            "linger.ms": 5,  # committing flushes at once whatever this says
            # Right after a commit the coordinator may still be writing its markers, and refuses the offsets of the next
            # transaction until it has; the default of 100 ms between tries was the p99 of latency at 1,000/s.
            "retry.backoff.ms": 5,
        }
    sizes: Properties = {
        "message.max.bytes": min(delivery.max_message_bytes, LARGEST_MESSAGE_BYTES),
        "batch.size": min(delivery.max_batch_bytes, LARGEST_BATCH_BYTES),  # a topic refuses larger batches whole
    }
    merged = properties | _common(policy, _CONSUMER_ONLY) | sizes
    if delivery.transactional_id is not None:  # the client refuses to wait longer for a socket than for a transaction
        merged["socket.timeout.ms"] = min(int(merged["socket.timeout.ms"]), merged["transaction.timeout.ms"])
    return merged


def _check_heartbeat(asked: str | float | None, session_ms: int) -> None:
    """Raises BadSettings. The client takes any; with one too long its members are expelled again and again."""
    try:
        interval_ms = float(asked or 0)
    except ValueError:
        return  # the client says what it makes of that
    most_ms = session_ms // HEARTBEATS_LEAST
    if interval_ms > most_ms:
        raise BadSettings(
            f"kafka.client: heartbeat.interval.ms {asked} is more than a third of session_timeout_s: "
            f"at most {most_ms} with {session_ms / 1000:g} s"
        )


def _common(policy: ClientPolicy, not_for_this_client: tuple[str, ...]) -> Properties:
    extra = {name: value for name, value in policy.extra.items() if not name.startswith(not_for_this_client)}
    return {
        "bootstrap.servers": policy.bootstrap_servers,
        "client.id": policy.client_id,
        "socket.nagle.disable": True,
        # A broker that is frozen or cut off answers nothing: at the default of 60 s that is how long we would wait.
        "socket.timeout.ms": 10_000,
        # What matters comes through the error callback, once; fatal errors are printed all the same, so they get
        # a logger, whose lines `observe/log.py` puts into our format.
        "log_level": 0,
        "logger": logging.getLogger("librdkafka"),
        **policy.security,
        **extra,
    }
