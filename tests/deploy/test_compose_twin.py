"""docker-compose.yml run here, whole: its commands, settings, files, order and healthchecks; then load through it."""

import time

import compose_twin
import pytest
from compose_twin import STOPPED_BY_TERM, Twin

from deploy.local.prometheus_questions import PrometheusAt

EVENTS = 6_000
SCHEMAS = "--schemas=/usr/share/inference/schemas"
STORE = "--store=/var/lib/inference/models"


@pytest.mark.broker
@pytest.mark.timeout(1500)  # a quiet machine takes 60 s
def test_all_services_come_up_from_nothing_do_their_work_and_end_in_order(tmp_path):
    """One test, because what it takes to get there takes most of the time."""
    shell = {"LOADGEN_EVENTS": str(EVENTS), "LOADGEN_RATE": "1500"}
    with Twin(tmp_path, environment=shell, replicas={"worker": 2}) as twin:
        twin.up()

        _every_prediction_is_right(twin)
        _rest_and_grpc_answer(twin)
        _prometheus_sees_everything(twin)
        _jobs_do_nothing_the_second_time(twin)
        _everybody_keeps_within_limits(twin)

        codes = twin.down()

    in_order = {name: STOPPED_BY_TERM.get(name.rpartition("-")[0], 0) for name in codes}
    assert codes == in_order
    assert {"worker-1", "worker-2", "server-1", "monitor-1", "lag-1", "prometheus-1", "kafka-1"} <= codes.keys()


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("command", ["redis-server", "--prot", "6379"]),
        ("healthcheck", {"test": ["CMD", "redis-cli", "-e", "-p", "1", "ping"]}),
    ],
)
def test_what_is_wrong_with_a_service_shows(tmp_path, monkeypatch, part, wrong):
    monkeypatch.setattr(compose_twin, "STANDSTILL_S", 3.0)
    with Twin(tmp_path, services={"redis"}) as twin:
        service = twin.model["services"]["redis"]
        service[part] = {**service[part], **wrong} if isinstance(wrong, dict) else wrong
        with pytest.raises(AssertionError, match="redis-1: "):
            twin.up()


def _every_prediction_is_right(twin):
    """By the load generator's own command, which judges as it goes, and by another look at what is in the topics."""
    assert f"measured  {EVENTS:,} predictions" in _said_well(twin)
    assert "passed: every event has exactly the outcome" in _said_well(
        twin, "verify", "--pipeline=churn", SCHEMAS, STORE
    )


def _rest_and_grpc_answer(twin):
    few = ["--requests=100", "--rate=100", SCHEMAS]
    assert "passed: 100 of 100" in _said_well(twin, "rest", "--url=http://server:8000", *few)
    assert "passed: 100 of 100" in _said_well(twin, "grpc", "--address=server:50051", *few)


def _prometheus_sees_everything(twin):
    prometheus = PrometheusAt(f"http://{twin.address('prometheus', 9090)}")
    behind = 'sum(inference_group_lag_records{group="churn-workers"})'

    _wait_until(lambda: all(target.health == "up" for target in prometheus.targets()))
    _wait_until(lambda: _values(prometheus, 'sum(inference_predictions_total{job="worker"})') == [EVENTS])
    _wait_until(lambda: _values(prometheus, behind) == [0])

    replicas = {"worker": 2, "server": 1, "monitor": 1, "lag": 1}
    _wait_until(
        lambda: {each.labels["job"]: each.value for each in prometheus.query("count by (job) (up == 1)")} == replicas
    )
    assert [rule["name"] for rule in prometheus.rules() if rule["health"] == "err"] == []


def _jobs_do_nothing_the_second_time(twin):
    """Or each `docker compose up` would make another version of the model."""
    store = twin.volume("models") / "churn"
    before = sorted(store.iterdir())

    assert twin.run("topics") == (0, "all topics are there\n")
    assert twin.run("models") == (0, "")
    assert sorted(store.iterdir()) == before


def _everybody_keeps_within_limits(twin):
    for name, memory_bytes, threads, most_bytes, most_threads in twin.usage():
        assert memory_bytes < most_bytes, name
        assert threads < most_threads, name
    for container in twin.world.containers.values():
        assert list(container.work.iterdir()) == [], f"{container.name} writes into its working directory"


def _said_well(twin, *arguments):
    code, said = twin.run("loadgen", *arguments)
    assert code == 0, said
    return said


def _values(prometheus, expression):
    return [each.value for each in prometheus.query(expression)]


def _wait_until(holds):
    deadline = time.monotonic() + 240  # generous: twelve programs share the machine
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
