"""The local stack, for real: brokers and a registry are started, asked, killed and ended."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from deploy.local.errors import StackMismatch, StartFailed
from deploy.local.kafka import Cluster
from deploy.local.stack import Stack

pytestmark = pytest.mark.broker

SCHEMA = '{"type":"record","name":"Event","fields":[{"name":"age","type":"int"}]}'


@pytest.fixture
def stack(tmp_path):
    stack = Stack(tmp_path / "stack")
    stack.guard(os.getpid())
    yield stack
    stack.down(wipe=True)


def test_a_record_goes_through_the_shared_broker(kafka, topics):
    topic = topics("round-trip", partitions=3)

    _produce(kafka, topic, b"value")

    assert _read_one(kafka, topic) == b"value"


def test_each_topic_has_a_name_of_its_own_and_the_partitions_asked_for(kafka, topics):
    first, second = topics("same", partitions=4), topics("same")

    metadata = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10)

    assert first != second
    assert (len(metadata.topics[first].partitions), len(metadata.topics[second].partitions)) == (4, 1)


def test_a_topic_that_nobody_made_is_not_made_on_demand(kafka):
    assert AdminClient({"bootstrap.servers": kafka}).list_topics("never-made", timeout=10).topics["never-made"].error


def test_a_schema_goes_through_the_shared_registry(schema_registry):
    with SchemaRegistryClient({"url": schema_registry}) as client:
        schema_id = client.register_schema("round-trip-value", Schema(SCHEMA, "AVRO"))

        assert json.loads(client.get_schema(schema_id).schema_str) == json.loads(SCHEMA)


def test_a_second_up_reuses_the_broker_and_adds_just_the_registry(stack):
    first = stack.up(quick_start=True)
    second = stack.up(schema_registry=True, quick_start=True)
    third = stack.up(quick_start=True)

    assert [server.name for server in first.servers] == ["kafka broker 1"]
    assert [server.name for server in second.servers] == ["kafka broker 1", "schema registry"]
    assert second.servers[0] == first.servers[0]
    assert third == second
    assert stack.env_file.read_text().splitlines() == [
        f"KAFKA_BOOTSTRAP_SERVERS={first.servers[0].address}",
        f"SCHEMA_REGISTRY_URL={second.servers[1].address}",
    ]


def test_topics_and_schemas_and_addresses_outlive_down_and_up(stack):
    before = stack.up(schema_registry=True, quick_start=True).environment
    _make_topic(before["KAFKA_BOOTSTRAP_SERVERS"], "kept")
    with SchemaRegistryClient({"url": before["SCHEMA_REGISTRY_URL"]}) as client:
        schema_id = client.register_schema("kept-value", Schema(SCHEMA, "AVRO"))

    stopped = stack.down()
    assert stopped == ["kafka broker 1", "schema registry"]
    assert not stack.env_file.exists()
    assert [server.pid for server in stack.status().servers] == [None, None]
    after = stack.up(schema_registry=True, quick_start=True).environment

    assert after == before
    assert "kept" in AdminClient({"bootstrap.servers": after["KAFKA_BOOTSTRAP_SERVERS"]}).list_topics(timeout=10).topics
    with SchemaRegistryClient({"url": after["SCHEMA_REGISTRY_URL"]}) as client:
        assert client.get_latest_version("kept-value").schema_id == schema_id


def test_the_command_starts_shows_and_ends_a_stack_without_java_on_the_path(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path), "JAVA_HOME": ""}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "deploy.local", *arguments, "--dir", str(tmp_path / "stack")],
            capture_output=True, text=True, timeout=120, env=environment, check=False,
        )  # fmt: skip

    try:
        up = run("up", "--json")
        assert up.returncode == 0, up.stderr
        started = json.loads(up.stdout)
        assert started["running"]
        assert json.loads(run("status", "--json").stdout) == started
        other_size = run("up", "--brokers", "3")
        assert other_size.returncode == 1
        assert other_size.stderr.startswith("StackMismatch: ")
    finally:
        down = run("down")
    assert down.stdout == "stopped kafka broker 1\n"
    assert run("status").returncode == 1
    assert not _runs(started["servers"][0]["pid"])
    assert run("down").stdout == "nothing was running\n"


def test_down_does_not_kill_a_process_that_took_over_a_recorded_pid(stack):
    stack.up(quick_start=True)
    record = stack.directory / "kafka" / "broker-1" / "process.json"
    broker = json.loads(record.read_text())
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as foreigner:
        try:
            an_hour_ago = broker["started_at"] - 3600  # pids do not come round within the tolerance for start times
            record.write_text(json.dumps({**broker, "pid": foreigner.pid, "started_at": an_hour_ago}))
            assert stack.down() == []
            assert foreigner.poll() is None
        finally:
            foreigner.kill()
            record.write_text(json.dumps(broker))
    assert stack.down() == ["kafka broker 1"]


def test_a_stack_goes_down_when_the_process_it_serves_is_killed(tmp_path):
    stack = Stack(tmp_path / "stack")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as owner:
        stack.guard(owner.pid)
        assert stack.up(quick_start=True).is_running
        owner.kill()
    deadline = time.monotonic() + 30
    while stack.status().servers:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_broker_that_cannot_start_says_why_and_is_not_left_behind(tmp_path):
    cluster = Cluster(tmp_path, properties={"transaction.state.log.min.isr": "many"}, quick_start=True)

    with pytest.raises(StartFailed, match=r"(?s)many.*transaction\.state\.log\.min\.isr"):
        cluster.start()

    assert not any(broker.is_running for broker in cluster.brokers)


def test_three_brokers_lose_one_to_a_crash_and_go_on(tmp_path):
    with Cluster(tmp_path, brokers=3, quick_start=True) as cluster:
        _make_topic(cluster.bootstrap_servers, "replicated", replication_factor=3)
        _produce(cluster.bootstrap_servers, "replicated", b"before")

        cluster.broker(2).kill()
        assert [broker.is_running for broker in cluster.brokers] == [True, False, True]
        _produce(cluster.bootstrap_servers, "replicated", b"during")

        cluster.broker(2).start()
        cluster.wait_until_ready()
        assert _read_one(cluster.bootstrap_servers, "replicated") == b"before"

        with pytest.raises(StackMismatch, match="a cluster of 3, not of 1"):
            Cluster(tmp_path, brokers=1)
    assert not any(broker.is_running for broker in cluster.brokers)


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # in a container nobody may bury an orphan
    except psutil.NoSuchProcess:
        return False


def _make_topic(bootstrap_servers, topic, **options):
    new = NewTopic(topic, num_partitions=1, **options)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})  # a client collected early cancels its futures
    admin.create_topics([new])[topic].result(30)


def _produce(bootstrap_servers, topic, value):
    outcomes = []
    producer = Producer({"bootstrap.servers": bootstrap_servers, "acks": "all"})
    producer.produce(topic, value, on_delivery=lambda error, _: outcomes.append(error))
    assert producer.flush(60) == 0
    assert outcomes == [None]


def _read_one(bootstrap_servers, topic):
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": topic, "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(60)
        assert message is not None
        assert message.error() is None
        return message.value()
    finally:
        consumer.close()
