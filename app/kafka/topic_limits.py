"""What the output topics take: a producer that knows it refuses a record itself, and the record is dead-lettered.

A refusal by the broker comes too late for that: the transaction is lost with it, or its neighbours are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]

from app.errors import BadSettings
from app.kafka.client_config import ClientPolicy, admin_properties
from app.kafka.outbox import FOR_EVER_MS, FRAMING_BYTES

ANSWER_WITHIN_S = 10.0
CLIENT_DEFAULT_BYTES = 1_000_000  # the client's own message.max.bytes, a little below the broker's


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """Bytes of one record with its framing; how far before and after the broker's now a dead letter's time may be.

    sample_bytes, summary_bytes: None where there is no such topic.
    """

    prediction_bytes: int = CLIENT_DEFAULT_BYTES
    dead_letter_bytes: int = CLIENT_DEFAULT_BYTES
    before_max_ms: int = FOR_EVER_MS
    after_max_ms: int = FOR_EVER_MS
    sample_bytes: int | None = None
    summary_bytes: int | None = None

    @property
    def max_batch_bytes(self) -> int:
        """What every topic takes at once: each refuses a larger batch whole."""
        of_all = (self.prediction_bytes, self.dead_letter_bytes, self.sample_bytes, self.summary_bytes)
        return min(limit for limit in of_all if limit is not None)

    @property
    def max_output_bytes(self) -> int:
        """Of a prediction and its key together."""
        return max(1, self.prediction_bytes - FRAMING_BYTES)


def topic_limits(
    policy: ClientPolicy,
    predictions: str,
    dead_letters: str,
    *,
    sample: str | None = None,
    summaries: str | None = None,
) -> TopicLimits:
    """What the topics say, or `message.max.bytes` of the settings where that is lower.

    Without permission to ask (DescribeConfigs on the topics) the client's own default stands, and it is logged.
    """
    most = _most(policy)
    configs = _configs(policy, *(topic for topic in (predictions, dead_letters, sample, summaries) if topic))
    bytes_of = {
        topic: min(most or FOR_EVER_MS, _number(config, "max.message.bytes", most or CLIENT_DEFAULT_BYTES))
        for topic, config in configs.items()
    }
    return TopicLimits(
        prediction_bytes=bytes_of[predictions],
        dead_letter_bytes=bytes_of[dead_letters],
        before_max_ms=_number(configs[dead_letters], "message.timestamp.before.max.ms", FOR_EVER_MS),
        after_max_ms=_number(configs[dead_letters], "message.timestamp.after.max.ms", FOR_EVER_MS),
        sample_bytes=bytes_of[sample] if sample else None,
        summary_bytes=bytes_of[summaries] if summaries else None,
    )


def _configs(policy: ClientPolicy, *topics: str) -> dict[str, Mapping[str, ConfigEntry]]:
    admin = AdminClient(admin_properties(policy))
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    found: dict[str, Mapping[str, ConfigEntry]] = {}
    for resource, future in admin.describe_configs(resources, request_timeout=ANSWER_WITHIN_S).items():
        try:
            found[resource.name] = future.result(timeout=ANSWER_WITHIN_S)
        except (KafkaException, TimeoutError) as exc:
            structlog.get_logger().warning("topic_limits_unknown", topic=resource.name, reason=str(exc))
            found[resource.name] = {}
    return found


def _most(policy: ClientPolicy) -> int | None:
    told = policy.extra.get("message.max.bytes")
    try:
        return None if told is None else int(told)
    except ValueError as exc:
        raise BadSettings(f"kafka.client: message.max.bytes is a number of bytes, found {told!r}") from exc


def _number(config: Mapping[str, ConfigEntry], name: str, otherwise: int) -> int:
    entry = config.get(name)
    return otherwise if entry is None or entry.value is None else int(entry.value)
