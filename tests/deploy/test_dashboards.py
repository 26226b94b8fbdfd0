"""The dashboards are what the code says, whole and readable; test_dashboard_queries has that they are answered."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from compose_services import ROOT
from known_metrics import SERIES, SPECS, families, metrics_in, misused

from deploy.grafana import __main__ as grafana

FOLDER = ROOT / "deploy/grafana/dashboards"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in board["panels"] if panel["type"] != "row"]
WIDTH = 24
BUILT_IN = {"__rate_interval", "__all"}

# metric → why no dashboard shows it
NOT_SHOWN = {
    "process_virtual_memory_bytes": "addresses cost nothing",
    "inference_lag_up": "an alert and the age of the figures say the same",
}

of_each_panel = pytest.mark.parametrize(
    ("uid", "panel"), PANELS, ids=[f"{uid}: {panel['title']}" for uid, panel in PANELS]
)
of_each_board = pytest.mark.parametrize("uid", BOARDS)


def queries(board):
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]


def test_they_are_what_the_code_says():
    assert grafana.stale() == []
    assert grafana.main(["--check"]) == 0


def test_a_file_that_is_changed_missing_or_of_nobody_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grafana, "FOLDER", tmp_path)
    assert grafana.main([]) == 0
    (tmp_path / "inference.json").write_text("{}")
    (tmp_path / "inference-lag.json").unlink()
    (tmp_path / "somebodys.json").write_text("{}")

    assert grafana.main(["--check"]) == 1
    assert capsys.readouterr().err.startswith(
        "inference-lag.json, inference.json, somebodys.json: not what the code says"
    )
    assert grafana.main([]) == 0
    assert grafana.stale() == []


def test_the_command_compares():
    done = subprocess.run([sys.executable, "-m", "deploy.grafana", "--check"], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0


@of_each_board
def test_a_boards_panels_fill_its_lines_and_do_not_overlap(uid):
    taken = set()
    for panel in BOARDS[uid]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
    columns, lines = {x for x, _ in taken}, {y for _, y in taken}
    assert columns == set(range(WIDTH))
    assert len(taken) == WIDTH * len(lines)  # no hole


@of_each_board
def test_a_boards_variables_are_those_that_its_questions_use(uid):
    board = BOARDS[uid]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    asked = queries(board) + [
        variable["query"]["query"] for variable in variables.values() if variable["type"] == "query"
    ]
    used = {name for expr in asked for name in re.findall(r"\$\{?(\w+)", expr)}

    assert used - BUILT_IN == variables.keys() - {"datasource"}
    for variable in variables.values():
        if variable["type"] == "query":
            assert (variable["includeAll"], variable["multi"]) == (True, True), variable["name"]
            assert variable["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@of_each_board
def test_a_board_can_be_found_and_leads_to_the_others(uid):
    board = BOARDS[uid]

    assert board["uid"] == uid
    assert board["tags"] == ["inference"]
    assert board["description"]
    assert {link["type"] for link in board["links"]} == {"dashboards", "link"}
    assert all("placement" not in link for link in board["links"])  # in sight, not in a menu
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@of_each_panel
def test_a_panel_says_what_it_shows_in_which_unit(uid, panel):
    assert panel["title"]
    assert len(panel["description"]) > 8
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@of_each_panel
def test_a_panels_series_can_be_told_apart(uid, panel):
    if panel["type"] == "timeseries":
        assert all(target["legendFormat"] for target in panel["targets"])
        assert len({target["legendFormat"] for target in panel["targets"]}) == len(panel["targets"])


@of_each_panel
def test_a_panel_asks_for_metrics_that_there_are_as_their_kind_wants_it(uid, panel):
    for target in panel["targets"]:
        assert metrics_in(target["expr"]) <= SERIES.keys()
        assert misused(target["expr"]) == set()


@of_each_panel
def test_a_panels_runbook_is_there(uid, panel):
    for link in panel.get("links", ()):
        page = link["url"].removeprefix("/public/runbooks/")
        assert (ROOT / "docs/runbooks" / page).is_file(), page


def test_a_firing_alert_leads_to_its_page():
    (panel,) = [panel for _, panel in PANELS if panel["title"] == "Firing alerts"]
    links = [
        link["url"]
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"] == {"id": "byName", "options": "alertname"}
        for given in override["properties"]
        if given["id"] == "links"
        for link in given["value"]
    ]

    assert links == ["/public/runbooks/${__value.raw}.md"]  # test_alerts has that each alert has a page


def test_no_metric_is_without_a_place():
    shown = families({name for board in BOARDS.values() for expr in queries(board) for name in metrics_in(expr)})

    assert SPECS.keys() - shown == NOT_SHOWN.keys()


def test_grafana_finds_the_data_source_and_the_boards():
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/inference.yaml").read_text())["providers"]

    assert source["type"] == "prometheus"
    assert source["isDefault"]  # the variable `datasource` takes it
    assert provider["type"] == "file"
