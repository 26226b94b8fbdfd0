"""A worker that cannot work says why within seconds, exits with 2, and has consumed nothing."""

import contextlib
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from worker_process import refused_start

SECONDS = 60  # alone it takes a few; the machine may be busy


def refused(settings, folder, *expected, **environment):
    """The worker ends with status 2 and a message that contains all of this."""
    message, seconds = refused_start(settings, folder, **environment)
    flat = " ".join(message.split())
    for part in expected:
        assert part in flat, message
    assert seconds < SECONDS
    return message


class Refusing(BaseHTTPRequestHandler):
    """401, as a registry behind basic authentication answers the wrong password."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"error_code": 401, "message": "Unauthorized"}'
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def refusing_registry():
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_broker_that_nobody_runs(lane, tmp_path):
    settings = lane().settings(kafka={"bootstrap_servers": "127.0.0.1:1"})
    refused(settings, tmp_path, "BrokerRefused", "127.0.0.1:1", "Connection refused")


def test_a_broker_whose_name_does_not_exist(lane, tmp_path):
    settings = lane().settings(kafka={"bootstrap_servers": "no-such-host.invalid:9092"})
    refused(settings, tmp_path, "BrokerRefused", "no-such-host.invalid", "resolve")


def test_topics_that_are_missing_are_all_named(lane, tmp_path):
    one = lane()
    settings = one.with_inputs("no.such.events").with_outputs("no.such.predictions", one.dead_letters).settings()
    refused(settings, tmp_path, "topic no.such.events does not exist", "topic no.such.predictions does not exist")


def test_partition_counts_that_differ(lane, topics, tmp_path):
    one = lane(partitions=4)
    narrow = topics("churn.predictions", 3)
    settings = one.with_outputs(narrow, one.dead_letters).settings()
    refused(settings, tmp_path, f"{narrow} has 3 partitions", f"{one.inputs[0]} has 4", "output_partitioning")


def test_a_model_that_nobody_trained(lane, tmp_path):
    refused(lane().settings(pipeline={"model": "absent"}), tmp_path, "ModelMissing", "absent")


def test_a_model_store_that_is_not_there(lane, tmp_path):
    store = tmp_path / "nowhere"
    refused(lane().settings(models={"store": f"file://{store}"}), tmp_path, "ModelMissing", str(store))


def test_a_model_file_that_was_changed_after_training(lane, models, tmp_path):
    store = tmp_path / "models"
    shutil.copytree(models, store)
    model = store / "churn" / "1" / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    refused(lane().settings(models={"store": f"file://{store}"}), tmp_path, "ModelInvalid", "model.onnx", "digest")


def test_a_schema_directory_without_the_model_s_schema(lane, tmp_path):
    (tmp_path / "schemas").mkdir()
    settings = lane().settings(schemas={"directory": str(tmp_path / "schemas")})
    refused(settings, tmp_path, "SchemaMissing", "ChurnEvent")


def test_an_output_schema_that_the_registry_lacks_when_it_may_not_be_registered(lane, schema_registry, tmp_path):
    one = lane(registry_url=schema_registry)
    refused(one.settings(), tmp_path, "SchemaMissing", f"{one.output}-value", "auto_register")


def test_a_registry_that_nobody_runs(lane, tmp_path):
    settings = lane(registry_url="http://127.0.0.1:1").settings()
    refused(settings, tmp_path, "NotReachable", "http://127.0.0.1:1", "Connection refused")


def test_a_registry_that_never_answers(lane, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refused(lane(registry_url=url).settings(), tmp_path, "NotReachable", url, "Timeout")


def test_a_registry_that_does_not_know_us(lane, tmp_path):
    (tmp_path / "password").write_text("wr0ng")
    with refusing_registry() as url:
        schemas = {"registry_url": url, "registry_username": "me", "registry_password_file": str(tmp_path / "password")}
        message = refused(lane().settings(schemas=schemas), tmp_path, "NotReachable", url, "401")
    assert "wr0ng" not in message


def test_settings_that_are_wrong_are_named_with_their_values(lane, tmp_path):
    settings = lane().settings(delivery={"mode": "acks=7x"}, kafka={"boostrap_servers": "typo"})
    refused(settings, tmp_path, "BadSettings", "delivery.mode", "acks=7x", "exactly_once", "kafka.boostrap_servers")


def test_an_environment_name_that_nobody_knows(lane, tmp_path):
    refused(lane().settings(), tmp_path, "INFERENCE_KAFKA__GRUOP_ID", INFERENCE_KAFKA__GRUOP_ID="x")


def test_a_port_that_is_taken(lane, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(lane().settings(http={"port": port}), tmp_path, "BadSettings", f"127.0.0.1:{port}", "in use")


def restrict(kafka, kind, name, **rules):
    """Give everybody these permissions on a resource: operation=ALLOW or DENY."""
    admin = AdminClient({"bootstrap.servers": kafka})
    bindings = [
        AclBinding(
            kind,
            name,
            ResourcePatternType.LITERAL,
            "User:ANONYMOUS",
            "*",
            AclOperation[operation],
            AclPermissionType[permission],
        )
        for operation, permission in rules.items()
    ]
    for made in admin.create_acls(bindings).values():
        made.result(30)


@pytest.mark.broker
def test_a_broker_that_does_not_know_the_consumer_protocol(strict_lane, tmp_path):
    settings = strict_lane.settings(kafka={"group_protocol": "consumer"})
    refused(settings, tmp_path, "BrokerRefused", "kafka.group_protocol")


@pytest.mark.broker
def test_an_output_topic_that_may_not_be_written(strict_lane, tmp_path):
    restrict(strict_lane.kafka, ResourceType.TOPIC, strict_lane.output, WRITE="DENY", DESCRIBE="ALLOW")
    refused(strict_lane.settings(), tmp_path, "BrokerRefused", f"no permission to Write on Topic {strict_lane.output}")


@pytest.mark.broker
def test_an_input_topic_that_may_not_be_seen(strict_lane, tmp_path):
    restrict(strict_lane.kafka, ResourceType.TOPIC, strict_lane.inputs[0], DESCRIBE="DENY")
    refused(
        strict_lane.settings(), tmp_path, "BrokerRefused", f"Read on Topic {strict_lane.inputs[0]}", "kafka-acls.sh"
    )


@pytest.mark.broker
def test_a_group_that_may_not_be_used(strict_lane, tmp_path):
    settings = strict_lane.settings()
    restrict(strict_lane.kafka, ResourceType.GROUP, settings["kafka"]["group_id"], READ="DENY")
    refused(settings, tmp_path, "BrokerRefused", f"no permission to Read on Group {settings['kafka']['group_id']}")


@pytest.mark.broker
def test_a_transactional_id_that_may_not_be_used(strict_lane, tmp_path):
    settings = strict_lane.settings()
    identity = f"{settings['kafka']['group_id']}-{settings['worker']['instance_id']}-0"
    restrict(strict_lane.kafka, ResourceType.TRANSACTIONAL_ID, identity, WRITE="DENY")
    refused(settings, tmp_path, "BrokerRefused", identity)
