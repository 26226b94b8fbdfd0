"""A shadow's comparisons into their topic. Nobody waits for them: what does not fit or is refused is counted."""

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message

from app.errors import BrokerRefused
from app.kafka.client_config import ClientPolicy, Properties, admin_properties
from app.kafka.outbox import new_producer

ASK_TIMEOUT_S = 10.0
CLOSE_WITHIN_S = 1.0  # below what the worker gives a shadow to end
_HASHED = -1  # the partitioner chooses


class Comparisons:
    """One topic's producer: no transaction, bounded in bytes and in time, keys hashed as by the Java clients."""

    def __init__(self, policy: ClientPolicy, topic: str, *, max_queued_bytes: int) -> None:
        """Raises BrokerRefused if there is no such topic, or nobody tells."""
        properties: Properties = admin_properties(policy) | {
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "queue.buffering.max.kbytes": max(1024, max_queued_bytes // 1024),
            "message.timeout.ms": 30_000,
            "delivery.report.only.error": True,
        }
        self._topic = topic
        self._lost = 0
        self._producer = new_producer(properties)
        try:
            known = self._producer.list_topics(topic, timeout=ASK_TIMEOUT_S).topics[topic]
        except KafkaException as exc:
            raise BrokerRefused(f"shadow topic {topic}: {exc.args[0].str()}") from exc
        if known.error is not None:
            raise BrokerRefused(f"shadow topic {topic}: {known.error.str()}")

    def publish(self, values: Sequence[bytes], keys: Sequence[bytes | None]) -> int:
        """Queue them; returns how many are lost by now: these, and earlier ones that the broker did not take."""
        messages: list[dict[str, Any]] = [{"value": value, "key": key} for value, key in zip(values, keys, strict=True)]
        self._producer.poll(0)
        try:
            queued = self._producer.produce_batch(self._topic, messages, partition=_HASHED, on_delivery=self._refused)
        except KafkaException:
            queued = 0
        lost, self._lost = self._lost + len(messages) - queued, 0
        return lost

    def close(self) -> None:
        """Send what is queued, within a bound."""
        self._producer.flush(CLOSE_WITHIN_S)

    def _refused(self, error: KafkaError | None, _message: Message) -> None:
        self._lost += error is not None
