"""The Kafka clients of the plain loops, tuned as the worker's are where it matters, and when they commit."""

import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer

from loadgen.bench.peers.job import PeerSettings

# At its default of 1,000 every librdkafka client stalls at some 119,000 records/s, mostly idle. Few users know it;
# the peers get it all the same, so that they are compared by what they do.
FETCH = {"fetch.queue.backoff.ms": 10}


def consumer(settings: PeerSettings) -> Consumer:
    """Subscribed, from the earliest record on, committing only when told."""
    made = Consumer(
        {
            "bootstrap.servers": settings.bootstrap,
            "group.id": settings.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **FETCH,
        }
    )
    made.subscribe([settings.input])
    return made


def taken(messages: list[Message]) -> list[Message]:
    """The records among what was consumed. Raises RuntimeError for an error among them."""
    for message in messages:
        error = message.error()
        if error is not None:
            raise RuntimeError(error.str())
    return messages


class Output:
    """An idempotent producer that notices refusals, and commits only what was acknowledged."""

    def __init__(self, settings: PeerSettings, source: Consumer) -> None:
        self._topic, self._source, self._commit_s = settings.output, source, settings.commit_s
        self._refused: KafkaError | None = None
        self._committed_at = time.monotonic()
        self._dirty = False
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap,
                "linger.ms": settings.linger_ms,
                "enable.idempotence": True,
                "acks": "all",
                "queue.buffering.max.messages": 500_000,
                "delivery.report.only.error": True,
                "on_delivery": self._note,
            }
        )

    def send(self, key: bytes | None, value: bytes) -> None:
        """One record; waits while the queue is full."""
        self._dirty = True
        while True:
            try:
                self._producer.produce(self._topic, value, key)
            except BufferError:
                self._producer.poll(0.01)
            else:
                break
        self._producer.poll(0)

    def send_all(self, records: list[tuple[bytes | None, bytes | None]]) -> None:
        """Many records in one call; waits while the queue is full."""
        self._dirty = True
        messages: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in records]
        while self._producer.produce_batch(self._topic, messages) < len(messages):
            self._producer.poll(0.01)
            messages = [{"key": left["key"], "value": left["value"]} for left in messages if "_error" in left]
        self._producer.poll(0)

    def commit_if_due(self) -> None:
        """Every commit_s: wait for the acknowledgements, then commit. Raises RuntimeError for a refusal."""
        now = time.monotonic()
        if not self._dirty or now - self._committed_at < self._commit_s:
            return
        self._producer.flush()
        if self._refused is not None:
            raise RuntimeError(self._refused.str())
        self._source.commit(asynchronous=True)
        self._committed_at, self._dirty = now, False

    def _note(self, error: KafkaError | None, _message: Message) -> None:
        self._refused = self._refused or error
