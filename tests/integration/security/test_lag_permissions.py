"""Who looks at lag needs the permissions of docs/LAG.md and no other; each one that is missing is named."""

import re
import shlex
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from grants import grant
from secured_broker import PRINCIPAL
from worker_process import refused_start

from app.errors import BrokerRefused
from app.kafka.permissions import watching
from app.settings.reading import settings_of
from app.wiring.lag import look_now

PAGE = Path(__file__).parents[3] / "docs" / "LAG.md"
COMMANDS = "".join(re.findall(r"```sh\n((?:kafka-acls.sh .*\n)+)```", PAGE.read_text(encoding="utf-8"))).splitlines()


def settings_for(lane, kafka):
    """Of an exporter: the lane's pipeline, a group that nobody else has."""
    group = f"lag-{uuid.uuid4().hex[:12]}"
    settings = lane.settings(kafka={**kafka, "group_id": group})
    return settings, {"churn.events": lane.inputs[0], "churn-workers": group}


def test_the_page_lists_what_is_checked_for():
    needed = watching("churn-workers", ["churn.events"])
    assert [one.command("broker:9092", PRINCIPAL) for one in needed] == COMMANDS


@pytest.mark.broker
def test_the_documented_permissions_are_enough(secured, secured_lane):
    settings, names = settings_for(secured_lane, secured.over_scram())
    grant(secured.kafka, COMMANDS, names)
    producer = Producer({"bootstrap.servers": secured.kafka})
    for _ in range(7):
        producer.produce(secured_lane.inputs[0], b"v")
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": secured.kafka, "group.id": names["churn-workers"]})
    consumer.commit(offsets=[TopicPartition(secured_lane.inputs[0], 0, 2)], asynchronous=False)
    consumer.close()

    (lag,) = look_now(settings_of(settings))

    assert lag.unknown == {}
    assert (lag.records, lag.members, lag.seconds > 0) == (5, 0, True)


@pytest.mark.broker
@pytest.mark.parametrize("missing", COMMANDS, ids=lambda command: "-".join(shlex.split(command)[-4:]).replace("--", ""))
def test_each_permission_that_is_missing_is_named(secured, secured_lane, missing):
    settings, names = settings_for(secured_lane, secured.over_scram())
    grant(secured.kafka, [command for command in COMMANDS if command != missing], names)
    *_, operation, flag, name = shlex.split(missing)

    with pytest.raises(BrokerRefused) as refused:
        look_now(settings_of(settings))

    assert f"group {names['churn-workers']}: no permission to {operation} on " in str(refused.value)
    assert f"--operation {operation} {flag} {names[name]}" in str(refused.value)


@pytest.mark.broker
def test_a_wrong_password_ends_the_exporter_with_status_2(secured, secured_lane, tmp_path):
    settings, _ = settings_for(secured_lane, secured.over_scram(password_file=str(secured.files.wrong)))
    said, _ = refused_start(settings, tmp_path, command="lag")
    assert "BrokerRefused" in said
    assert "invalid credentials" in said
