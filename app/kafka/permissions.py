"""What a worker must be allowed to do: the one table behind the start-up checks and docs/SECURITY.md.

Nothing is listed that follows from something else: Read and Write bring Describe with them, and to write to any topic
brings what an idempotent producer needs (KIP-679, brokers from 3.0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Resource = Literal["Topic", "Group", "TransactionalId"]

_FLAGS = {"Topic": "--topic", "Group": "--group", "TransactionalId": "--transactional-id"}


@dataclass(frozen=True, slots=True)
class PipelineUse:
    """What one pipeline uses of the cluster.

    transactional_id: None in at-least-once. shadow: where comparisons go, None if no shadow is provided for.
    monitoring: where summaries and a sample of the predictions go, as far as they are wanted.
    """

    pipeline: str
    inputs: tuple[str, ...]
    output: str
    dead_letters: str
    group_id: str
    transactional_id: str | None
    keeps_partition: bool
    shadow: str | None = None
    monitoring: tuple[str, ...] = ()

    @property
    def topics(self) -> tuple[str, ...]:
        """Read or written."""
        shadow = (self.shadow,) if self.shadow else ()
        return (*self.inputs, self.output, self.dead_letters, *shadow, *self.monitoring)


@dataclass(frozen=True, slots=True)
class Permission:
    """One operation on one resource, in the words of Kafka's own tool."""

    operation: Literal["Read", "Write", "Describe"]
    resource: Resource
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}"

    def command(self, bootstrap_servers: str, principal: str) -> str:
        """What grants it."""
        return (
            f"kafka-acls.sh --bootstrap-server {bootstrap_servers} --add --allow-principal {principal} "
            f"--operation {self.operation} {_FLAGS[self.resource]} {self.name}"
        )


def permissions(use: PipelineUse) -> Sequence[Permission]:
    """Everything this pipeline needs, and nothing else."""
    needed = [Permission("Read", "Topic", topic) for topic in use.inputs]
    needed += [Permission("Write", "Topic", topic) for topic in use.topics[len(use.inputs) :]]
    needed.append(Permission("Read", "Group", use.group_id))
    if use.transactional_id is not None:
        needed.append(Permission("Write", "TransactionalId", use.transactional_id))
    return needed


def watching(group_id: str, topics: Sequence[str]) -> Sequence[Permission]:
    """Everything it takes to see from outside how far a group is behind in these topics, and nothing else."""
    return [*(Permission("Read", "Topic", topic) for topic in topics), Permission("Describe", "Group", group_id)]


def principal_of(security: Mapping[str, str]) -> str:
    """Who the broker most likely takes us for; certificates and tokens are mapped by the broker's own rules."""
    name = security.get("sasl.username") or security.get("sasl.oauthbearer.client.id")
    return f"User:{name}" if name else "User:<this worker>"
