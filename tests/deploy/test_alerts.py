"""The rules, by Prometheus' own tool; and a page for each alert that knows what it talks of."""

import re
import subprocess

import pytest
import typer
import yaml
from compose_services import ROOT
from known_metrics import SERIES, metrics_in, misused

from app.__main__ import cli
from deploy.local.artifacts import promtool

FOLDER = ROOT / "deploy/prometheus"
RULE_FILES = sorted(FOLDER.glob("*.rules.yaml"))
RUNBOOKS = ROOT / "docs/runbooks"
PAGES = {path.stem: path.read_text() for path in sorted(RUNBOOKS.glob("*.md")) if path.stem != "README"}
SECTIONS = ["What users notice", "Look", "Do", "Do not"]

GROUPS = [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
CASES = [
    case
    for path in sorted(FOLDER.glob("*.rules.test.yaml"))
    for test in yaml.safe_load(path.read_text())["tests"]
    for case in test["alert_rule_test"]
]

of_each_alert = pytest.mark.parametrize("name", ALERTS)
of_each_page = pytest.mark.parametrize("name", PAGES)


def run_promtool(*command):
    done = subprocess.run([promtool(), *command], cwd=FOLDER, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_what_prometheus_is_told():
    run_promtool("check", "config", "prometheus.yml")


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_promtool_accepts_a_rule_file_and_its_unit_tests_hold(path):
    run_promtool("check", "rules", path.name)
    run_promtool("test", "rules", path.name.replace(".rules.", ".rules.test."))


@of_each_alert
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(name):
    rule = ALERTS[name]

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f'{{{{ or $externalLabels.runbooks "docs/runbooks" }}}}/{name}.md'


@of_each_alert
def test_an_alert_is_shown_to_keep_quiet_to_fire_and_to_end(name):
    shown = [bool(case["exp_alerts"]) for case in CASES if case["alertname"] == name]
    told = "".join("!" if fired else "." for fired in shown)

    assert re.search(r"!\.", told), told
    assert re.search(r"\.!", told) or told.startswith("!"), told
    assert "." in told


def test_every_alert_has_its_page_and_every_page_its_alert():
    assert PAGES.keys() == ALERTS.keys()


def test_the_index_has_every_page_with_its_severity():
    index = (RUNBOOKS / "README.md").read_text()
    rows = dict(re.findall(r"^\| \[(\w+)\]\(\w+\.md\) \| (\w+) \|", index, re.MULTILINE))

    assert rows == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


@pytest.mark.parametrize(
    "rule", [rule for group in GROUPS for rule in group["rules"]], ids=lambda rule: rule.get("alert") or rule["record"]
)
def test_a_rule_asks_for_what_there_is_as_its_kind_wants_it(rule):
    assert metrics_in(rule["expr"]) <= SERIES.keys()
    assert misused(rule["expr"]) == set()
    assert set(re.findall(r"\b\w+:\w+:\w+", rule["expr"])) <= RECORDED
    assert metrics_in(rule["expr"]) or re.search(r"\bup\b|\w+:\w+:", rule["expr"])


@of_each_page
def test_a_page_answers_what_somebody_woken_asks(name):
    assert PAGES[name].startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", PAGES[name], re.MULTILINE) == SECTIONS
    for section in re.split(r"^## .+$", PAGES[name], flags=re.MULTILINE):
        assert section.strip()


@of_each_page
def test_a_page_names_metrics_commands_and_files_that_there_are(name):
    page = PAGES[name]

    assert metrics_in(page) <= SERIES.keys() | {spec.name for spec in SERIES.values()}
    assert set(re.findall(r"\b\w+:inference_\w+:\w+", page)) <= RECORDED
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", page):
        assert (RUNBOOKS / target).exists(), target
    for command in re.findall(r"inference-worker ((?:[a-z][a-z-]* ?)+)", page):
        assert _is_a_command(command.split()), command


def _is_a_command(words):
    """Whether the first words are a command of ours; the rest are its arguments."""
    command = typer.main.get_command(cli)
    for word in words:
        if not hasattr(command, "commands"):
            return True
        if word not in command.commands:
            return False
        command = command.commands[word]
    return True


def test_prometheus_scrapes_each_process_under_the_name_that_rules_and_boards_know():
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    jobs = {job["job_name"] for job in configuration["scrape_configs"]}
    asked = {name for rule in ALERTS.values() for name in re.findall(r'job="(\w+)"', rule["expr"])}

    assert jobs == {"worker", "monitor", "server", "lag"}
    assert asked <= jobs
    assert configuration["rule_files"] == ["*.rules.yaml"]
