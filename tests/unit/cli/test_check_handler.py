"""`check-config` names a pipeline's handler and, asked to look, what is wrong with it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from app.__main__ import cli
from app.errors import BadSettings

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("logs_as_they_were")


@pytest.fixture
def check(tmp_path):
    def run(handler, *options):
        settings = {
            # a user name without a password: the client refuses that without asking any broker
            "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "g",
                      "security": {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": "me"}},
            "schemas": {"directory": str(ROOT / "schemas")},
            "pipelines": [{"name": "churn", "input_topics": ["in"], "output_topic": "out", "dead_letter_topic": "dead",
                           "model": "churn", "handler": handler}],
            "models": {"store": f"file://{tmp_path}"},
        }  # fmt: skip
        file = tmp_path / "worker.yaml"
        file.write_text(yaml.safe_dump(settings))
        return CliRunner().invoke(cli, ["check-config", "--config", str(file), "--json", *options])

    return run


def test_the_handler_is_shown(check):
    told = check("churn_handler:Calibrated")
    assert told.exit_code == 0
    assert json.loads(told.stdout)["settings"]["pipelines"][0]["handler"] == "churn_handler:Calibrated"


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        ("nowhere_to_be_found:Any", "No module named 'nowhere_to_be_found'"),
        ("json:Absent", "has no attribute 'Absent'"),
        ("json:dumps", "is no class but a function"),
        ("json:JSONDecoder", "has no method 'initialize'"),
    ],
)
def test_what_is_wrong_with_it_is_told(check, handler, why):
    told = check(handler, "--live")
    checks = {one["what"]: (one["status"], one["detail"]) for one in json.loads(told.stdout)["checks"]}
    status, detail = checks[f"churn: handler {handler}"]
    assert told.exit_code == 2
    assert status == "failed"
    assert detail.startswith(f"HandlerInvalid: handler {handler!r}")
    assert why in detail
    assert checks["churn: schemas and features"] == ("not asked", "it needs the handler")


@pytest.mark.parametrize("handler", ["", "module", "module:", ":Class", "a.:B", "a:b.C", "a/b:C", "a:B c", 7, ["a:B"]])
def test_what_is_no_path_to_a_class_is_a_bad_setting(check, handler):
    told = check(handler)
    assert isinstance(told.exception, BadSettings)
    assert "pipelines.0.handler" in str(told.exception)
