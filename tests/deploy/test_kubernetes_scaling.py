"""Autoscalers of deploy/kubernetes/: what they scale, by which number, and how far."""

import math
import re
import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_manifests import (
    FOLDER,
    OVERLAYS,
    make_secrets,
    name_of,
    of_kind,
    overlay,
    partitions_of_the_page,
    workloads,
)

from deploy.local.artifacts import promtool

each_overlay = pytest.mark.parametrize("name", OVERLAYS)
TOLERANCE = 0.1  # of the Horizontal Pod Autoscaler
ADAPTER = yaml.safe_load((FOLDER / "overlays/hpa-only/adapter-rules.yaml").read_text())
(SCALED,) = of_kind(overlay("keda"), "ScaledObject")
SOMEBODY, HOW_MANY = SCALED["spec"]["triggers"]
(WORKER_HPA,) = (
    item
    for item in of_kind(overlay("hpa-only"), "HorizontalPodAutoscaler")
    if item["metadata"]["name"] == "inference-worker"
)


@pytest.fixture
def secrets(tmp_path):
    return make_secrets(tmp_path)


@pytest.fixture
def settings(secrets, monkeypatch):
    """Of the worker that KEDA scales."""
    (worker,) = (pod for pod in workloads(overlay("keda")) if pod.component == "worker")
    return worker.settings(overlay("keda"), secrets, monkeypatch)


@each_overlay
def test_an_autoscaler_has_a_target_and_no_target_has_two(name):
    scaled = [target_of(item) for item in of_kind(overlay(name), "HorizontalPodAutoscaler", "ScaledObject")]
    assert len(scaled) == len(set(scaled))
    there = {name_of(item): item for item in overlay(name)}
    for target in scaled:
        # applying a manifest that has `replicas` would set back what the autoscaler decided
        assert "replicas" not in there[target]["spec"], target
    for pod in workloads(overlay(name)):
        assert ("replicas" in pod.item["spec"]) == (name_of(pod.item) not in scaled)


@pytest.mark.parametrize(
    ("name", "scaled"),
    [("rolling", False), ("deployment", False), ("blue-green", False), ("hpa-only", True), ("keda", True)],
)
def test_workers_are_scaled_in_the_overlays_that_say_so(name, scaled):
    targets = {target_of(item) for item in of_kind(overlay(name), "HorizontalPodAutoscaler", "ScaledObject")}
    assert ("StatefulSet/inference-worker" in targets) == scaled


def test_there_are_never_more_workers_than_partitions_and_all_who_count_them_agree(settings):
    most = partitions_of_the_page()
    assert SCALED["spec"]["maxReplicaCount"] == WORKER_HPA["spec"]["maxReplicas"] == most
    assert settings.lag.scaling.max_replicas == most


def test_the_exporter_makes_no_step_that_the_autoscaler_would_take_for_nothing(settings):
    assert settings.lag.scaling.dead_band >= TOLERANCE


def test_the_number_is_in_processes_so_a_pod_is_one(settings):
    assert settings.worker.processes == 1


def test_keda_asks_for_the_group_and_the_topic_that_workers_read(settings):
    (pipeline,) = settings.pipelines
    about = SOMEBODY["metadata"]
    assert about["consumerGroup"] == settings.group_id_of(pipeline)
    assert [about["topic"]] == list(pipeline.input_topics)
    assert about["bootstrapServers"] == settings.kafka.bootstrap_servers
    assert about["offsetResetPolicy"] == settings.kafka.start_from
    assert about["sasl"] == {"SCRAM-SHA-512": "scram_sha512"}[settings.kafka.security.mechanism]
    assert (about["tls"] == "enable") == settings.kafka.security.protocol.endswith("SSL")
    assert f'group="{settings.group_id_of(pipeline)}"' in HOW_MANY["metadata"]["query"]


def test_both_autoscalers_ask_for_the_same_group():
    (metric,) = WORKER_HPA["spec"]["metrics"]
    selector = metric["external"]["metric"]["selector"]["matchLabels"]
    assert selector == {"group": SOMEBODY["metadata"]["consumerGroup"]}


@given(lag=st.integers(1, 10**12), number=st.integers(0, 12), replicas=st.integers(1, 12))
def test_the_lag_only_says_that_somebody_is_needed_and_never_how_many(lag, number, replicas):
    by_lag = wanted(lag, int(SOMEBODY["metadata"]["lagThreshold"]), replicas)
    by_number = wanted(number, int(HOW_MANY["metadata"]["threshold"]), replicas)

    assert by_lag == 1
    assert max(by_lag, by_number) == max(1, by_number)


@given(number=st.integers(1, 9), replicas=st.integers(1, 9))
def test_below_ten_pods_every_step_is_beyond_the_tolerance(number, replicas):
    assert wanted(number, int(HOW_MANY["metadata"]["threshold"]), replicas) == number


