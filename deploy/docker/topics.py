"""`python -m deploy.docker.topics`: the topics of a set-up, made once and compared every time after.

Kafka's own script makes one topic for each start of a Java machine. This makes all of them in one call, and says so if
one that is there has another number of partitions than the outputs beside it, which a worker would refuse later.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Annotated

import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class TopicsRefused(Exception):
    """The topics are not as they have to be; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and what it has beyond the broker's defaults."""

    name: str
    properties: Mapping[str, str] = field(default_factory=dict)


def topic_of(text: str) -> Topic:
    """`name`, or `name:key=value,key=value`. Raises TopicsRefused."""
    name, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")] if rest else []
    if not _NAME.fullmatch(name) or name in {".", ".."} or not all(key and value for key, _, value in pairs):
        raise TopicsRefused(f"{text!r} is not a topic; expected a name, or name:property=value,…")
    return Topic(name, {key: value for key, _, value in pairs})


def make_topics(
    admin: AdminClient, topics: Sequence[Topic], *, partitions: int, replication: int, within_s: float
) -> list[str]:
    """Make those that are not there; give back their names. True afterwards: all are, with so many partitions.

    Raises TopicsRefused.
    """
    try:
        there = admin.list_topics(timeout=within_s).topics
        missing = [topic for topic in topics if topic.name not in there]
        new = [NewTopic(each.name, partitions, replication, config=dict(each.properties)) for each in missing]
        for name, made in (admin.create_topics(new, operation_timeout=within_s) if new else {}).items():
            _settle(name, made, within_s)
    except KafkaException as exc:
        raise TopicsRefused(f"the broker does not answer: {exc.args[0].str()}") from exc
    for topic in topics:
        found = len(there[topic.name].partitions) if topic.name in there else partitions
        if found != partitions:
            raise TopicsRefused(
                f"topic {topic.name} has {found} partitions, not {partitions}: outputs keep their source's"
            )
    return [topic.name for topic in missing]


def _settle(name: str, made: Future[None], within_s: float) -> None:
    """Wait for it. Raises TopicsRefused, but not if somebody else was quicker."""
    try:
        made.result(within_s)
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise TopicsRefused(f"topic {name} cannot be made: {exc.args[0].str()}") from exc


def main(
    topics: Annotated[list[str], typer.Argument(help="name, or name:property=value,…", metavar="TOPIC…")],
    bootstrap: Annotated[str, typer.Option(envvar="KAFKA_BOOTSTRAP_SERVERS", metavar="HOST:PORT,…")],
    partitions: Annotated[int, typer.Option(min=1, help="Of each: outputs keep the partition of their source.")] = 6,
    replication: Annotated[int, typer.Option(min=1, help="Replicas of each partition.")] = 1,
    within: Annotated[float, typer.Option(min=0.1, help="For each call of the broker.", metavar="SECONDS")] = 30.0,
) -> None:
    """Make the topics that are not there. Exit 1 if one cannot be made, or has other partitions.

    Example: python -m deploy.docker.topics --bootstrap 127.0.0.1:9092 churn.events churn.summaries:retention.ms=3600000
    """
    try:
        admin = AdminClient({"bootstrap.servers": bootstrap})
        wanted = [topic_of(text) for text in topics]
        made = make_topics(admin, wanted, partitions=partitions, replication=replication, within_s=within)
    except TopicsRefused as exc:
        typer.echo(str(exc), err=True)
        sys.exit(1)
    typer.echo("\n".join(f"made {name}" for name in made) or "all topics are there")


if __name__ == "__main__":
    typer.run(main)
