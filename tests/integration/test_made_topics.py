"""`python -m deploy.docker.topics` on a real broker."""

import os
import subprocess
import sys
import uuid

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource


@pytest.fixture
def make(kafka):
    """Run the command; give back (exit code, standard output, standard error)."""

    def run(*arguments, bootstrap=kafka):
        done = subprocess.run(
            [sys.executable, "-m", "deploy.docker.topics", *arguments],
            env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def name():
    return f"made.{uuid.uuid4().hex[:12]}"


def test_topics_are_made_with_what_was_asked_for_and_left_alone_the_second_time(kafka, make, name):
    wanted = ["--partitions=3", f"{name}.events", f"{name}.summaries:retention.ms=3600000,cleanup.policy=delete"]

    assert make(*wanted) == (0, f"made {name}.events\nmade {name}.summaries\n", "")
    assert make(*wanted) == (0, "all topics are there\n", "")

    admin = AdminClient({"bootstrap.servers": kafka})
    topics = admin.list_topics(timeout=10).topics
    assert [len(topics[f"{name}.{each}"].partitions) for each in ("events", "summaries")] == [3, 3]
    resource = ConfigResource(ConfigResource.Type.TOPIC, f"{name}.summaries")
    assert admin.describe_configs([resource])[resource].result(10)["retention.ms"].value == "3600000"


def test_a_topic_with_other_partitions_is_named(make, name):
    make("--partitions=2", name)

    code, _, said = make("--partitions=6", name)

    assert (code, said) == (1, f"topic {name} has 2 partitions, not 6: outputs keep their source's\n")


@pytest.mark.parametrize("wrong", [":no.such.property=1", ":retention.ms=never"])
def test_a_property_that_the_broker_does_not_take_is_named(make, name, wrong):
    code, _, said = make(name + wrong)

    assert code == 1
    assert said.startswith(f"topic {name} cannot be made: ")


def test_a_broker_that_is_not_there_is_told(make, name):
    code, _, said = make(name, "--within=1", bootstrap="127.0.0.1:1")

    assert code == 1
    assert "the broker does not answer" in said
