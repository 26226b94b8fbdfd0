"""docker-compose.yml and the Dockerfile: valid, hardened, and in an order that works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from compose_services import ROOT, compose, our_services

BIN = Path(sys.executable).parent
SERVICES = compose()["services"]
OURS = [service.name for service in our_services()]


def test_the_compose_file_follows_the_compose_specification():
    outcome = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_the_dockerfile_passes_hadolint():
    outcome = subprocess.run(
        [BIN / "hadolint", ROOT / "deploy/docker/Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )

    assert (outcome.returncode, outcome.stdout + outcome.stderr) == (0, "")


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_a_read_only_root_no_capabilities_and_limits(name):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_has_limits_and_no_capabilities(name):
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_beyond_this_machine(name):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_only_for_what_can_be_waited_for(name):
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[needed]["healthcheck"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert SERVICES[needed]["restart"] == "no"


def test_the_worker_starts_when_kafka_topics_model_and_registry_are_there():
    assert SERVICES["worker"]["depends_on"].keys() == {"kafka", "schema-registry", "topics", "models"}


def test_the_worker_can_be_scaled():
    assert "container_name" not in SERVICES["worker"]
    assert "ports" not in SERVICES["worker"]


def test_the_worker_has_longer_to_stop_than_it_may_drain():
    pipeline = yaml.safe_load((ROOT / "deploy/pipelines/churn-registry.yaml").read_text())
    drain_timeout_s = pipeline.get("worker", {}).get("drain_timeout_s", 20)

    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= drain_timeout_s + 10


@pytest.mark.parametrize("service", our_services(), ids=OURS)
def test_every_mounted_file_is_in_the_repository(service):
    assert all(file.exists() for file in service.mounted_files.values())


def test_every_build_argument_names_an_extra_of_the_package():
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)

    asked_for = {SERVICES[name]["build"]["args"]["EXTRA"] for name in OURS}

    assert asked_for - {""} <= set(extras)


def test_the_image_runs_as_nobody_in_particular():
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()

    assert "USER 10001:10001" in dockerfile.rpartition("FROM ")[2]
