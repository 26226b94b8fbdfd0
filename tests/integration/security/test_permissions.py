"""A worker needs the permissions of docs/SECURITY.md and no other; each one that is missing is named."""

import shlex
from pathlib import Path

import pytest
from grants import documented_commands, grant, names_of
from secured_broker import PRINCIPAL
from worker_process import refused_start, running_worker

from app.kafka.permissions import permissions
from app.settings.reading import load_settings, settings_of
from app.wiring.pipeline_parts import pipeline_use

CHURN = Path(__file__).parents[3] / "deploy" / "pipelines" / "churn.yaml"
EXACT, PREFIXED = documented_commands()


def test_the_page_lists_what_the_worker_checks_for(monkeypatch):
    monkeypatch.setenv("INFERENCE_WORKER__INSTANCE_ID", "worker-0")
    monkeypatch.delenv("KAFKA_GROUP_ID", raising=False)
    settings = load_settings(CHURN)
    needed = permissions(pipeline_use(settings, settings.pipelines[0]))
    assert [one.command("broker:9092", PRINCIPAL) for one in needed] == EXACT


def test_at_least_once_needs_no_transactional_id():
    pipeline = {"name": "a", "input_topics": ["in"], "output_topic": "out", "dead_letter_topic": "dead", "model": "m"}
    settings = settings_of({"pipelines": [pipeline], "delivery": {"mode": "at_least_once"}})
    needed = permissions(pipeline_use(settings, settings.pipelines[0]))
    assert [one.resource for one in needed] == ["Topic", "Topic", "Topic", "Group"]


@pytest.mark.broker
@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once"])
def test_the_documented_permissions_are_enough(secured, secured_lane, tmp_path, mode):
    settings = secured_lane.settings(kafka=secured.over_scram(), delivery={"mode": mode})
    commands = EXACT if mode == "exactly_once" else EXACT[:-1]
    grant(secured.kafka, commands, names_of(secured_lane, settings))
    secured_lane.produce(200, poison=0.05)
    with running_worker(settings, tmp_path) as worker:
        assert secured_lane.verified().predictions == 190
        assert worker.stop() == 0


@pytest.mark.broker
@pytest.mark.parametrize("missing", EXACT, ids=lambda command: "-".join(shlex.split(command)[-4:]).replace("--", ""))
def test_each_permission_that_is_missing_is_named(secured, secured_lane, tmp_path, missing):
    settings = secured_lane.settings(kafka=secured.over_scram())
    names = names_of(secured_lane, settings)
    grant(secured.kafka, [command for command in EXACT if command != missing], names)

    said, _ = refused_start(settings, tmp_path)

    *_, operation, flag, name = shlex.split(missing)
    assert "BrokerRefused" in said
    assert names[name] in said
    assert not [other for other in names.values() if other != names[name] and f" {other} " in said]
    if flag != "--transactional-id":  # refused by the worker's first transaction, before anything is consumed
        assert f"--operation {operation} {flag} {names[name]}" in " ".join(said.split())
        assert '"started"' not in said
