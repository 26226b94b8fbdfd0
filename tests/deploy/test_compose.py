"""docker-compose.yml and the Dockerfile: valid, hardened, bounded, and in an order that works."""

import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import yaml
from compose_services import ROOT, bind_mounts, compose, is_job, is_ours
from compose_twin import compose_model, own_ports

BIN = Path(sys.executable).parent
SERVICES = compose()["services"]
OURS = {name: service for name, service in SERVICES.items() if is_ours(service)}
LASTING = {name: service for name, service in SERVICES.items() if not is_job(service)}


def test_the_compose_file_follows_the_compose_specification():
    _passes("check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml")


def test_the_dockerfile_passes_hadolint():
    assert _passes("hadolint", ROOT / "deploy/docker/Dockerfile") == ""


def test_composes_own_library_reads_it_and_finds_every_service():
    assert compose_model()["services"].keys() == SERVICES.keys()


def test_it_has_what_the_product_is_made_of():
    assert SERVICES.keys() == {
        "kafka", "schema-registry", "redis", "topics", "models", "worker", "server", "monitor", "lag", "prometheus",
        "grafana", "loadgen",
    }  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_can_write_nowhere_but_where_it_is_told_and_has_no_rights_beyond(name):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert any(each.split(":")[0] == "/tmp" for each in service["tmpfs"])
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_limits(name):
    assert SERVICES[name]["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert SERVICES[name]["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_runs_as_root(name):
    if name in OURS:
        assert "user" not in SERVICES[name]  # the Dockerfile has it
    else:
        user, _, _ = SERVICES[name]["user"].partition(":")
        assert int(user) > 0


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_a_version_that_stays_what_it_is(name):
    repository, _, tag = SERVICES[name]["image"].rpartition(":")

    assert repository
    assert tag == "local" if name in OURS else re.match(r"v?\d+\.\d+\.\d+", tag)


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_beyond_this_machine(name):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_no_two_services_want_the_same_port_of_the_machine():
    published = [port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])]
    fixed = [port for port in published if port]

    assert len(set(fixed)) == len(fixed)


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_started_again_is_asked_how_it_is_and_is_process_one_of_nobody(name):
    service = LASTING[name]

    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"].keys() >= {"interval", "timeout", "retries", "start_period", "start_interval"}


@pytest.mark.parametrize("name", LASTING)
def test_a_healthcheck_asks_a_port_that_the_service_is_known_to_listen_on(name):
    asked = {int(port) for port in re.findall(r"(?<=[/: ])\d{4,5}\b", " ".join(LASTING[name]["healthcheck"]["test"]))}

    assert asked
    assert asked <= set(own_ports(compose_model()["services"][name]))


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - LASTING.keys()))
def test_a_job_is_judged_by_its_exit_code(name):
    assert SERVICES[name]["healthcheck"] == {"disable": True}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_only_for_what_can_be_waited_for(name):
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_healthy" if needed in LASTING else "service_completed_successfully"
        assert how == {"condition": expected}


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_is_told_to_reach_it_waits_for(name):
    service = compose_model()["services"][name]
    told = [*(service.get("environment") or {}).values(), *(service.get("command") or [])]
    reached = {other for other in SERVICES if other != name and any(f"{other}:" in text for text in told)}

    assert reached <= _before(name)


def test_prometheus_scrapes_services_at_ports_that_they_have():
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    asked = {(name, found["port"]) for job in jobs for found in job["dns_sd_configs"] for name in found["names"]}
    services = compose_model()["services"]

    assert {name for name, _ in asked} == {"worker", "server", "monitor", "lag"}
    assert all(port in own_ports(services[name]) for name, port in asked)


def test_grafana_finds_its_first_page_and_where_its_dashboards_are():
    grafana = SERVICES["grafana"]
    mounts = bind_mounts(grafana)
    page = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    provider = mounts["/etc/grafana/provisioning"] / "dashboards/inference.yaml"

    assert (mounts[str(page.parent)] / page.name).is_file()
    assert [each["options"]["path"] for each in yaml.safe_load(provider.read_text())["providers"]] == [str(page.parent)]


def test_nobody_administers_grafana_with_the_password_that_every_grafana_begins_with():
    environment = SERVICES["grafana"]["environment"]

    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"  # the form's absence keeps nobody from `curl -u`
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_load_is_made_only_when_it_is_asked_for():
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["loadgen"]


def test_workers_can_be_any_number():
    worker = SERVICES["worker"]

    assert "container_name" not in worker
    assert worker["ports"] == ["127.0.0.1::8080"]  # one that is free, for each
    assert "INFERENCE_WORKER__INSTANCE_ID" not in worker.get("environment", {})
    assert "worker" not in _pipeline()  # so that instance_id is the host name


@pytest.mark.parametrize("name", ["worker", "server"])
def test_what_drains_has_longer_to_stop_than_it_may_drain(name):
    section = {"worker": "worker", "server": "serving"}[name]
    drain_timeout_s = _pipeline().get(section, {}).get("drain_timeout_s", 20)

    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= drain_timeout_s + 10


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_in_the_repository_and_cannot_be_written(name):
    mounts = bind_mounts(SERVICES[name])

    assert all(path.exists() for path in mounts.values())
    assert all(volume.endswith(":ro") for volume in SERVICES[name].get("volumes", []) if volume.startswith("./"))


def test_only_the_trainer_writes_models():
    volumes = chain.from_iterable(((name, each) for each in SERVICES[name].get("volumes", [])) for name in SERVICES)
    writers = [name for name, each in volumes if each.startswith("models:") and not each.endswith(":ro")]

    assert writers == ["models"]


def test_every_build_argument_names_an_extra_of_the_package():
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)

    asked_for = {service["build"]["args"]["EXTRA"] for service in OURS.values()}

    assert asked_for - {""} <= set(extras)


@pytest.mark.parametrize(
    ("extra", "options"),
    [("", []), ("serving", ["--extra", "serving"]), ("serving tracing", ["--extra", "serving", "--extra", "tracing"])],
)
def test_an_image_can_have_several_extras_and_none(extra, options):
    """The shell of the Dockerfile's own lines, with an echo in the place of uv."""
    script = re.findall(r"^    (for extra .*?)\n\n?(?=COPY|FROM)", _dockerfile(), re.DOTALL | re.MULTILINE)
    assert len(script) == 2
    for lines in script:
        told = subprocess.run(
            ["/bin/sh", "-c", lines.replace("uv sync", "echo")], env={"EXTRA": extra}, capture_output=True, text=True,
            check=True, timeout=60,
        ).stdout.split()  # fmt: skip
        assert told[:2] == ["--frozen", "--no-dev"]
        assert told[3:] == options


def test_an_image_is_built_in_one_way_only():
    ways = {(service["image"], service["build"]["args"]["EXTRA"]) for service in OURS.values()}

    assert len({image for image, _ in ways}) == len(ways)


def test_the_image_runs_as_nobody_in_particular():
    assert "USER 10001:10001" in _dockerfile().rpartition("FROM ")[2]


def _dockerfile():
    return (ROOT / "deploy/docker/Dockerfile").read_text()


def _pipeline():
    return yaml.safe_load((ROOT / "deploy/docker/pipeline.yaml").read_text())


def _before(name):
    """Every service that is there before this one starts."""
    needed = SERVICES[name].get("depends_on", {}).keys()
    return set(needed).union(*map(_before, needed))


def _passes(program, *arguments):
    """What it wrote."""
    done = subprocess.run([BIN / program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
