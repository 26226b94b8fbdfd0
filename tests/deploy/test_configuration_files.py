"""Pipelines and what compose is told: every file parses, and they agree with one another."""

from pathlib import Path

import pytest
import yaml
from compose_services import ROOT, bind_mounts, compose

from app.settings.reading import environment_names, load_settings
from app.settings.root import ALIASES

YAML_FILES = [
    *(ROOT / "deploy").rglob("*.yaml"),
    *(ROOT / "deploy").rglob("*.yml"),
    ROOT / "docker-compose.yml",
]
PIPELINES = sorted((ROOT / "deploy/pipelines").glob("*.yaml"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_yaml_file_parses_to_something(path):
    documents = list(yaml.safe_load_all(path.read_text()))

    assert documents
    assert all(isinstance(each, dict | list) for each in documents)


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_a_pipeline_names_topics_that_compose_makes(path):
    (pipeline,) = yaml.safe_load(path.read_text())["pipelines"]
    made = {part.partition(":")[0] for part in compose()["services"]["topics"]["command"]}

    assert {*pipeline["input_topics"], pipeline["output_topic"], pipeline["dead_letter_topic"]} <= made


@pytest.mark.usefixtures("_no_settings_in_the_environment")
@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_the_worker_accepts_a_pipeline_and_finds_schemas_and_models_in_the_repository(path):
    settings = load_settings(path)

    assert settings.schemas.directory.resolve() == ROOT / "schemas"
    assert Path(settings.models.store.removeprefix("file://")).resolve() == ROOT / "var/models"
    assert (settings.schemas.registry_url is not None) == path.stem.endswith("-registry")


@pytest.mark.usefixtures("_no_settings_in_the_environment")
@pytest.mark.parametrize("name", ["worker", "server", "monitor", "lag"])
def test_a_service_accepts_what_compose_tells_it(monkeypatch, name):
    service = compose()["services"][name]
    for variable, value in service.get("environment", {}).items():
        monkeypatch.setenv(variable, value)

    settings = load_settings(bind_mounts(service)["/etc/inference/pipeline.yaml"])

    assert settings.kafka.bootstrap_servers == "kafka:19092"
    assert settings.schemas.registry_url.startswith("http://schema-registry:")
    assert settings.models.store == "file:///var/lib/inference/models"
    assert str(settings.schemas.directory) == "/usr/share/inference/schemas"
    assert {settings.http.host, settings.serving.host} == {"0.0.0.0"}
    assert settings.models.cache.enabled == (name == "server")


@pytest.fixture
def _no_settings_in_the_environment(monkeypatch):
    for name in [*environment_names(), *ALIASES]:
        monkeypatch.delenv(name, raising=False)
