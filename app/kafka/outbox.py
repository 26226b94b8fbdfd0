"""Predictions and dead letters into a producer's queue; shared by both delivery modes.

Partition of an output: `source` keeps the event's partition, `key` hashes the key as the
Java clients do, and a null key then takes the source partition (modulo the number there is). Almost no prediction
carries headers, so whole runs go through `produce_batch`, which takes none; a traced one and dead letters go through
`produce`, each in its place. What is for those who watch the model, a sample of the predictions and summaries, is
always partitioned by key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from app.clock import Clock
from app.errors import BrokerUnavailable, DeliveryFailed
from app.kafka.client_config import Properties, settings_accepted
from app.kafka.sample import sample_of
from app.records import DeadLetter, Headers, Predictions

ASK_TIMEOUT_S = 5.0
FOR_EVER_MS = 2**63 - 1
FRAMING_BYTES = 512  # a record's and its batch's own fields, with a margin
HEADER_FRAMING_BYTES = 10  # the lengths of one header's name and value
CLOCKS_DIFFER_MS = 60_000  # ours and the broker's: a timestamp nearer to a limit than this counts as beyond it
FULL_WAIT_S = 0.01
_HASHED = -1  # librdkafka's "let the partitioner choose"
_PASSING = {  # undelivered because of time or because we took them back: the transaction is done again
    KafkaError._MSG_TIMED_OUT,  # noqa: SLF001 - the client's names
    KafkaError._PURGE_QUEUE,  # noqa: SLF001
    KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
    KafkaError._FATAL,  # noqa: SLF001 - reported by the call that follows
    KafkaError.INVALID_PRODUCER_EPOCH,
    # a broker that died knows less of us than we thought: the producer is spent, the next one begins anew
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    KafkaError.UNKNOWN_PRODUCER_ID,
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
    """Where a pipeline's outputs go, and what the dead-letter topic takes: bytes, and timestamps around now.

    sample: where predictions of `sample_share` of all keys go as well, if their value and key are no longer than
    `sample_bytes`. summaries: where those go. None for nowhere.
    """

    predictions: str
    dead_letters: str
    partitioning: Literal["source", "key"] = "source"
    dead_letter_bytes: int = 1_000_000
    before_max_ms: int = FOR_EVER_MS
    after_max_ms: int = FOR_EVER_MS
    sample: str | None = None
    sample_share: float = 1.0
    sample_bytes: int = FOR_EVER_MS
    summaries: str | None = None


def new_producer(properties: Properties) -> Producer:
    """A producer, not connected yet. Raises BadSettings for properties the client refuses."""
    with settings_accepted():
        return Producer(properties)


class Outbox:
    """Fills one producer's queue and remembers refusals. Replaced together with its producer.

    asks_for_refusals: whether a refused prediction is told to us. The client pays for each record that is not refused
    as well, so a transaction, which cannot be committed with a refusal, does without until one fails.

    Every method lets the client's KafkaException through if the producer itself is spent: the client reports a
    fatal error from whatever call comes next.
    """

    def __init__(self, producer: Producer, topics: OutputTopics, max_queued_bytes: int, clock: Clock) -> None:
        self.producer = producer
        self._topics, self._clock = topics, clock
        self._max_queued_bytes = max_queued_bytes
        self._queued_bytes = 0  # since the queue was last seen empty: an upper bound
        self.asks_for_refusals = True
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
        if predictions.headers is None:
            self._put_runs(predictions)
        else:
            self._put_around_headers(predictions, predictions.headers)
        self._queued_bytes += int(predictions.sizes.sum())
        if self._topics.sample is not None and predictions.values:
            sample = sample_of(predictions, self._topics.sample_share, self._topics.sample_bytes)
            pairs = zip(sample.values, sample.keys, strict=True)
            messages = [{"value": value, "key": key} for value, key in pairs]
            self._queue(self._topics.sample, messages, _HASHED, "sampled predictions")
            self._queued_bytes += int(sample.sizes.sum())
        for letter in dead_letters:
            self._put_dead_letter(letter)

    def put_summaries(self, summaries: Sequence[tuple[bytes, bytes]]) -> None:
        """Queue these, (key, value) each. Raises as `put` does."""
        if self._topics.summaries is None or not summaries:
            return
        messages: list[dict[str, Any]] = [{"value": value, "key": key} for key, value in summaries]
        self._queue(self._topics.summaries, messages, _HASHED, "summaries")
        self._queued_bytes += sum(len(key) + len(value) for key, value in summaries)

    def _put_runs(self, predictions: Predictions) -> None:
        for partition, messages in self._grouped(predictions):
            self._queue(self._topics.predictions, messages, partition, "predictions")

    def _put_around_headers(self, predictions: Predictions, carried: Mapping[int, Headers]) -> None:
        """Those with headers singly, and between them whole runs: the order of every partition is kept."""
        callback = {"on_delivery": self._on_delivery} if self.asks_for_refusals else {}
        start = 0
        for row in sorted(carried):
            self._put_runs(predictions.between(start, row))
            ((partition, [message]),) = self._grouped(predictions.between(row, row + 1))
            fields = {**message, "partition": partition, "headers": list(carried[row]), **callback}
            self._produce(self._topics.predictions, fields, "a prediction")
            start = row + 1
        self._put_runs(predictions.between(start, len(predictions.values)))

    def _queue(self, topic: str, messages: list[dict[str, Any]], partition: int, what: str) -> None:
        """Messages of one target partition, in order."""
        callback = {"on_delivery": self._on_delivery} if self.asks_for_refusals else {}
        accepted = self.producer.produce_batch(topic, messages, partition=partition, **callback)
        if accepted != len(messages):
            errors = [message["_error"] for message in messages if "_error" in message]
            if errors[0].code() in _PRODUCER_SPENT:
                raise KafkaException(errors[0])
            raise DeliveryFailed(f"{len(errors)} {what} were not queued, the first: {errors[0]}")

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
        fields: dict[str, Any] = {
            "key": letter.key,
            "value": letter.value,
            "headers": list(letter.headers),
            "partition": self._target_of(letter),
            "on_delivery": self._on_delivery,
        }
        self._set_timestamp(fields, letter.timestamp_ms)
        self._fit(fields, letter)
        self._produce(self._topics.dead_letters, fields, "a dead letter")
        self._queued_bytes += _size(fields)

    def _produce(self, topic: str, fields: dict[str, Any], what: str) -> None:
        try:
            self.producer.produce(topic, **fields)
        except (BufferError, KafkaException) as exc:
            if isinstance(exc, KafkaException) and exc.args[0].code() in _PRODUCER_SPENT:
                raise
            raise DeliveryFailed(f"{what} was not queued: {exc}") from exc

    def _set_timestamp(self, fields: dict[str, Any], timestamp_ms: int | None) -> None:
        """The event's own; where the topic takes no such time, a header keeps it."""
        if timestamp_ms is None:
            return
        ahead_ms = timestamp_ms - self._clock.now_ms()
        if -self._topics.before_max_ms < ahead_ms - CLOCKS_DIFFER_MS and (
            ahead_ms + CLOCKS_DIFFER_MS < self._topics.after_max_ms
        ):
            fields["timestamp"] = timestamp_ms
        else:
            fields["headers"].append(("inference.timestamp_ms", str(timestamp_ms).encode()))

    def _fit(self, fields: dict[str, Any], letter: DeadLetter) -> None:
        """Leave the payload out if the topic does not take it; then the event's own key and headers.

        Our headers still say where the event is.
        """
        if _size(fields) > self._topics.dead_letter_bytes:
            fields["value"] = None
            fields["headers"].append(("inference.payload", b"omitted: too large"))
        if _size(fields) > self._topics.dead_letter_bytes:
            fields["key"] = None
            fields["headers"] = [*fields["headers"][letter.event_headers :], ("inference.key", b"omitted: too large")]
            fields["partition"] = letter.partition % self._partition_count(self._topics.dead_letters)

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self._refused is None:
            self._refused = error


def _size(fields: Mapping[str, Any]) -> int:
    """Of a record as it is sent, a little more than it will be."""
    headers = sum(len(name.encode()) + len(value or b"") + HEADER_FRAMING_BYTES for name, value in fields["headers"])
    return len(fields["key"] or b"") + len(fields["value"] or b"") + headers + FRAMING_BYTES
