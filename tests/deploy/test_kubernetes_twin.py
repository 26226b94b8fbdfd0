"""Pods of deploy/kubernetes/ as processes: the containers' own commands, environment, settings, secrets and probes.

What differs is written in one place, `Pod`: addresses, paths and, where a broker without security is all there is, the
connection's security. The kubelet's part (probes, SIGTERM, the grace period) is played by the test.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import grpc
import pytest
from confluent_kafka import Producer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kubernetes_manifests import ROOT, SETTINGS_PATH, make_secrets, of_kind, overlay, workloads
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.ports import free_ports

WAIT_S = 60.0  # generous: the machine may be busy with other things
LONG_SESSION_S = 120.0  # nothing that a busy machine does takes so long, so whatever is sooner did not wait for it
LONG_SESSION = {"INFERENCE_KAFKA__SESSION_TIMEOUT_S": str(LONG_SESSION_S)}
FEATURES = {"age": 34, "income": 50_000, "tenure_months": 12, "monthly_charges": 70.5, "plan": "basic"}
TOPICS = ["churn.events", "churn.predictions", "churn.dead-letters", "churn.summaries", "churn.predictions.sampled"]


class Pod:
    """One replica of a workload. replacements: of text in its settings; environment: more than its manifest has."""

    def __init__(self, workload, objects, number, folder, store, replacements=None, environment=None):
        self.name = re.sub(r"\d+$", str(number), workload.pod_name)
        self._workload, self._folder = workload, folder / self.name
        self._folder.mkdir(exist_ok=True)
        self._ports = dict(zip(workload.ports.values(), free_ports(len(workload.ports)), strict=True))
        volume, key = workload.mounted(SETTINGS_PATH)
        (config_map,) = (
            item for item in of_kind(objects, "ConfigMap") if item["metadata"]["name"] == volume["configMap"]["name"]
        )
        text = config_map["data"][key]
        ours = {
            "/usr/share/inference/schemas": str(ROOT / "schemas"),
            "s3://models/production": f"file://{store}",
            "0.0.0.0": "127.0.0.1",
            **{f"port: {port}": f"port: {here}" for port, here in self._ports.items()},
            **(replacements or {}),
        }
        for theirs, here in ours.items():
            text = text.replace(theirs, here)
        self._process = None
        self._settings = self._folder / "settings.yaml"
        self._settings.write_text(text)
        insecure = "SASL" not in text
        self._environment = {
            variable: value
            for variable, value in workload.environment(folder / "secrets").items()
            if not (insecure and variable.startswith("INFERENCE_KAFKA__SECURITY__"))
        }
        self._environment |= {"INFERENCE_MODELS__STORE": f"file://{store}"} | (environment or {})
        if "INFERENCE_WORKER__INSTANCE_ID" in self._environment:
            self._environment["INFERENCE_WORKER__INSTANCE_ID"] = self.name

    def start(self):
        """As the kubelet does; the container's log goes on over restarts."""
        arguments = [word.replace(SETTINGS_PATH, str(self._settings)) for word in self._workload.container["args"]]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERENCE_", "KAFKA_"))}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app", *arguments],
                env=kept | self._environment, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return self

    def wait_until(self, condition):
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)
        return self

    def wait_until_ready(self):
        return self.wait_until(lambda: self.probe("startupProbe")).wait_until(lambda: self.probe("readinessProbe"))

    def probe(self, name):
        """Whether the container passes this probe now."""
        about = self._workload.container[name]
        if "grpc" in about:  # the kubelet asks for the server as a whole, without TLS
            target = f"127.0.0.1:{self._ports[about['grpc']['port']]}"
            with grpc.insecure_channel(target) as channel:
                try:
                    answer = health_pb2_grpc.HealthStub(channel).Check(
                        health_pb2.HealthCheckRequest(), timeout=about["timeoutSeconds"]
                    )
                except grpc.RpcError:
                    return False
                return answer.status == health_pb2.HealthCheckResponse.SERVING
        return self.get(about["httpGet"]["path"], about["timeoutSeconds"])[0] == 200

    def get(self, path, timeout_s=10.0, page=None, **headers):
        """(status, text) of the port `http`."""
        body = None if page is None else json.dumps(page).encode()
        url = f"http://127.0.0.1:{self._ports[self._workload.ports['http']]}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=timeout_s) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()
        except OSError:
            return None, ""

    def metric(self, name, **labels):
        """The sum of its samples."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    def stop(self):
        """preStop is over: SIGTERM, then no longer than the grace period. The exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(self._workload.pod["terminationGracePeriodSeconds"])

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_S)

    @property
    def log(self):
        file = self._folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A model store, by the product's own command."""
    folder = tmp_path_factory.mktemp("models")
    done = subprocess.run(
        [sys.executable, "-m", "app", "models", "train", "churn", "--store", f"file://{folder}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@contextlib.contextmanager
def running(name, component, count, folder, store, replacements=None, **environment):
    """So many pods of an overlay's workload, ready."""
    if not (folder / "secrets").exists():
        (folder / "secrets").mkdir()
        make_secrets(folder / "secrets")
    objects = overlay(name)
    (workload,) = (each for each in workloads(objects) if each.component == component)
    pods = [Pod(workload, objects, number, folder, store, replacements, environment) for number in range(count)]
    try:
        for pod in pods:
            pod.start()
        for pod in pods:
            pod.wait_until_ready()
        yield pods
    except BaseException as exc:
        for pod in pods:
            exc.add_note(f"{pod.name}:\n{pod.log[-4000:]}")
        raise
    finally:
        for pod in pods:
            pod.kill()


def test_the_server_is_ready_when_it_answers_needs_a_key_and_ends_in_order(store, tmp_path):
    with running("rolling", "server", 1, tmp_path, store) as (server,):
        server.wait_until(lambda: server.probe("livenessProbe"))
        key = "made-up-api-keys"  # what is in the secret
        assert server.get("/predict", page={"features": FEATURES})[0] == 401
        assert server.get("/predict", page={"features": FEATURES}, **{"x-api-key": key})[0] == 200
        assert (
            server.metric("inference_requests_total", method="/predict", code="200") == 1
        )  # what the PodMonitor reads
        assert server.stop() == 0


@pytest.fixture
def events(kafka, topics):
    """Text in the settings -> what is true for the broker of the tests, with topics of its own."""
    names = {name: topics(name, partitions=4) for name in TOPICS}
    group = names["churn.events"].replace("events", "workers")
    return {
        "kafka-bootstrap.kafka.svc:9093": kafka,
        "security: {protocol: SASL_SSL, mechanism: SCRAM-SHA-512, username: inference-worker}": "security: {}",
        "registry_url: http://schema-registry.kafka.svc:8080/apis/ccompat/v7": "registry_url: null",
        "group_id: churn-workers": f"group_id: {group}",
        **{f"{name}{end}": f"{names[name]}{end}" for name in TOPICS for end in ("]", "\n", ",")},
    }


def test_a_worker_that_is_replaced_comes_back_to_its_partitions_and_nobody_else_notices(events, store, tmp_path):
    with running("rolling", "worker", 2, tmp_path, store, events, **LONG_SESSION) as (first, second):
        both_have_work(first, second)
        first.wait_until(lambda: rebalances(first, "assigned") > rebalances(first, "revoked"))  # what it kept, too
        before = first.metric("inference_rebalances_total")
        assert before > 0

        assert second.stop() == 0
        second.start().wait_until_ready()
        second.wait_until(lambda: second.metric("inference_lag_records") == 0 and partitions(second) == 2)

        assert first.metric("inference_rebalances_total") == before
        assert partitions(first) == 2


def test_a_worker_that_an_autoscaler_takes_away_leaves_at_once(events, store, tmp_path):
    with running("keda", "worker", 2, tmp_path, store, events, **LONG_SESSION) as (first, second):
        both_have_work(first, second)

        assert second.stop() == 0
        left_at = time.monotonic()
        first.wait_until(lambda: partitions(first) == 4)

        assert time.monotonic() - left_at < LONG_SESSION_S / 2  # a static member's partitions wait for as long as that
        assert first.stop() == 0


def test_the_exporter_says_nobody_while_there_is_nothing_to_do_and_somebody_when_there_is(events, store, tmp_path):
    at_once = {"INFERENCE_LAG__SCALING__REACTION_S": "0"}  # no pod is being replaced here, whose return is waited for
    with running("keda", "lag", 1, tmp_path, store, events, **at_once) as (exporter,):
        (group,) = (text.removeprefix("group_id: ") for text in events.values() if text.startswith("group_id: "))

        def number():
            return exporter.metric("inference_desired_replicas", group=group)

        exporter.wait_until(lambda: exporter.probe("livenessProbe"))
        assert f'inference_desired_replicas{{group="{group}"}} 0' in exporter.get("/metrics")[1]

        producer = Producer({"bootstrap.servers": events["kafka-bootstrap.kafka.svc:9093"]})
        producer.produce(events["churn.events]"].removesuffix("]"), b"anything")
        assert producer.flush(WAIT_S) == 0

        exporter.wait_until(lambda: number() == 1)
        assert exporter.stop() == 0


def both_have_work(first, second):
    for pod in (first, second):
        pod.wait_until(lambda each=pod: partitions(each) == 2)


def rebalances(pod, kind):
    return pod.metric("inference_rebalances_total", kind=kind)


def partitions(pod):
    """How many the pod has now."""
    families = text_string_to_metric_families(pod.get("/metrics")[1])
    return sum(sample.name == "inference_lag_records" for family in families for sample in family.samples)
