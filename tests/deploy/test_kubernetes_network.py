"""What selects pods in deploy/kubernetes/: services, budgets, policies, monitors. Each selects the right ones."""

import re
from ipaddress import ip_address, ip_network

import pytest
import yaml
from kubernetes_manifests import (
    FOLDER,
    OVERLAYS,
    PAGE,
    ROOT,
    make_secrets,
    of_kind,
    overlay,
    secrets_of_the_page,
    selects,
    with_component,
    workloads,
)

each_overlay = pytest.mark.parametrize("name", OVERLAYS)
CRON_JOB_LABELS = yaml.safe_load((FOLDER / "score-cronjob.yaml").read_text())["spec"]["jobTemplate"]["spec"][
    "template"
]["metadata"]["labels"]


@pytest.fixture
def secrets(tmp_path):
    return make_secrets(tmp_path)


@each_overlay
def test_a_service_leads_to_ports_of_pods_that_there_are(name):
    for service in of_kind(overlay(name), "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        behind = [pod for pod in workloads(overlay(name)) if selects(selector, pod.labels)]
        assert len(behind) == 1, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert behind[0].ports[port["targetPort"]] == port["port"]


@each_overlay
def test_a_disruption_takes_one_pod_of_a_fleet_at_a_time_and_never_waits_for_what_is_broken(name):
    budgets = of_kind(overlay(name), "PodDisruptionBudget")
    for budget in budgets:
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    for pod in workloads(overlay(name)):
        of_it = [budget for budget in budgets if selects(budget["spec"]["selector"], pod.labels)]
        assert len(of_it) == (0 if pod.component == "lag" else 1), pod.name  # two budgets of one pod block its eviction


@each_overlay
def test_every_pod_is_scraped_once_at_a_port_that_it_has(name):
    monitors = of_kind(overlay(name), "PodMonitor")
    for pod in workloads(overlay(name)):
        (monitor,) = (item for item in monitors if selects(item["spec"]["selector"], pod.labels))
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in pod.ports
        assert seconds(endpoint["scrapeTimeout"]) < seconds(endpoint["interval"])


@each_overlay
def test_jobs_are_called_as_in_prometheus_own_configuration_which_rules_and_dashboards_go_by(name):
    configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"] for job in configuration["scrape_configs"]}
    for pod in workloads(overlay(name)):
        (monitor,) = (
            item for item in of_kind(overlay(name), "PodMonitor") if selects(item["spec"]["selector"], pod.labels)
        )
        assert pod.labels[monitor["spec"]["jobLabel"]] in jobs


@each_overlay
def test_nothing_comes_in_or_goes_out_that_no_policy_names(name):
    (deny,) = (item for item in policies(name) if item["metadata"]["name"] == "deny-what-is-not-allowed")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@each_overlay
def test_every_policy_is_about_pods_that_there_are_and_ports_that_they_have(name):
    for policy in policies(name):
        about = [pod for pod in workloads(overlay(name)) if selects(policy["spec"]["podSelector"], pod.labels)]
        assert about, policy["metadata"]["name"]
        for rule in policy["spec"].get("ingress", []):
            for port in rule["ports"]:
                assert all(port["port"] in pod.ports for pod in about)


@each_overlay
def test_each_pod_reaches_what_its_settings_name_and_the_server_does_not_reach_kafka(name, secrets, monkeypatch):
    for pod in workloads(overlay(name)):
        settings = pod.settings(overlay(name), secrets, monkeypatch)
        kafka = host_and_port(settings.kafka.bootstrap_servers)
        registry = host_and_port(settings.schemas.registry_url.split("/")[2])
        allowed = egress(name, pod.labels)
        assert (("kafka", kafka[1]) in allowed) == (pod.component != "server")
        assert (("kafka", registry[1]) in allowed) == (pod.component in {"worker", "monitor"})
        assert (("anywhere", 443) in allowed) == (pod.component != "lag")
        assert {("kube-system", 53)} <= allowed
        assert kafka[0].split(".")[1] == registry[0].split(".")[1] == "kafka"  # the namespace that the policies name


def test_batch_scoring_reaches_its_bucket():
    assert ("anywhere", 443) in egress("rolling", CRON_JOB_LABELS)


def test_nobody_reaches_the_clouds_metadata():
    """At the same address a cloud may have its name server."""
    for address in ("169.254.169.254", "fd00:ec2::254"):
        assert ports_of(address, "rolling") <= {53}


@each_overlay
def test_names_are_found_where_name_servers_are_no_pods(name):
    """NodeLocal DNSCache is in the host's network, Cloud DNS of GKE in none: no selector finds either."""
    for address in ("169.254.20.10", "169.254.169.254"):
        assert 53 in ports_of(address, name)


@each_overlay
def test_every_secret_that_a_pod_needs_is_on_the_page_and_the_other_way_round(name):
    told = secrets_of_the_page()
    needed = {}
    for pod in workloads(overlay(name)):
        for variable in pod.container["env"]:
            if str(variable.get("value")).startswith("/run/secrets/"):
                volume, key = pod.mounted(variable["value"])
                needed.setdefault(volume["secret"]["secretName"], set()).add(key)
            elif "secretKeyRef" in variable.get("valueFrom", {}):
                reference = variable["valueFrom"]["secretKeyRef"]
                needed.setdefault(reference["name"], set()).add(reference["key"])
    for access in of_kind(overlay(name), "TriggerAuthentication"):
        for item in access["spec"]["secretTargetRef"]:
            needed.setdefault(item["name"], set()).add(item["key"])
    assert needed == {secret: keys for secret, keys in told.items() if secret in needed}
    assert told.keys() - needed.keys() <= {"inference-keda-kafka", "inference-redis"}
    assert not of_kind(overlay(name), "Secret")  # none is in the repository


@each_overlay
def test_no_secret_is_mounted_that_nothing_reads(name):
    for pod in workloads(overlay(name)):
        read = {
            pod.mounted(item["value"])[0]["name"]
            for item in pod.container["env"]
            if str(item.get("value")).startswith("/run/secrets/")
        }
        assert {volume["name"] for volume in pod.pod["volumes"] if "secret" in volume} == read


@each_overlay
def test_models_on_a_volume_need_no_key_of_a_bucket(name, tmp_path, secrets, monkeypatch):
    objects = with_component("model-store-volume", name, tmp_path / "overlay")
    (claim,) = of_kind(objects, "PersistentVolumeClaim")
    assert claim["metadata"]["namespace"] == "inference"
    for pod in workloads(objects):
        settings = pod.settings(objects, secrets, monkeypatch)
        if pod.component == "lag":
            continue
        assert settings.models.store == "file:///var/lib/inference/models"
        assert settings.models.store_options.access_key_id is None
        volume, _ = pod.mounted("/var/lib/inference/models")
        assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"], "readOnly": True}
        assert "model-store" not in {volume["name"] for volume in pod.pod["volumes"]}


@each_overlay
def test_the_shared_cache_is_reached_by_those_who_score(name, tmp_path, secrets, monkeypatch):
    objects = with_component("redis-cache", name, tmp_path / "overlay")
    (policy,) = (item for item in of_kind(objects, "NetworkPolicy") if item["metadata"]["name"] == "reach-redis")
    assert policy["metadata"]["namespace"] == "inference"
    for pod in workloads(objects):
        cache = pod.settings(objects, secrets, monkeypatch).models.cache
        scores = pod.component in {"worker", "server"}
        assert cache.enabled == scores == selects(policy["spec"]["podSelector"], pod.labels)
        assert not scores or cache.redis_url == "redis://redis.redis.svc:6379/0"


@each_overlay
def test_who_sends_spans_reaches_the_collector(name, tmp_path, secrets, monkeypatch):
    objects = with_component("tracing", name, tmp_path / "overlay")
    (policy,) = (
        item for item in of_kind(objects, "NetworkPolicy") if item["metadata"]["name"] == "reach-the-collector"
    )
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    for pod in workloads(objects):
        tracing = pod.settings(objects, secrets, monkeypatch).tracing
        traced = pod.component in {"worker", "server"}
        assert tracing.enabled == traced == selects(policy["spec"]["podSelector"], pod.labels)
        if traced:
            host, port = host_and_port(tracing.endpoint.removeprefix("http://"))
            assert port in ports
            assert host.split(".")[1] == "observability"  # the namespace that the policy names
            assert tracing.service_name == f"inference-{pod.component}"


def test_every_overlay_and_component_is_on_the_page_and_every_path_of_the_page_is_there():
    assert {path.name for path in (FOLDER / "overlays").iterdir()} == set(OVERLAYS)
    for kind in ("overlays", "components"):
        for path in (FOLDER / kind).iterdir():
            assert path.name in PAGE
    for path in re.findall(r"(?:deploy/kubernetes/)?((?:overlays|components|base)/[\w/.-]+)", PAGE):
        assert (FOLDER / path.rstrip(".")).exists(), path


def policies(name):
    return of_kind(overlay(name), "NetworkPolicy")


def egress(name, labels):
    """(namespace or "anywhere", port) of everything that pods with these labels may reach."""
    found = set()
    for policy in policies(name):
        if not selects(policy["spec"]["podSelector"], labels):
            continue
        for rule in policy["spec"].get("egress", []):
            for peer in rule["to"]:
                namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
                found |= {(namespace or "anywhere", port["port"]) for port in rule["ports"]}
    return found


def ports_of(address, name):
    """Ports that some pod may reach at this address."""
    address = ip_address(address)
    return {
        port["port"]
        for policy in policies(name)
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if (block := peer.get("ipBlock"))
        and address in ip_network(block["cidr"])
        and not any(address in ip_network(spared) for spared in block.get("except", []))
        for port in rule["ports"]
    }


def host_and_port(address):
    host, _, port = address.partition(":")
    return host, int(port)


def seconds(text):
    return int(text.removesuffix("s"))
