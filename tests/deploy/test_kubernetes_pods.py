"""Pods of deploy/kubernetes/: what they may do, what they run, how they are asked and how they end."""

import re
import tomllib

import pytest
from kubernetes_manifests import FOLDER, OVERLAYS, ROOT, WORKLOADS, make_secrets, of_kind, overlay, selects, workloads
from typer.testing import CliRunner

from app import __main__ as program
from app.errors import BadSettings
from app.settings.reading import environment_names, load_settings
from app.settings.root import ALIASES
from app.worker.process import CLOSE_MARGIN_S
from app.worker.supervisor import KILL_MARGIN_S

SETTINGS_FILE = FOLDER / "base/settings/churn.yaml"
PODS = [(name, workload) for name in OVERLAYS for workload in workloads(overlay(name))]
each_pod = pytest.mark.parametrize(("name", "workload"), PODS, ids=[f"{name}-{pod.name}" for name, pod in PODS])
each_overlay = pytest.mark.parametrize("name", OVERLAYS)


@pytest.fixture
def secrets(tmp_path):
    return make_secrets(tmp_path)


@each_pod
def test_a_pod_is_allowed_nothing_that_it_does_not_need(name, workload):
    assert workload.pod["automountServiceAccountToken"] is False
    security = workload.pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["runAsGroup"]) == (True, 10001, 10001)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert workload.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "hostPath"} & workload.pod.keys()


@each_pod
def test_what_a_pod_may_write_is_a_bounded_directory_of_its_own(name, workload):
    for mount in workload.container["volumeMounts"]:
        volume, _ = workload.mounted(mount["mountPath"])
        assert mount.get("readOnly") or "sizeLimit" in volume["emptyDir"], mount
        assert volume.get("secret", {}).get("defaultMode", 0o440) == 0o440


@each_pod
def test_a_container_has_requests_and_limits_for_cpu_and_memory(name, workload):
    resources = workload.container["resources"]
    assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}
    assert resources["requests"]["memory"] == resources["limits"]["memory"]  # memory cannot be taken back


@each_pod
def test_an_image_has_the_version_of_the_package(name, workload):
    repository, _, tag = workload.container["image"].partition(":")
    assert tag == version_of_the_package()
    assert repository == {"server": "inference-server", "monitor": "inference-monitor"}.get(
        workload.component, "inference-worker"
    )


@each_pod
def test_the_command_is_one_that_there_is(name, workload):
    outcome = CliRunner().invoke(program.cli, [*workload.container["args"], "--help"])
    assert outcome.exit_code == 0, outcome.output


@each_pod
def test_the_products_own_loader_takes_what_the_container_is_told(name, workload, secrets, monkeypatch):
    settings = workload.settings(overlay(name), secrets, monkeypatch)

    assert settings.log.format == "json"
    assert settings.schemas.directory.as_posix() == "/usr/share/inference/schemas"
    reaches_kafka = workload.component != "server"
    security = settings.kafka.security
    assert (security.password_file is not None) == (security.ca_file is not None) == reaches_kafka
    if reaches_kafka:
        assert security.username == f"inference-{workload.component}"  # a principal of its own
    assert (settings.serving.access.api_keys_file is not None) == (workload.component == "server")


def test_check_config_takes_the_file_that_the_config_map_is_made_of(monkeypatch):
    for variable in [*environment_names(), *ALIASES]:
        monkeypatch.delenv(variable, raising=False)
    outcome = CliRunner().invoke(program.cli, ["check-config", "--config", str(SETTINGS_FILE)])
    assert outcome.exit_code == 0, outcome.output

    (config_map,) = of_kind(overlay("rolling"), "ConfigMap")
    assert config_map["data"] == {"settings.yaml": SETTINGS_FILE.read_text()}
    assert re.fullmatch(r"inference-settings-[a-z0-9]{10}", config_map["metadata"]["name"])  # new content, new pods


@each_pod
def test_ports_are_those_that_the_settings_open_and_probes_ask_them(name, workload, secrets, monkeypatch):
    settings = workload.settings(overlay(name), secrets, monkeypatch)

    if workload.component == "server":
        assert workload.ports == {"http": settings.serving.port, "grpc": settings.serving.grpc.port}
        assert settings.serving.host == "0.0.0.0"
        assert workload.container["readinessProbe"]["grpc"] == {"port": settings.serving.grpc.port}
        assert settings.serving.tls.cert_file is None  # the kubelet's gRPC probe knows no TLS
    else:
        assert workload.ports == {"http": settings.http.port}
        assert settings.http.host == "0.0.0.0"
        assert workload.container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@each_pod
