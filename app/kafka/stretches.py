"""Reads stretches of partitions in nobody's name: which offsets hold a record, and when the first was written.

Reads committed records, by an assignment of its own: no group is joined and no offset committed.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

import numpy as np
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from app.group_marks import RecordsSeen, Stretch
from app.kafka.client_config import (
    ClientPolicy,
    GroupPolicy,
    Properties,
    consumer_properties,
    outsider,
    settings_accepted,
)
from app.records import TopicPartition

CALL_WITHIN_S = 5.0
SILENT_S = 10.0  # whatever time there is, nothing more is expected after so long without anything
MESSAGES_AT_ONCE = 1000
MOST_NAMED = 3  # of partitions that could not be read, in one line of the log
# Of many partitions little is wanted, one record or a few: a fetch brings no more than that (a batch comes whole all
# the same). Of few partitions much: then each fetch costs a round trip.
FEW_RECORDS = 1_000
SMALL_FETCH_BYTES, LARGE_FETCH_BYTES = 65_536, 1_048_576
RESPONSE_BYTES = 8 * 1024 * 1024
QUEUE_BYTES = 8 * 1024 * 1024


class StretchReader:
    """One thread only."""

    def __init__(
        self,
        policy: ClientPolicy,
        group_id: str,
        read_within_s: float | None,
        on_error: Callable[[KafkaError], None],
    ) -> None:
        """group_id: one whose coordinator it may ask for, which the client does in any case.

        read_within_s: how long one reading may take; None: as long as it takes. Raises BadSettings.
        """
        self._read_within_s = read_within_s
        self._log = structlog.get_logger()
        with settings_accepted():
            self._small, self._large = (
                Consumer({**_reading(policy, group_id, size), "error_cb": on_error})
                for size in (SMALL_FETCH_BYTES, LARGE_FETCH_BYTES)
            )

    def records(self, stretches: Mapping[TopicPartition, Stretch]) -> Mapping[TopicPartition, RecordsSeen]:
        """What is in these stretches, as far as it could be read in time; those never read are absent."""
        reading, failed = _Reading(stretches), dict[str, str]()
        left, patience = Left(self._read_within_s), Left(SILENT_S)
        much = max(stretch.most for stretch in stretches.values()) > FEW_RECORDS
        reader = self._large if much else self._small
        try:
            reader.assign([ClientPartition(*source, stretch.first) for source, stretch in stretches.items()])
            while reading.open and left.s > 0 and patience.s > 0:
                done = []
                messages = reader.consume(MESSAGES_AT_ONCE, min(0.2, left.s))
                if messages:
                    patience = Left(SILENT_S)
                for message in messages:
                    error = message.error()
                    if error is None or error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's name
                        done += reading.take(message)
                    elif message.topic() is not None:
                        failed[f"{message.topic()}[{message.partition()}]"] = f"{error.name()}: {error.str()}"
                        done += reading.give_up(message)
                if done:
                    reader.pause(done)
        except KafkaException as exc:
            failed["reader"] = words(exc)
        finally:
            self._let_go(reader, stretches)
        if failed:
            self._log.warning("records_not_read", partitions=len(failed), why=dict(islice(failed.items(), MOST_NAMED)))
        return reading.seen()

    def close(self) -> None:
        """Let go of the broker."""
        self._small.close()
        self._large.close()

    def _let_go(self, reader: Consumer, sources: Iterable[TopicPartition]) -> None:
        try:
            # paused partitions would be paused still when they are assigned again
            reader.resume([ClientPartition(*source) for source in sources])
            reader.unassign()
        except KafkaException as exc:
            self._log.warning("reader_not_unassigned", reason=words(exc))


class Left:
    """The time that is left of a bound."""

    def __init__(self, within_s: float | None) -> None:
        self._until = None if within_s is None else time.monotonic() + within_s

    @property
    def s(self) -> float:
        """0 if there is none."""
        return CALL_WITHIN_S if self._until is None else max(0.0, self._until - time.monotonic())

    @property
    def call_s(self) -> float:
        """What one call may take."""
        return max(0.1, min(CALL_WITHIN_S, self.s))


class _Reading:
    """Stretches, and what was found in them so far."""

    def __init__(self, stretches: Mapping[TopicPartition, Stretch]) -> None:
        self.open = dict(stretches)
        self._first = {source: stretch.first for source, stretch in stretches.items()}
        self._offsets: dict[TopicPartition, list[int]] = {}
        self._first_ms: dict[TopicPartition, int | None] = {}
        self._reached: dict[TopicPartition, int] = {}

    def take(self, message: Message) -> list[ClientPartition]:
        """A record, or that a partition ends: the partition, if no more of it is wanted."""
        source = TopicPartition(str(message.topic()), int(message.partition() or 0))
        stretch, offset = self.open.get(source), int(message.offset() or 0)
        if stretch is None or offset < stretch.first:
            return []
        if message.error() is not None or offset >= stretch.end:
            if offset < stretch.end:
                return []  # a replica that is behind its leader ends sooner
            return self._close(source, stretch.end)
        offsets = self._offsets.setdefault(source, [])
        if not offsets:
            kind, stamp_ms = message.timestamp()
            self._first_ms[source] = stamp_ms if kind and stamp_ms > 0 else None
        offsets.append(offset)
        self._reached[source] = offset + 1
        if offset + 1 >= stretch.end or len(offsets) >= stretch.most:
            return self._close(source, offset + 1)
        return []

    def give_up(self, message: Message) -> list[ClientPartition]:
        """Nothing more will come of its partition."""
        source = TopicPartition(str(message.topic()), int(message.partition() or 0))
        return [ClientPartition(*source)] if self.open.pop(source, None) else []

    def seen(self) -> Mapping[TopicPartition, RecordsSeen]:
        """All that anything is known of."""
        return {
            source: RecordsSeen(
                np.array(self._offsets.get(source, []), np.int64), self._first_ms.get(source), self._reached[source]
            )
            for source in self._reached
        }

    def _close(self, source: TopicPartition, reached: int) -> list[ClientPartition]:
        del self.open[source]
        self._reached[source] = reached
        return [ClientPartition(*source)]


def _reading(policy: ClientPolicy, group_id: str, fetch_bytes: int) -> Properties:
    return consumer_properties(outsider(policy), GroupPolicy(group_id), QUEUE_BYTES) | {
        "enable.partition.eof": True,
        "max.partition.fetch.bytes": fetch_bytes,
        "fetch.max.bytes": min(RESPONSE_BYTES, int(policy.extra.get("fetch.max.bytes", RESPONSE_BYTES))),
        "queued.min.messages": 1 if fetch_bytes == SMALL_FETCH_BYTES else 10_000,
    }


def words(exc: KafkaException) -> str:
    """What the client says."""
    error = exc.args[0]
    return f"{error.name()}: {error.str()}" if isinstance(error, KafkaError) else str(exc)
