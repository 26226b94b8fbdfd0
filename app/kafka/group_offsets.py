"""Where a group stands in its partitions, and where it begins if it stands nowhere."""

from collections.abc import Iterable, Set
from typing import Literal

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from app.errors import BrokerUnavailable
from app.records import TopicPartition

StartFrom = Literal["earliest", "latest", "fail"]

STARTS_TIMEOUT_S = 1.0


class GroupOffsets:
    """Of one consumer's group, asked of the broker each time. On the consumer's thread."""

    def __init__(self, consumer: Consumer, start_from: StartFrom) -> None:
        self._consumer, self._start_from = consumer, start_from

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

    def first_of(self, source: TopicPartition) -> int:
        """Where a group without an offset begins, as the setting says. Raises KafkaException."""
        low, high = self._consumer.get_watermark_offsets(ClientPartition(*source), timeout=STARTS_TIMEOUT_S)
        return int(low if self._start_from == "earliest" else high)

    def missed(self, source: TopicPartition, offset: int) -> int:
        """How many offsets from this one on such a beginning passes over; 0 if the broker does not say."""
        try:
            return max(0, self.first_of(source) - offset)
        except KafkaException:
            return 0

    def _asked(self, sources: Iterable[TopicPartition]) -> list[ClientPartition]:
        try:
            found = self._consumer.committed([ClientPartition(*source) for source in sources], STARTS_TIMEOUT_S)
        except KafkaException as exc:
            raise BrokerUnavailable(f"the committed offsets are not known: {exc}") from exc
        # one that a transaction still has in its hands comes without an offset, as if there were none
        if failure := next((partition.error for partition in found if partition.error is not None), None):
            raise BrokerUnavailable(f"the committed offsets are not known: {failure.str()}")
        return found
