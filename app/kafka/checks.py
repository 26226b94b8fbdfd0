"""Start-up checks against the broker: what is missing is named before anything is consumed.

Authentication, TLS and name failures look like plain time-outs; the real reason comes through the error
callback, which is served here after each attempt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, TopicDescription  # type: ignore[attr-defined]

from app.errors import BrokerRefused
from app.kafka.client_config import ClientPolicy, admin_properties, settings_accepted

ANSWER_WITHIN_S = 10.0
ATTEMPT_S = 2.0

# In the order in which they say more than a time-out does.
_TELLING = (
    KafkaError._AUTHENTICATION,  # noqa: SLF001 - the client's names
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._SSL,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
)


@dataclass(frozen=True, slots=True)
class PipelineTopics:
    """What one pipeline reads and writes."""

    pipeline: str
    inputs: tuple[str, ...]
    output: str
    dead_letters: str
    keeps_partition: bool


class BrokerCheck:
    """Asks one cluster, with the worker's own credentials."""

    def __init__(self, policy: ClientPolicy) -> None:
        self._policy = policy
        self._errors: list[KafkaError] = []
        with settings_accepted():
            self._admin = AdminClient({**admin_properties(policy), "error_cb": self._errors.append})  # type: ignore[dict-item]

    def check(self, pipelines: Sequence[PipelineTopics]) -> None:
        """Every topic is there, with the permission it needs and enough partitions.

        Raises BrokerRefused naming everything that is wrong.
        """
        self._reach()
        wanted = sorted({topic for item in pipelines for topic in (*item.inputs, item.output, item.dead_letters)})
        found, problems = self._describe(wanted)
        for item in pipelines:
            for topic, operation in (
                *((topic, AclOperation.READ) for topic in item.inputs),
                (item.output, AclOperation.WRITE),
                (item.dead_letters, AclOperation.WRITE),
            ):
                if topic in found and not _allows(found[topic], operation):
                    problems.append(f"pipeline {item.pipeline}: no {operation.name} permission on topic {topic}")
            problems += self._partition_problems(item, found)
        if problems:
            raise BrokerRefused(f"{self._policy.bootstrap_servers}: " + "; ".join(dict.fromkeys(problems)))

    def _reach(self) -> None:
        last: KafkaException | None = None
        for _ in range(int(ANSWER_WITHIN_S / ATTEMPT_S)):
            try:
                self._admin.list_topics(timeout=ATTEMPT_S)
            except KafkaException as exc:
                last = exc
                self._admin.poll(0)
                if self._telling() is not None:
                    break
            else:
                return
        error = self._telling() or (last.args[0] if last else None)
        reason = f"{error.name()}: {error.str()}" if error is not None else "no answer"
        raise BrokerRefused(f"cannot use the broker at {self._policy.bootstrap_servers}: {reason}") from last

    def _telling(self) -> KafkaError | None:
        for code in _TELLING:
            for error in self._errors:
                if error.code() == code:
                    return error
        return None

    def _describe(self, topics: list[str]) -> tuple[dict[str, TopicDescription], list[str]]:
        found: dict[str, TopicDescription] = {}
        problems: list[str] = []
        futures = self._admin.describe_topics(
            TopicCollection(topics), include_authorized_operations=True, request_timeout=ANSWER_WITHIN_S
        )
        for topic, future in futures.items():
            try:
                found[topic] = future.result(timeout=ANSWER_WITHIN_S)
            except TimeoutError:
                problems.append(f"topic {topic}: the broker did not describe it within {ANSWER_WITHIN_S:g} s")
            except KafkaException as exc:
                error = exc.args[0]
                if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    problems.append(f"topic {topic} does not exist")
                elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    problems.append(f"topic {topic} may not be described (ACL: Describe on Topic)")
                else:
                    problems.append(f"topic {topic}: {error.name()}: {error.str()}")
        return found, problems

    @staticmethod
    def _partition_problems(item: PipelineTopics, found: dict[str, TopicDescription]) -> list[str]:
        """Keeping the source partition needs every output to have as many partitions as every input."""
        if not item.keeps_partition:
            return []
        inputs = {topic: len(found[topic].partitions) for topic in item.inputs if topic in found}
        problems = []
        for topic in (item.output, item.dead_letters):
            if topic not in found:
                continue
            for source, count in inputs.items():
                here = len(found[topic].partitions)
                if count != here:
                    problems.append(
                        f"pipeline {item.pipeline}: {topic} has {here} partitions, {source} has {count}; "
                        "output_partitioning source needs the same number (or set it to key)"
                    )
        return problems


def _allows(topic: TopicDescription, operation: AclOperation) -> bool:
    """A broker without an authorizer names every operation, or none."""
    return not topic.authorized_operations or operation in topic.authorized_operations
