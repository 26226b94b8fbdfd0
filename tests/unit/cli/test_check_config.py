"""What an operator sees of the settings in force: everything, and no secret."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from app.__main__ import cli
from app.settings.reading import load_settings

ROOT = Path(__file__).parents[3]
CANARY = "c4n4ry-53cr3t"
SETTINGS = {
    "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "g",
              "security": {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": "me"}},
    "worker": {"instance_id": "w-0"},
    "schemas": {"registry_url": "http://127.0.0.1:1", "directory": str(ROOT / "schemas")},
    "pipelines": [{"name": "churn", "input_topics": ["in"], "output_topic": "out", "dead_letter_topic": "dead",
                   "model": "churn"}],
    "models": {"store": "file://nowhere"},
    "audit": {"store": "file://nowhere/audit"},
    "log": {"level": "debug"},
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("logs_as_they_were")


@pytest.fixture
def check(tmp_path):
    def run(*options, **sections):
        file = tmp_path / "worker.yaml"
        file.write_text(yaml.safe_dump(SETTINGS | sections))
        return CliRunner().invoke(cli, ["check-config", "--config", str(file), *options])

    return run


def test_plain_and_json_say_the_same(check):
    plain, as_json = check(), check("--json")
    assert plain.exit_code == as_json.exit_code == 0
    assert yaml.safe_load(plain.stdout) | {"checks": []} == json.loads(as_json.stdout)


def test_defaults_and_what_follows_from_the_settings_are_shown(check):
    shown = yaml.safe_load(check().stdout)
    assert shown["settings"]["kafka"]["session_timeout_s"] == 10
    assert shown["settings"]["http"]["host"] == "127.0.0.1"
    assert shown["derived"] == {
        "instance_id": "w-0",
        "wire_format": "Confluent",
        "pipelines": {"churn": {"group_id": "g", "transactional_id": "g-w-0-0"}},
    }


def test_the_identities_of_all_processes_are_shown(check):
    shown = yaml.safe_load(check(worker={"instance_id": "w-0", "processes": 3}).stdout)
    assert shown["derived"]["identities"] == {"churn": ["g-w-0-0", "g-w-0-1", "g-w-0-2"]}
    assert shown["derived"]["pipelines"]["churn"]["transactional_id"] == "g-w-0-0"


def test_at_least_once_has_no_transactional_id(check):
    shown = yaml.safe_load(check(delivery={"mode": "at_least_once"}).stdout)
    assert shown["derived"]["pipelines"]["churn"]["transactional_id"] is None


def test_the_settings_shown_are_settings_again(check, tmp_path):
    shown = yaml.safe_load(check().stdout)["settings"]
    file = tmp_path / "shown.yaml"
    file.write_text(yaml.safe_dump(shown))
    assert load_settings(file) == load_settings(tmp_path / "worker.yaml")


@pytest.mark.parametrize("options", [(), ("--json",), ("--live",), ("--live", "--json")], ids=" ".join)
def test_secrets_are_masked_wherever_they_come_from(check, tmp_path, monkeypatch, options):
    file = tmp_path / "secret"
    file.write_text(CANARY)
    monkeypatch.setenv("INFERENCE_KAFKA__SECURITY__KEY_PASSWORD", CANARY)
    security = SETTINGS["kafka"]["security"] | {"password": CANARY, "oauth_client_secret_file": str(file)}
    shown = check(
        *options,
        kafka=SETTINGS["kafka"] | {"security": security},
        schemas={"registry_url": "http://127.0.0.1:1", "registry_username": "me", "registry_password": CANARY},
    )
    assert CANARY not in shown.output
    assert str(file) in shown.stdout
    assert "**********" in shown.stdout


def test_live_asks_everything_and_reports_all_that_is_wrong(check):
    told = check("--live", "--json")
    checks = {one["what"]: (one["status"], one["detail"]) for one in json.loads(told.stdout)["checks"]}
    assert told.exit_code == 2
    assert [status for status, _ in checks.values()] == ["ok", "failed", "not asked", "failed"]
    assert "ModelMissing" in checks["churn: model churn"][1]
    assert "refuses its settings" in checks["settings of the Kafka client"][1]  # a user name without a password


@pytest.mark.parametrize("options", [(), ("--live",)], ids=["plain", "live"])
def test_what_only_the_consumer_refuses_is_refused_here_too(check, options):
    kafka = {"bootstrap_servers": "127.0.0.1:1", "session_timeout_s": 10}
    told = check(*options, kafka=kafka | {"client": {"heartbeat.interval.ms": 5000}})
    assert told.exit_code != 0
    said = f"{told.output} {told.exception}"  # without --live it ends with the error itself
    assert "heartbeat.interval.ms 5000 is more than a third of session_timeout_s" in " ".join(said.split())


def test_without_live_nothing_is_connected(check):
    assert check().exit_code == 0  # neither registry nor broker nor model store exists