def test_one_event_is_enough_to_begin_and_a_number_that_is_missing_is_not_nobody():
    assert SOMEBODY["metadata"]["activationLagThreshold"] == "0"
    assert HOW_MANY["metadata"]["ignoreNullValues"] == "false"
    fallback = SCALED["spec"]["fallback"]
    assert fallback["behavior"] == "currentReplicasIfHigher"
    assert 1 <= fallback["replicas"] <= SCALED["spec"]["maxReplicaCount"]
    assert all(trigger["metricType"] == "AverageValue" for trigger in (SOMEBODY, HOW_MANY))  # what a fallback needs


def test_to_nobody_it_goes_only_where_the_exporter_can_say_so(secrets):
    minimum = {}
    for name in ("keda", "hpa-only", "rolling"):
        (lag,) = (pod for pod in workloads(overlay(name)) if pod.component == "lag")
        minimum[name] = [
            value for variable, value in lag.environment(secrets).items() if variable.endswith("MIN_REPLICAS")
        ]
    assert SCALED["spec"]["minReplicaCount"] == 0
    assert WORKER_HPA["spec"]["minReplicas"] == 1
    assert minimum == {"keda": ["0"], "hpa-only": [], "rolling": []}


@pytest.mark.parametrize(
    "behavior",
    [WORKER_HPA["spec"]["behavior"], SCALED["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]],
    ids=["hpa-only", "keda"],
)
def test_what_the_number_has_waited_for_is_not_waited_for_again_and_is_one_step(behavior):
    for direction in ("scaleUp", "scaleDown"):
        assert behavior[direction]["stabilizationWindowSeconds"] == 0
    (up,) = behavior["scaleUp"]["policies"]
    assert (up["type"], up["value"]) == ("Pods", partitions_of_the_page())
    (down,) = behavior["scaleDown"]["policies"]
    assert (down["type"], down["value"]) == ("Percent", 100)


def test_prometheus_understands_every_query(tmp_path):
    queries = {"keda": HOW_MANY["metadata"]["query"], **adapter_queries()}
    rules = [{"record": f"query:{name.replace('-', '_')}", "expr": query} for name, query in queries.items()]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run([promtool(), "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_adapter_gives_the_metrics_that_the_autoscalers_ask_for():
    asked = set()
    for item in of_kind(overlay("hpa-only"), "HorizontalPodAutoscaler"):
        for metric in item["spec"]["metrics"]:
            if metric["type"] != "Resource":
                asked.add((metric["type"], metric[metric["type"].lower()]["metric"]["name"]))
    given_as = {
        "External": [rule["name"]["as"] for rule in ADAPTER["externalRules"]],
        "Pods": [rule["name"]["as"] for rule in ADAPTER["rules"]],
    }
    assert asked == {(kind, name) for kind, names in given_as.items() for name in names}


def test_the_adapter_and_keda_ask_for_the_same_number():
    query = adapter_queries()["inference_desired_replicas"]
    assert query == 'max(inference_desired_replicas{namespace="inference",group="churn-workers"}) by (group)'
    assert (
        HOW_MANY["metadata"]["query"] == 'max(inference_desired_replicas{namespace="inference",group="churn-workers"})'
    )


def test_a_namespace_of_the_same_prometheus_does_not_scale_by_anothers_number():
    (namespace,) = of_kind(overlay("keda"), "Namespace")
    assert f'namespace="{namespace["metadata"]["name"]}"' in HOW_MANY["metadata"]["query"]


def test_one_colour_is_in_charge_of_requests_and_of_events():
    objects = overlay("blue-green")
    (service,) = (item for item in of_kind(objects, "Service") if item["metadata"]["name"] == "inference-server")
    in_charge = service["spec"]["selector"]["inference-colour"]
    replicas = {
        pod.labels["inference-colour"]: pod.item["spec"]["replicas"]
        for pod in workloads(objects)
        if pod.component == "worker"
    }
    assert replicas.keys() == {"blue", "green"}
    assert [colour for colour, number in replicas.items() if number > 0] == [in_charge]


def wanted(value, threshold, replicas):
    """What the HPA makes of an external metric with a target AverageValue, as its algorithm is documented."""
    ratio = value / (threshold * replicas)
    return replicas if abs(1 - ratio) <= TOLERANCE else math.ceil(value / threshold)


def target_of(item):
    reference = item["spec"]["scaleTargetRef"]
    return f"{reference['kind']}/{reference['name']}"


def adapter_queries():
    """Metric -> query, with the placeholders of prometheus-adapter's templates filled in as it does."""
    found = {}
    for rule in [*ADAPTER["externalRules"], *ADAPTER["rules"]]:
        external = rule in ADAPTER["externalRules"]
        values = {
            "Series": re.match(r"\w+", rule["seriesQuery"])[0],
            "LabelMatchers": 'namespace="inference",' + ('group="churn-workers"' if external else 'pod=~"a|b"'),
            "GroupBy": "pod",
        }
        found[rule["name"]["as"]] = re.sub(
            r"<<\.(\w+)>>", lambda match, known=values: known[match[1]], rule["metricsQuery"]
        )
    return found
