"""Predictions and dead letters into a producer's queue; shared by both delivery modes.

Partition of an output: `source` keeps the event's partition, `key` hashes the key as the
Java clients do, and a null key then takes the source partition (modulo the number there is). Predictions carry
no headers, so whole runs go through `produce_batch`; dead letters carry headers and go through `produce`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from app.errors import BrokerUnavailable, DeliveryFailed
from app.kafka.client_config import Properties, settings_accepted
from app.records import DeadLetter, Predictions

ASK_TIMEOUT_S = 5.0
FULL_WAIT_S = 0.01
_HASHED = -1  # librdkafka's "let the partitioner choose"
_PASSING = {  # undelivered because of time or because we took them back: the transaction is done again
    KafkaError._MSG_TIMED_OUT,  # noqa: SLF001 - the client's names
    KafkaError._PURGE_QUEUE,  # noqa: SLF001
    KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
    KafkaError._FATAL,  # noqa: SLF001 - reported by the call that follows
    KafkaError.INVALID_PRODUCER_EPOCH,
}
_PRODUCER_SPENT = {  # it takes nothing more: not a judgement on the record at hand
    KafkaError._STATE,  # noqa: SLF001 - the open transaction has failed already
    KafkaError._FATAL,  # noqa: SLF001
    KafkaError._FENCED,  # noqa: SLF001
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
}


@dataclass(frozen=True, slots=True)
class OutputTopics:
    """Where a pipeline's outputs go."""

    predictions: str
    dead_letters: str
    partitioning: Literal["source", "key"] = "source"


def new_producer(properties: Properties) -> Producer:
    """A producer, not connected yet. Raises BadSettings for properties the client refuses."""
    with settings_accepted():
        return Producer(properties)


class Outbox:
    """Fills one producer's queue and remembers refusals. Replaced together with its producer.

    Every method lets the client's KafkaException through if the producer itself is spent: the client reports a
    fatal error from whatever call comes next.
    """

    def __init__(self, producer: Producer, topics: OutputTopics, max_queued_bytes: int) -> None:
        self.producer = producer
        self._topics = topics
        self._max_queued_bytes = max_queued_bytes
        self._queued_bytes = 0  # since the queue was last seen empty: an upper bound
        self._refused: KafkaError | None = None
        self._partition_counts: dict[str, int] = {}

    def has_room(self) -> bool:
        """Whether the queue is below its bound; serves callbacks, for a while if it is not."""
        self.producer.poll(0 if self._queued_bytes < self._max_queued_bytes else FULL_WAIT_S)
        if self._queued_bytes >= self._max_queued_bytes and not len(self.producer):
            self._queued_bytes = 0
        return self._queued_bytes < self._max_queued_bytes

    def drained(self) -> bool:
        """Whether everything queued was acknowledged or refused; serves callbacks."""
        self.producer.poll(0)
        if len(self.producer):
            return False
        self._queued_bytes = 0
        return True

    def raise_refusal(self, *, passing: bool) -> None:
        """Raises DeliveryFailed if a record was refused since the last call.

        passing: not for reasons that will pass, because the caller delivers the record again.
        """
        refused, self._refused = self._refused, None
        if refused is not None and not (passing and refused.code() in _PASSING):
            raise DeliveryFailed(f"the broker refused a record: {refused.name()}: {refused.str()}")

    def put(self, predictions: Predictions, dead_letters: Sequence[DeadLetter]) -> None:
        """Queue everything, in order. Raises DeliveryFailed for what the client itself refuses."""
        for partition, messages in self._grouped(predictions):
            accepted = self.producer.produce_batch(
                self._topics.predictions, messages, partition=partition, on_delivery=self._on_delivery
            )
            if accepted != len(messages):
                errors = [message["_error"] for message in messages if "_error" in message]
                if errors[0].code() in _PRODUCER_SPENT:
                    raise KafkaException(errors[0])
                raise DeliveryFailed(f"{len(errors)} predictions were not queued, the first: {errors[0]}")
        self._queued_bytes += sum(map(len, predictions.values))
        for letter in dead_letters:
            self._put_dead_letter(letter)

    def _grouped(self, predictions: Predictions) -> list[tuple[int, list[dict[str, Any]]]]:
        """Runs for `produce_batch` by target partition; within a partition the order is kept."""
        values, keys, partitions = predictions.values, predictions.keys, predictions.partitions
        if not values:
            return []
        if self._topics.partitioning == "key":
            return self._runs_by_key(predictions)
        first = int(partitions[0])
        if (partitions == first).all():
            return [(first, [{"value": value, "key": key} for value, key in zip(values, keys, strict=True)])]
        order = np.argsort(partitions, kind="stable")
        ends = np.flatnonzero(np.diff(partitions[order])) + 1
        return [
            (int(partitions[rows[0]]), [{"value": values[row], "key": keys[row]} for row in rows.tolist()])
            for rows in np.split(order, ends)
        ]

    def _runs_by_key(self, predictions: Predictions) -> list[tuple[int, list[dict[str, Any]]]]:
        """Consecutive runs with one target each: `produce_batch` has one partition for all its messages."""
        values, keys = predictions.values, predictions.keys
        if None not in keys:
            targets = [_HASHED] * len(keys)
        else:
            count = self._partition_count(self._topics.predictions)
            sources = predictions.partitions.tolist()
            targets = [source % count if key is None else _HASHED for key, source in zip(keys, sources, strict=True)]
        rows = zip(targets, values, keys, strict=True)
        return [
            (target, [{"value": value, "key": key} for _, value, key in run])
            for target, run in groupby(rows, key=itemgetter(0))
        ]

    def _partition_count(self, topic: str) -> int:
        """How many partitions the topic has; asked once per producer. Raises BrokerUnavailable."""
        if topic not in self._partition_counts:
            try:
                known = self.producer.list_topics(topic, timeout=ASK_TIMEOUT_S).topics[topic]
            except KafkaException as exc:
                raise BrokerUnavailable(f"the partitions of {topic} are not known: {exc}") from exc
            if not known.partitions:
                raise BrokerUnavailable(f"the partitions of {topic} are not known: {known.error}")
            self._partition_counts[topic] = len(known.partitions)
        return self._partition_counts[topic]

    def _target_of(self, letter: DeadLetter) -> int:
        if self._topics.partitioning == "source":
            return letter.partition
        if letter.key is not None:
            return _HASHED
        return letter.partition % self._partition_count(self._topics.dead_letters)

    def _put_dead_letter(self, letter: DeadLetter) -> None:
        partition = self._target_of(letter)
        fields: dict[str, Any] = {
            "key": letter.key,
            "headers": list(letter.headers),
            "partition": partition,
            "on_delivery": self._on_delivery,
        }
        if letter.timestamp_ms is not None:
            fields["timestamp"] = letter.timestamp_ms
        try:
            self._produce_within_limit(letter.value, fields)
        except (BufferError, KafkaException) as exc:
            if isinstance(exc, KafkaException) and exc.args[0].code() in _PRODUCER_SPENT:
                raise
            raise DeliveryFailed(f"a dead letter was not queued: {exc}") from exc
        self._queued_bytes += len(letter.value or b"") + len(letter.key or b"")

    def _produce_within_limit(self, value: bytes | None, fields: dict[str, Any]) -> None:
        """Without its payload if only that makes it too large: the headers still say where the event is."""
        try:
            self.producer.produce(self._topics.dead_letters, value=value, **fields)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise
            fields["headers"].append(("inference.payload", b"omitted: too large"))
            self.producer.produce(self._topics.dead_letters, value=None, **fields)

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self._refused is None:
            self._refused = error
