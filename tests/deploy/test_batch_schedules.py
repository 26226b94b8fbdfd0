"""The CronJob and the DAG for batch scoring: what they start is a command that there is."""

import ast
import re
import shlex

import pytest
import yaml
from compose_services import ROOT
from typer.testing import CliRunner

from app.__main__ import cli

CRON_JOB = yaml.safe_load((ROOT / "deploy/kubernetes/score-cronjob.yaml").read_text())
DAG = (ROOT / "deploy/airflow/churn_score.py").read_text()
POD = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


@pytest.fixture(scope="module")
def options():
    """Every option that `score` has."""
    shown = CliRunner().invoke(cli, ["score", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).stdout
    return set(re.findall(r"--[a-z-]+", shown))


def test_the_cron_job_gives_options_that_there_are(options):
    words = shlex.split(CONTAINER["args"][0].replace("$(", "").replace(")", ""))
    assert words[words.index("inference-worker") + 1] == "score"
    given = {word for word in words if word.startswith("--")}
    assert {"--model", "--store"} <= given <= options


def test_the_dag_gives_options_that_there_are(options):
    (command,) = [
        node for node in ast.walk(ast.parse(DAG)) if isinstance(node, ast.FunctionDef) and node.name == "command"
    ]
    given = {
        node.value for node in ast.walk(command) if isinstance(node, ast.Constant) and str(node.value).startswith("--")
    }
    assert {"--model", "--store"} <= given <= options


def test_a_bad_start_is_not_tried_again():
    (rule, _) = CRON_JOB["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onExitCodes": {"containerName": "score", "operator": "In", "values": [2]}}
    assert "BAD_START = 2" in DAG


def test_the_pod_is_allowed_nothing_that_it_does_not_need():
    assert POD["restartPolicy"] == "Never"  # what a policy for failed pods requires
    assert POD["automountServiceAccountToken"] is False
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert CONTAINER["resources"].keys() == {"requests", "limits"}


def test_one_day_is_one_job_and_the_next_day_another():
    assert '"$ANSWERS/day=$day"' in CONTAINER["args"][0]
    assert "{ANSWERS}/day={day}" in DAG
    assert CRON_JOB["spec"]["concurrencyPolicy"] == "Forbid"
