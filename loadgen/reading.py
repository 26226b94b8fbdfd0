"""Reads a topic to its end, and on from there, as columns."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, cast

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from numpy.typing import NDArray

from loadgen.errors import BadOption, BrokerFailed
from loadgen.kafka_client import PASSING, ClientErrors, KafkaOptions

PARTITION_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - the library's own public error codes begin with _
MAX_RECORDS = 5000

Headers = Sequence[tuple[str, bytes | None]] | None


@dataclass(frozen=True, slots=True)
class Records:
    """n records of one topic, in the order read, which is offset order within a partition.

    received_ms: wall clock when they were handed to us; one value, they came together. headers: empty
    unless asked for.
    """

    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    received_ms: float
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]

    def __len__(self) -> int:
        return len(self.values)


class TopicReader:
    """Reads committed records of all partitions of a topic, without a group and committing nothing."""

    def __init__(
        self, kafka: KafkaOptions, topic: str, start: Mapping[int, int], *, with_headers: bool = False
    ) -> None:
        """start: the first offset to read, for each partition."""
        self.topic = topic
        self._with_headers = with_headers
        self._errors = ClientErrors()
        self._positions = dict(start)
        self._ended: set[int] = set()
        defaults = {
            "group.id": "loadgen",  # the client insists on one; it is never used
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 10,  # at its default, 1000, reading stalls at ~119,000 records/s
            "queued.max.messages.kbytes": 65_536,
            "error_cb": self._errors,
        }
        try:
            self._consumer = Consumer(kafka.properties(defaults))
        except KafkaException as error:
            raise BadOption(f"--client: {error.args[0].str()}") from error
        self._consumer.assign([TopicPartition(topic, number, offset) for number, offset in start.items()])

    @property
    def at_end(self) -> bool:
        """Every partition has been read up to its last committed record, as of the last read."""
        return self._ended == self._positions.keys()

    def has_read(self, ends: Mapping[int, int]) -> bool:
        """Every record before these offsets, one per partition, has been returned."""
        return all(self._positions[partition] >= end for partition, end in ends.items())

    def read(self, wait_s: float) -> Records:
        """Return what is there, MAX_RECORDS at most, each record once.

        Waits up to wait_s for the first record, never for a full batch. Raises BrokerFailed for an error that
        will not pass by itself.
        """
        messages = self._consumer.consume(1, wait_s)
        if messages:
            messages += self._consumer.consume(MAX_RECORDS - 1, 0)
        received_ms = time.time_ns() / 1e6
        good = [message for message in messages if message.error() is None]
        partition = np.array([message.partition() for message in good], dtype=np.int32)
        offset = np.array([message.offset() for message in good], dtype=np.int64)
        self._ended.difference_update(np.unique(partition).tolist())
        if len(good) != len(messages):
            self._note_errors(messages)
        new = self._not_read_before(partition, offset)
        good, partition, offset = list(compress(good, new)), partition[new], offset[new]
        return Records(
            partition=partition,
            offset=offset,
            timestamp_ms=np.array([message.timestamp()[1] for message in good], dtype=np.int64),
            received_ms=received_ms,
            keys=[message.key() for message in good],
            values=[message.value() for message in good],
            headers=[cast("Headers", message.headers()) for message in good] if self._with_headers else [],
        )

    def _not_read_before(self, partition: NDArray[np.int32], offset: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mark what lies at or after each partition's position, and move the positions behind it.

        The client may go back by itself when a partition's leader changes; who counts records would count some twice.
        """
        new = np.ones(len(offset), dtype=np.bool_)
        for number in np.unique(partition).tolist():
            rows = partition == number
            behind = np.maximum.accumulate(np.append(self._positions[number], offset[rows] + 1))
            new[rows] = offset[rows] >= behind[:-1]
            self._positions[number] = int(behind[-1])
        return new

    def _note_errors(self, messages: list[Any]) -> None:
        last_record = {m.partition(): at for at, m in enumerate(messages) if m.error() is None}
        for at, message in enumerate(messages):
            error = message.error()
            if error is None:
                continue
            if error.code() == PARTITION_EOF:
                if last_record.get(message.partition(), -1) < at:
                    self._ended.add(message.partition())
            elif error.code() not in PASSING:
                raise BrokerFailed(f"{self.topic}: {error.str()}{self._errors.suffix()}")

    def complaint(self) -> str:
        """Return the client's last error outside any call, in parentheses; empty if there was none."""
        return self._errors.suffix()

    def close(self) -> None:
        """End the client."""
        self._consumer.close()
