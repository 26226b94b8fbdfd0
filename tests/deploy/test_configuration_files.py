"""Pipelines, Prometheus and Grafana: every file parses, and they agree with one another."""

import json
import re
from pathlib import Path

import pytest
import yaml
from compose_services import ROOT, our_services

from app.settings import ALIASES, environment_names, load_settings

YAML_FILES = [
    *(ROOT / "deploy").rglob("*.yaml"),
    *(ROOT / "deploy").rglob("*.yml"),
    ROOT / "docker-compose.yml",
]
PIPELINES = sorted((ROOT / "deploy/pipelines").glob("*.yaml"))
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/inference.json").read_text())

COUNTERS = {"records", "predictions", "batches", "dead_letters", "transactions", "rebalances"}
HISTOGRAMS = {
    "end_to_end_latency_seconds",
    "batch_records",
    "batch_wait_seconds",
    "model_seconds",
    "prediction_confidence",
    "model_load_seconds",
}
GAUGES = {"lag_records", "lag_seconds", "busy_ratio", "capacity_records_per_second"}
EXPOSED = (
    {f"inference_{name}_total" for name in COUNTERS}
    | {f"inference_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}
    | {f"inference_{name}" for name in GAUGES}
)


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_yaml_file_parses_to_a_mapping(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_a_pipeline_names_topics_that_compose_makes(path):
    (pipeline,) = yaml.safe_load(path.read_text())["pipelines"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    made = set(re.findall(r"[a-z]+\.[a-z-]+", compose["services"]["topics"]["command"][0]))

    assert {*pipeline["input_topics"], pipeline["output_topic"], pipeline["dead_letter_topic"]} <= made


@pytest.mark.usefixtures("_no_settings_in_the_environment")
@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_the_worker_accepts_a_pipeline_and_finds_schemas_and_models_in_the_repository(path):
    settings = load_settings(path)

    assert settings.schemas.directory.resolve() == ROOT / "schemas"
    assert Path(settings.models.store.removeprefix("file://")).resolve() == ROOT / "var/models"
    assert (settings.schemas.registry_url is not None) == path.stem.endswith("-registry")


@pytest.mark.usefixtures("_no_settings_in_the_environment")
def test_the_worker_accepts_what_compose_tells_it(monkeypatch):
    (worker,) = (service for service in our_services() if service.name == "worker")
    for name, value in worker.environment.items():
        monkeypatch.setenv(name, value)

    settings = load_settings(worker.mounted_files["/etc/inference/pipeline.yaml"])

    assert settings.kafka.bootstrap_servers == "kafka:19092"
    assert settings.schemas.registry_url.startswith("http://schema-registry:")
    assert settings.models.store == "file:///var/lib/inference/models"
    assert str(settings.schemas.directory) == "/usr/share/inference/schemas"
    assert settings.http.host == "0.0.0.0"


@pytest.fixture
def _no_settings_in_the_environment(monkeypatch):
    for name in [*environment_names(), *ALIASES]:
        monkeypatch.delenv(name, raising=False)


def test_the_dashboard_asks_only_for_metrics_that_workers_export():
    asked_for = {
        name
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\binference_\w+", target["expr"])
    }

    assert asked_for
    assert asked_for <= EXPOSED


def test_the_dashboards_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_dashboards_data_source_is_the_one_that_is_provisioned():
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())

    assert [source["uid"] for source in provisioned["datasources"]] == [DASHBOARD["panels"][0]["datasource"]["uid"]]


def test_prometheus_scrapes_the_port_that_the_worker_exposes():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (scrape,) = prometheus["scrape_configs"]

    assert scrape["dns_sd_configs"][0]["names"] == ["worker"]
    assert [str(scrape["dns_sd_configs"][0]["port"])] == compose["services"]["worker"]["expose"]
