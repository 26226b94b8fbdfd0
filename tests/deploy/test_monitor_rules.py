"""The monitor's alerts, by Prometheus' own tool: the rules are valid, and their unit tests hold."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from app.observe.metrics import TABLE
from app.observe.monitor_metrics import MONITOR_TABLE
from deploy.local.artifacts import promtool

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = FOLDER / "monitor.rules.yaml"


@pytest.mark.parametrize(
    "command", [["check", "rules", "monitor.rules.yaml"], ["test", "rules", "monitor.rules.test.yaml"]]
)
def test_promtool_accepts_them(command):
    done = subprocess.run([promtool(), *command], cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_ask_for_metrics_that_there_are():
    known = {spec.name for spec in (*TABLE, *MONITOR_TABLE)}
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    asked = {name for rule in rules for name in re.findall(r"inference_[a-z_]+", rule["expr"])}
    assert asked <= known
    assert len(rules) == 6


def test_each_alert_has_a_unit_test():
    rules = {rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}
    tested = {
        case["alertname"]
        for test in yaml.safe_load((FOLDER / "monitor.rules.test.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    assert rules == tested