def test_only_a_pod_that_stands_still_is_restarted_not_one_whose_broker_is_away(name, workload):
    for probe in ("startupProbe", "livenessProbe"):
        assert workload.container[probe]["httpGet"] == {"path": "/livez", "port": "http"}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        about = workload.container[probe]
        assert about["timeoutSeconds"] <= about["periodSeconds"]
    start = workload.container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 60


@each_pod
def test_a_pod_ends_by_itself_before_it_is_killed(name, workload, secrets, monkeypatch):
    settings = workload.settings(overlay(name), secrets, monkeypatch)
    grace_s = workload.pod["terminationGracePeriodSeconds"]

    if workload.component == "worker":
        assert grace_s >= settings.worker.drain_timeout_s + CLOSE_MARGIN_S + KILL_MARGIN_S + 5
        assert "lifecycle" not in workload.container  # nobody sends it requests: SIGTERM at once
    elif workload.component == "server":
        pause_s = workload.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause_s >= 5  # until every proxy has heard of it
        assert grace_s >= pause_s + settings.serving.drain_timeout_s + 10
    else:
        assert grace_s >= 15


@each_pod
def test_service_links_are_off_since_they_would_be_settings_that_nobody_knows(name, workload):
    assert workload.pod["enableServiceLinks"] is False


def test_a_service_of_ours_in_the_environment_is_refused_as_a_setting(monkeypatch):
    (service,) = (item for item in of_kind(overlay("rolling"), "Service") if "clusterIP" not in item["spec"])
    monkeypatch.setenv(f"{service['metadata']['name'].upper().replace('-', '_')}_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(BadSettings, match="INFERENCE_SERVER_SERVICE_HOST"):
        load_settings(SETTINGS_FILE)


@pytest.mark.parametrize("name", ["rolling", "keda", "hpa-only", "blue-green"])
def test_a_worker_has_the_transactional_id_of_its_pod_and_no_two_have_one(name, secrets, monkeypatch):
    pods = [pod for pod in workloads(overlay(name)) if pod.component == "worker"]
    identities = []
    for pod in pods:
        settings = pod.settings(overlay(name), secrets, monkeypatch)
        (pipeline,) = settings.pipelines
        identities.append(settings.identity_of(pipeline))
    assert identities == [f"churn-workers-{pod.name}-0-0" for pod in pods]
    assert len(set(identities)) == len(identities)


@each_overlay
def test_only_a_fleet_of_fixed_size_is_static_and_keeps_places_for_as_long_as_a_pod_takes_to_come_back(
    name, secrets, monkeypatch
):
    for pod in workloads(overlay(name)):
        if pod.component != "worker":
            continue
        settings = pod.settings(overlay(name), secrets, monkeypatch)
        fixed = name in {"rolling", "blue-green"}
        assert settings.worker.static_membership == fixed
        assert settings.kafka.session_timeout_s == (30 if fixed else 10)
        assert "heartbeat.interval.ms" not in settings.kafka.client  # short enough by itself, however long the session
        if fixed:
            assert settings.kafka.session_timeout_s > settings.worker.drain_timeout_s


@each_overlay
def test_workers_of_a_stateful_set_start_and_stop_all_at_once(name):
    for item in of_kind(overlay(name), "StatefulSet"):
        assert item["spec"]["podManagementPolicy"] == "Parallel"
        services = {service["metadata"]["name"]: service for service in of_kind(overlay(name), "Service")}
        assert services[item["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"


@each_overlay
def test_a_workload_selects_the_pods_it_makes_and_no_others(name):
    pods = workloads(overlay(name))
    for owner in pods:
        selected = [pod.name for pod in pods if selects(owner.item["spec"]["selector"], pod.labels)]
        assert selected == [owner.name]


@each_overlay
def test_pods_of_a_fleet_are_spread_over_zones_and_nodes_and_none_waits_for_that(name):
    for workload in workloads(overlay(name)):
        if workload.component == "lag":
            continue  # there is one
        rules = workload.pod["topologySpreadConstraints"]
        assert [rule["topologyKey"] for rule in rules] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for rule in rules:
            assert rule["whenUnsatisfiable"] == "ScheduleAnyway"
            assert selects(rule["labelSelector"], workload.labels)


def test_the_deployment_has_the_stateful_sets_pods():
    (stateful,) = (pod for pod in workloads(overlay("rolling")) if pod.component == "worker")
    (deployed,) = (pod for pod in workloads(overlay("deployment")) if pod.component == "worker")
    assert deployed.item["kind"] == WORKLOADS[1]
    differences = {key for key in stateful.container if stateful.container[key] != deployed.container[key]}
    assert differences == {"env"}
    assert {**stateful.pod, "containers": []} == {**deployed.pod, "containers": []}


def test_a_namespace_of_ours_takes_no_pod_that_is_allowed_more():
    for name in OVERLAYS:
        (namespace,) = of_kind(overlay(name), "Namespace")
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def version_of_the_package():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
