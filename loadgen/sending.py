"""Hands events to Kafka in bulk, and makes sure that every one of them was taken."""

import time
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from loadgen.errors import BadOption, BrokerFailed
from loadgen.event_stream import Chunk
from loadgen.kafka_client import ClientErrors, KafkaOptions
from loadgen.poison import POISON_HEADER

MAX_WAITING = 100_000  # events in the client's queue: half a second at 200,000/s, and under 64 MB of digits
WAIT_TIMEOUT_S = 60.0  # a full queue, or a last flush, that moves nothing for this long is a dead broker


class Sender(Protocol):
    """Where a producing run puts its events."""

    def send(self, chunk: Chunk, first: int, stop: int) -> None:
        """Send rows first to stop - 1 of the chunk, in order. May wait while too much is in flight."""

    def poll(self) -> None:
        """Notice what was acknowledged and what failed. Raises BrokerFailed if something did."""

    def finish(self) -> None:
        """Wait until everything is acknowledged. Raises BrokerFailed if something was not."""


class KafkaSender:
    """An idempotent producer that partitions keys like the Java clients.

    Nothing is acknowledged record by record; only failures are reported.
    """

    def __init__(self, kafka: KafkaOptions, topic: str, *, linger_ms: float) -> None:
        self._topic = topic
        self._errors = ClientErrors()
        self._refused = 0
        self._first_refusal: KafkaError | None = None
        defaults = {
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": linger_ms,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 2 * MAX_WAITING,
            "queue.buffering.max.kbytes": 1_048_576,
            # Only failures are reported: a callback per record would cost more than sending it.
            "delivery.report.only.error": True,
            "on_delivery": self._on_refused,
            "error_cb": self._errors,
        }
        try:
            self._producer = Producer(kafka.properties(defaults))
        except KafkaException as error:
            raise BadOption(f"--client: {error.args[0].str()}") from error

    def send(self, chunk: Chunk, first: int, stop: int) -> None:
        """See Sender."""
        start = first
        for row in sorted(row for row in chunk.poison if first <= row < stop):
            self._send_bulk(chunk, start, row)
            self._wait_for_room(1)
            # Only here: the bulk call carries no headers.
            self._producer.produce(
                self._topic,
                key=chunk.keys[row],
                value=chunk.values[row],
                headers={POISON_HEADER: chunk.poison[row].encode()},
            )
            start = row + 1
        self._send_bulk(chunk, start, stop)

    def _send_bulk(self, chunk: Chunk, first: int, stop: int) -> None:
        if first == stop:
            return
        self._wait_for_room(stop - first)
        messages = [
            {"key": key, "value": value}
            for key, value in zip(chunk.keys[first:stop], chunk.values[first:stop], strict=True)
        ]
        taken = self._producer.produce_batch(self._topic, messages)
        if taken != len(messages):
            reason = next(message["_error"] for message in messages if "_error" in message)
            raise BrokerFailed(f"{self._topic}: {len(messages) - taken} events were refused: {reason!r}")

    def poll(self) -> None:
        """See Sender."""
        self._producer.poll(0)
        if self._first_refusal is not None:
            raise BrokerFailed(f"{self._topic}: {self._refused} events were not delivered: {self._first_refusal.str()}")

    def finish(self) -> None:
        """See Sender."""
        self._wait_until(lambda waiting: waiting == 0, "the last events were not acknowledged")

    def _wait_for_room(self, events: int) -> None:
        self.poll()
        if len(self._producer) + events > MAX_WAITING:
            self._wait_until(lambda waiting: waiting + events <= MAX_WAITING or waiting == 0, "the queue stays full")

    def _wait_until(self, enough: "Condition", complaint: str) -> None:
        """Poll until enough has left the queue; bounded by WAIT_TIMEOUT_S without any movement."""
        waiting, moved_at = len(self._producer), time.monotonic()
        while not enough(waiting):
            if waiting and self._producer.flush(0.02) == 0:
                pass  # flush also ends the linger, which polling does not
            self.poll()
            now_waiting = len(self._producer)
            if now_waiting != waiting:
                waiting, moved_at = now_waiting, time.monotonic()
            elif time.monotonic() - moved_at > WAIT_TIMEOUT_S:
                raise BrokerFailed(f"{self._topic}: {complaint} within {WAIT_TIMEOUT_S:.0f} s{self._errors.suffix()}")
        self.poll()

    def _on_refused(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._refused += 1
            self._first_refusal = self._first_refusal or error


class Condition(Protocol):
    """Whether the number of waiting events is small enough."""

    def __call__(self, waiting: int) -> bool:
        """Return True to go on."""
