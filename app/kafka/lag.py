"""Where groups and partitions stand, asked of the broker by somebody who is in no group. Hides the client library.

All partitions are asked about in one call of each kind: six calls a look, however many partitions there are.

Committed offsets come from `Consumer.committed()` of consumers that have the group's id and never subscribe:
`AdminClient.list_consumer_group_offsets` ends the process where there is no group coordinator yet (librdkafka #5040).
These read uncommitted, so that a worker's transaction that is about to commit offsets does not hide those before it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from app.group_marks import GroupMarks, PartitionMarks, RecordsSeen, Stretch
from app.kafka.client_config import (
    ClientPolicy,
    GroupPolicy,
    Properties,
    admin_properties,
    consumer_properties,
    outsider,
    settings_accepted,
)
from app.kafka.stretches import QUEUE_BYTES, Left, StretchReader, words
from app.records import TopicPartition

LOOK_WITHIN_S = 10.0  # all calls together: one that waits for a dead broker leaves little to the others

_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]

T = TypeVar("T")
_Offsets = Mapping[TopicPartition, int]


class KafkaGroups:
    """Reads several groups of one cluster. One thread only."""

    def __init__(self, policy: ClientPolicy, group_ids: Sequence[str], read_within_s: float | None) -> None:
        """read_within_s: how long one reading of records may take; None: as long as it takes.

        Raises BadSettings if the client refuses its settings.
        """
        self._said: KafkaError | None = None
        with settings_accepted():
            self._admin = AdminClient({**admin_properties(policy), "error_cb": self._on_error})  # type: ignore[dict-item]
            self._consumers = {
                group_id: Consumer({**_asking(policy, group_id), "error_cb": self._on_error}) for group_id in group_ids
            }
        self._stretches = StretchReader(policy, group_ids[0], read_within_s, self._on_error)

    def marks(self, topics_of: Mapping[str, Sequence[str]]) -> Mapping[str, GroupMarks]:
        """Group → where it stands in all partitions of these topics. Raises nothing: what is unknown says why.

        Committed offsets are asked for before the ends, so that no partition ends before its group's offset.
        """
        left = Left(LOOK_WITHIN_S)
        topics = sorted({topic for topics in topics_of.values() for topic in topics})
        sources, unknown = self._sources(topics, left)
        wanted = {group_id: [s for s in sources if s.topic in topics] for group_id, topics in topics_of.items()}
        committed: dict[str, Mapping[TopicPartition, int | None]] = {}
        for group_id, of_group in wanted.items():
            committed[group_id], refused = self._committed(group_id, of_group, left)
            unknown |= refused
        known = sorted({source for found in committed.values() for source in found})
        starts, refused = self._listed(known, _EARLIEST, IsolationLevel.READ_UNCOMMITTED, left)
        stable, refused_too = self._listed(list(starts), _LATEST, IsolationLevel.READ_COMMITTED, left)
        ends, refused_last = self._listed(list(stable), _LATEST, IsolationLevel.READ_UNCOMMITTED, left)
        members, refused_members = self._members(sorted(topics_of), left)
        unknown |= refused | refused_too | refused_last | refused_members
        return {
            group_id: GroupMarks(
                members=members.get(group_id),
                partitions={
                    source: PartitionMarks(offset, starts[source], stable[source], max(stable[source], ends[source]))
                    for source, offset in committed[group_id].items()
                    if source in ends
                },
                unknown=_of_group(unknown, group_id, topics_of[group_id]),
            )
            for group_id in topics_of
        }

    def records(self, stretches: Mapping[TopicPartition, Stretch]) -> Mapping[TopicPartition, RecordsSeen]:
        """What is in these stretches, as far as it could be read in time; those never read are absent."""
        return self._stretches.records(stretches)

    def close(self) -> None:
        """Let go of the broker."""
        self._stretches.close()
        for consumer in self._consumers.values():
            consumer.close()

    def _sources(self, topics: Collection[str], left: Left) -> tuple[list[TopicPartition], dict[str, str]]:
        described, unknown = self._answers(
            lambda: self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=left.call_s),
            topics,
            left,
        )
        sources = [
            TopicPartition(topic, partition.id) for topic, found in described.items() for partition in found.partitions
        ]
        return sources, {f"topic {topic}": why for topic, why in unknown.items()}

    def _committed(
        self, group_id: str, sources: Sequence[TopicPartition], left: Left
    ) -> tuple[Mapping[TopicPartition, int | None], dict[str, str]]:
        if not sources:
            return {}, {}
        try:
            found = self._consumers[group_id].committed([ClientPartition(*source) for source in sources], left.call_s)
        except KafkaException as exc:
            return {}, {f"group {group_id}": self._why(exc)}
        unknown = {
            f"{partition.topic}[{partition.partition}]": partition.error.str()
            for partition in found
            if partition.error is not None
        }
        return {
            TopicPartition(partition.topic, partition.partition): partition.offset if partition.offset >= 0 else None
            for partition in found
            if partition.error is None
        }, unknown

    def _listed(
        self, sources: Sequence[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel, left: Left
    ) -> tuple[_Offsets, dict[str, str]]:
        if not sources:
            return {}, {}
        wanted = {ClientPartition(*source): spec for source in sources}

        def ask() -> Mapping[TopicPartition, "Future[Any]"]:
            futures = self._admin.list_offsets(wanted, isolation_level=isolation, request_timeout=left.call_s)
            return {TopicPartition(asked.topic, asked.partition): future for asked, future in futures.items()}

        found, unknown = self._answers(ask, sources, left)
        offsets = {source: int(answer.offset) for source, answer in found.items()}
        return offsets, {f"{source.topic}[{source.partition}]": why for source, why in unknown.items()}

    def _members(self, group_ids: Sequence[str], left: Left) -> tuple[Mapping[str, int], dict[str, str]]:
        described, unknown = self._answers(
            lambda: self._admin.describe_consumer_groups(list(group_ids), request_timeout=left.call_s), group_ids, left
        )
        counts = {group_id: len(found.members) for group_id, found in described.items()}
        return counts, {f"group {group_id}": why for group_id, why in unknown.items()}

    def _answers(
        self, ask: Callable[[], Mapping[T, "Future[Any]"]], about: Iterable[T], left: Left
    ) -> tuple[dict[T, Any], dict[T, str]]:
        """What was answered about these, and why something was not."""
        found: dict[T, Any] = {}
        unknown: dict[T, str] = {}
        try:
            futures = ask()
        except KafkaException as exc:
            return found, dict.fromkeys(about, self._why(exc))
        for key, future in futures.items():
            try:
                found[key] = future.result(timeout=left.call_s + 1.0)  # the client gives up by itself before that
            except KafkaException as exc:
                unknown[key] = self._why(exc)
            except TimeoutError:
                unknown[key] = "no answer"
        return found, unknown

    def _why(self, exc: KafkaException) -> str:
        """In words that tell: the client says of most troubles that time ran out, and tells its error callback why."""
        self._admin.poll(0)
        said, self._said = self._said, None
        return f"{words(exc)} ({said.name()}: {said.str()})" if said is not None else words(exc)

    def _on_error(self, error: KafkaError) -> None:
        # many clients, and each says the same of a broker that is away: the look that failed tells
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self._said is None:  # noqa: SLF001 - the client's name
            self._said = error


def _asking(policy: ClientPolicy, group_id: str) -> Properties:
    """For committed offsets."""
    properties = consumer_properties(outsider(policy), GroupPolicy(group_id), QUEUE_BYTES)
    return properties | {"isolation.level": "read_uncommitted"}


def _of_group(unknown: Mapping[str, str], group_id: str, topics: Collection[str]) -> dict[str, str]:
    """What concerns one group: itself, its topics, their partitions."""
    return {
        what: why
        for what, why in unknown.items()
        if what == f"group {group_id}" or what.removeprefix("topic ").partition("[")[0] in topics
    }
