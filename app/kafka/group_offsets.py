"""Where a group stands in its partitions, and where it begins if it stands nowhere."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Literal

import structlog
from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from app.clock import Clock
from app.errors import BrokerUnavailable, ConsumerDead
from app.ports import SourceObserver
from app.records import TopicPartition

StartFrom = Literal["earliest", "latest", "fail"]

STARTS_TIMEOUT_S = 1.0
STARTS_LEAST_S = 0.02  # for one partition of many


class GroupOffsets:
    """Of one consumer's group, asked of the broker each time. On the consumer's thread."""

    def __init__(
        self, consumer: Consumer, group_id: str, start_from: StartFrom, clock: Clock, observer: SourceObserver
    ) -> None:
        self._consumer, self._start_from, self._clock, self._observer = consumer, start_from, clock, observer
        self._log = structlog.get_logger().bind(group=group_id)

    def committed(self, sources: Set[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's offsets; partitions without one are absent. Raises BrokerUnavailable, also if one is in doubt."""
        found = self._asked(sources)
        return {TopicPartition(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def notes(self, sources: Set[TopicPartition]) -> list[str]:
        """What was committed along with the offsets of these partitions, as far as that is known."""
        try:
            return [partition.metadata for partition in self._asked(sources) if partition.metadata]
        except BrokerUnavailable:
            return []

    def starts(self, sources: Set[TopicPartition]) -> dict[TopicPartition, int]:
        """Where the group stands, or will start, in these partitions; those not known are absent."""
        if not sources:
            return {}
        try:
            starts = self.committed(sources)
        except BrokerUnavailable:
            return {}  # asked again at the next pulse
        for source in sources - starts.keys():
            low, high = self._consumer.get_watermark_offsets(ClientPartition(*source), cached=True)
            starts[source] = low if self._start_from == "earliest" else high
        return {source: offset for source, offset in starts.items() if offset >= 0}

    def beginnings(self, sources: Set[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to read these from: where the group stands, or what is decided here, once, where it has no offset.

        Those that cannot be asked now are absent. `latest` is committed at once: whoever comes next must not pass over
        what arrives from now on. Raises ConsumerDead if the setting is to start nowhere.
        """
        try:
            answered = self._answered(sources)
        except BrokerUnavailable as exc:
            self._log.warning("start_not_decided", partitions=readable(sources), reason=str(exc))
            return {}
        standing = {TopicPartition(p.topic, p.partition): p.offset for p in answered if p.error is None}
        without = sorted(source for source, offset in standing.items() if offset < 0)
        if without and self._start_from == "fail":
            raise ConsumerDead(f"no committed offset for {', '.join(readable(without))}, and kafka.start_from is fail")
        decided = self._firsts(without)
        for source, offset in decided.items():
            self._log.info("starting_without_a_committed_offset", source=readable([source]), at=offset)
            self._observer.offset_reset("no_committed_offset", 0)
        if decided and self._start_from == "latest":
            self._consumer.commit(offsets=places(decided), asynchronous=True)
        found = {source: offset for source, offset in standing.items() if offset >= 0} | decided
        if rest := sources - found.keys():
            reason = "a transaction has their offsets in its hands, or their leaders do not answer"
            self._log.warning("start_not_decided", partitions=readable(rest), reason=reason)
        return found

    def _firsts(self, sources: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Of each; absent where no leader answers. One second for all: each may take its share of what is left."""
        found, until = {}, self._clock.monotonic() + STARTS_TIMEOUT_S
        for nth, source in enumerate(sources):
            left_s = max(0.0, until - self._clock.monotonic())
            with suppress(KafkaException):
                found[source] = self.first_of(source, max(STARTS_LEAST_S, left_s / (len(sources) - nth)))
        return found

    def first_of(self, source: TopicPartition, timeout_s: float = STARTS_TIMEOUT_S) -> int:
        """Where a group without an offset begins, as the setting says. Raises KafkaException."""
        low, high = self._consumer.get_watermark_offsets(ClientPartition(*source), timeout=timeout_s)
        return int(low if self._start_from == "earliest" else high)

    def missed(self, source: TopicPartition, offset: int) -> int:
        """How many offsets from this one on such a beginning passes over; 0 if the broker does not say."""
        try:
            return max(0, self.first_of(source) - offset)
        except KafkaException:
            return 0

    def _asked(self, sources: Collection[TopicPartition]) -> list[ClientPartition]:
        found = self._answered(sources)
        # one that a transaction still has in its hands comes without an offset, as if there were none, if any comes
        if failure := next((partition.error for partition in found if partition.error is not None), None):
            raise BrokerUnavailable(f"the committed offsets are not known: {failure.str()}")
        return found

    def _answered(self, sources: Collection[TopicPartition]) -> list[ClientPartition]:
        if not sources:
            return []
        try:
            return self._consumer.committed([ClientPartition(*source) for source in sources], STARTS_TIMEOUT_S)
        except KafkaException as exc:
            raise BrokerUnavailable(f"the committed offsets are not known: {exc}") from exc


def places(offsets: Mapping[TopicPartition, int]) -> list[ClientPartition]:
    """As the client takes them."""
    return [ClientPartition(*source, offset) for source, offset in offsets.items()]


def readable(sources: Iterable[TopicPartition]) -> list[str]:
    """For logs, in order."""
    return [f"{source.topic}[{source.partition}]" for source in sorted(sources)]
