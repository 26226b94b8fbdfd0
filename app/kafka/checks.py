"""Start-up checks against the broker: what is missing is named before anything is consumed.

Nothing here leaves a trace: no group is joined and no transaction begun. That is why two permissions of the table
are not asked about. Whether the transactional id may be written, and whether the broker knows the group protocol,
could only be found out as the worker itself, which would fence a live worker of the same identity; the worker's
first calls tell, with exit status 2 as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, TopicDescription  # type: ignore[attr-defined]

from app.errors import BrokerRefused
from app.kafka.client_config import ClientPolicy, admin_properties, settings_accepted
from app.kafka.permissions import Permission, PipelineUse, permissions, principal_of, watching
from app.kafka.refusals import Refusals

ANSWER_WITHIN_S = 10.0
ATTEMPT_S, ATTEMPTS = 2.0, 2
COORDINATOR_WITHIN_S = 5.0
FAIL_LINES = 6  # the client's log level at which it says that a broker hung up

_OPERATIONS = {"Read": AclOperation.READ, "Write": AclOperation.WRITE, "Describe": AclOperation.DESCRIBE}

_Topics = Mapping[str, TopicDescription | None]  # None: we may not see it; absent: it does not exist


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found; `detail` says why if it is not ok."""

    what: str
    status: Literal["ok", "failed", "not asked"]
    detail: str = ""


class BrokerCheck:
    """Asks one cluster, with the worker's own credentials."""

    def __init__(self, policy: ClientPolicy) -> None:
        self._policy = policy
        self._refusals = Refusals()
        properties = admin_properties(policy)
        properties |= {"log_level": FAIL_LINES, "logger": self._refusals.log}
        with settings_accepted():
            self._admin = AdminClient({**properties, "error_cb": self._refusals.error})  # type: ignore[dict-item]

    def check(self, uses: Sequence[PipelineUse]) -> None:
        """Every topic is there with enough partitions, and everything that can be asked about is permitted.

        Raises BrokerRefused naming everything that is wrong.
        """
        self._refuse(self.results(uses))

    def check_watching(self, topics_of: Mapping[str, Sequence[str]]) -> None:
        """Group → topics: all are there, and may be looked at. Raises BrokerRefused naming everything that is wrong."""
        reached = self._reach()
        if reached.status == "failed":
            self._refuse([reached])
        found, results = self._describe(sorted({topic for topics in topics_of.values() for topic in topics}))
        for group_id, topics in topics_of.items():
            owner = f"group {group_id}"
            results += [self._permission(owner, owner, needed, found) for needed in watching(group_id, topics)]
        self._refuse(results)

    def results(self, uses: Sequence[PipelineUse]) -> list[CheckResult]:
        """One result per question; only the first one if the broker cannot be reached."""
        reached = self._reach()
        if reached.status == "failed":
            return [reached]
        found, results = self._describe(sorted({topic for use in uses for topic in use.topics}))
        for use in uses:
            owner = f"pipeline {use.pipeline}"
            results += [self._permission(use.pipeline, owner, needed, found) for needed in permissions(use)]
            if use.keeps_partition:
                results.append(_partitions(use, found))
        return [reached, *results]

    def _reach(self) -> CheckResult:
        servers, security = self._policy.bootstrap_servers, self._policy.security
        what = f"broker {servers}"
        for _ in range(ATTEMPTS):
            try:
                self._admin.list_topics(timeout=ATTEMPT_S)
            except KafkaException:
                self._admin.poll(0)  # serves the callbacks: they have the reason
                if self._refusals.certain:
                    break
            else:
                return CheckResult(what, "ok")
        return CheckResult(what, "failed", f"cannot use the broker: {self._refusals.reason(security)}")

    def _describe(self, topics: list[str]) -> tuple[_Topics, list[CheckResult]]:
        found: dict[str, TopicDescription | None] = {}
        results: list[CheckResult] = []
        futures = self._admin.describe_topics(
            TopicCollection(topics), include_authorized_operations=True, request_timeout=ANSWER_WITHIN_S
        )
        for topic, future in futures.items():
            what = f"topic {topic}"
            try:
                found[topic] = future.result(timeout=ANSWER_WITHIN_S)
                results.append(CheckResult(what, "ok"))
            except TimeoutError:
                detail = f"topic {topic}: the broker did not describe it within {ANSWER_WITHIN_S:g} s"
                results.append(CheckResult(what, "failed", detail))
            except KafkaException as exc:
                error = exc.args[0]
                if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    found[topic] = None  # told as the permission that is missing
                elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    results.append(CheckResult(what, "failed", f"topic {topic} does not exist"))
                else:
                    results.append(CheckResult(what, "failed", f"topic {topic}: {error.name()}: {error.str()}"))
        return found, results

    def _refuse(self, results: Sequence[CheckResult]) -> None:
        failed = [result for result in results if result.status == "failed"]
        if failed:
            problems = "; ".join(dict.fromkeys(result.detail for result in failed))
            raise BrokerRefused(f"{self._policy.bootstrap_servers}: {problems}")

    def _permission(self, name: str, owner: str, needed: Permission, topics: _Topics) -> CheckResult:
        what = f"{name}: {needed}"
        if needed.resource == "TransactionalId":
            return CheckResult(what, "not asked", "only its own worker can, with its first transaction")
        if needed.resource == "Topic" and needed.name not in topics:
            return CheckResult(what, "not asked", "there is no such topic")
        if needed.resource == "Topic":
            topic = topics[needed.name]
            granted: Sequence[AclOperation] | None = topic.authorized_operations or None if topic else []  # type: ignore[assignment]
        else:
            try:
                granted = self._granted_on_group(needed.name)
            except KafkaException as exc:
                # it may be moving; the worker waits for it as long as it takes
                return CheckResult(what, "not asked", f"no group coordinator answered: {exc.args[0].str()}")
        if granted is None or _OPERATIONS[needed.operation] in granted:
            return CheckResult(what, "ok")
        command = needed.command(self._policy.bootstrap_servers, principal_of(self._policy.security))
        return CheckResult(what, "failed", f"{owner}: no permission to {needed} (grant it: {command})")

    def _granted_on_group(self, group_id: str) -> Sequence[AclOperation] | None:
        """What we may do with a group, whether it exists or not; None on a broker without an authorizer.

        Safe where `list_consumer_group_offsets` kills the process: on a cluster without a coordinator it times out.
        """
        futures = self._admin.describe_consumer_groups(
            [group_id], include_authorized_operations=True, request_timeout=COORDINATOR_WITHIN_S
        )
        try:
            described = futures[group_id].result()
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                return []
            raise
        return described.authorized_operations or None


def _partitions(use: PipelineUse, topics: _Topics) -> CheckResult:
    """Keeping the source partition needs every output to have as many partitions as every input."""
    what = f"{use.pipeline}: as many output as input partitions"
    counts = {name: len(topic.partitions) for name, topic in topics.items() if topic}
    if not counts.keys() >= set(use.topics):
        return CheckResult(what, "not asked", "not all of its topics can be seen")
    problems = [
        f"pipeline {use.pipeline}: {output} has {counts[output]} partitions, {source} has {counts[source]}; "
        "output_partitioning source needs the same number (or set it to key)"
        for output in (use.output, use.dead_letters)
        for source in use.inputs
        if counts[output] != counts[source]
    ]
    return CheckResult(what, "failed" if problems else "ok", "; ".join(problems))
