"""The consumer of the audit trail: as the worker's, but the trail says where to read, not the group."""

from collections.abc import Mapping, Sequence

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaException
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient

from app.errors import BrokerRefused, BrokerUnavailable
from app.kafka.client_config import ClientPolicy, admin_properties, settings_accepted
from app.kafka.group_offsets import places
from app.kafka.source import KafkaSource
from app.records import TopicPartition

ASK_TIMEOUT_S = 10.0


class AuditSource(KafkaSource):
    """One consumer of the audit group. One thread only."""

    def read_from(self, source: TopicPartition, offset: int | None) -> None:
        """Read an owned partition from here, None: from its earliest record, and no longer hold it.

        Raises BrokerUnavailable if that cannot be done now, as in the middle of a rebalance.
        """
        where = ClientPartition(*source, OFFSET_BEGINNING if offset is None else offset)
        try:
            # not sought: a partition whose fetching has not begun refuses that
            self.consumer.incremental_unassign([where])
            self.consumer.incremental_assign([where])
        except KafkaException as exc:
            raise BrokerUnavailable(f"cannot begin to read {source.topic}[{source.partition}]: {exc}") from exc
        self._begins(source, 0 if offset is None else offset)
        self.release({source})

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group; a failure is logged, and the next commit says it anew."""
        try:
            self.consumer.commit(offsets=places(offsets), asynchronous=True)
        except KafkaException as exc:
            structlog.get_logger().warning("offset_not_committed", message=str(exc))


def check_topics(policy: ClientPolicy, topics: Sequence[str]) -> None:
    """Raises BrokerRefused if the broker does not answer, or has not all of these topics."""
    with settings_accepted():
        admin = AdminClient(admin_properties(policy))
    for topic in topics:
        try:
            found = admin.list_topics(topic, timeout=ASK_TIMEOUT_S).topics[topic]
        except KafkaException as exc:
            raise BrokerRefused(f"{policy.bootstrap_servers} does not answer: {exc.args[0].str()}") from exc
        if found.error is not None:
            raise BrokerRefused(f"topic {topic}: {found.error.str()}")
