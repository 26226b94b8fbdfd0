"""What docker-compose.yml gives our containers to run, run here, on the local stack.

A typing error in a command, an option or a setting of the compose file shows here, not on somebody's machine.
"""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from compose_services import compose, our_services
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local.ports import free_ports
from deploy.local.stack import Stack

MODULES = {"inference-worker": "app", "loadgen": "loadgen"}  # console scripts and where they begin
SERVICES = {service.name: service for service in our_services()}


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
def test_every_command_and_every_option_exists(service):
    # --help is answered only after all other options were recognised.
    outcome = _run([service.program, *service.arguments, "--help"], {}, timeout_s=60)

    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.broker
@pytest.mark.timeout(600)
def test_model_worker_and_load_generator_work_with_the_commands_and_settings_of_compose(stack, tmp_path):
    replacements = {
        "kafka:19092": stack["KAFKA_BOOTSTRAP_SERVERS"],
        "http://schema-registry:8080/apis/ccompat/v7": stack["SCHEMA_REGISTRY_URL"],
        "/var/lib/inference": str(tmp_path),
        "/usr/share/inference/schemas": "schemas",
        "0.0.0.0": "127.0.0.1",
        "100000": "5000",  # events: enough to see it work
    }
    (http_port,) = free_ports(1)

    trained = _run(*SERVICES["models"].native(replacements), timeout_s=120)
    assert trained.returncode == 0, trained.stderr

    argv, environment = SERVICES["worker"].native(replacements)
    environment["INFERENCE_HTTP__PORT"] = str(http_port)
    with _start(argv, environment, log=tmp_path / "worker.log") as worker:
        try:
            _wait_until_ready(worker, http_port, tmp_path / "worker.log")

            loaded = _run(*SERVICES["loadgen"].native(replacements), timeout_s=180)
            assert loaded.returncode == 0, loaded.stdout + loaded.stderr

            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0, (tmp_path / "worker.log").read_text()
        finally:
            worker.kill()


@pytest.fixture
def stack(tmp_path):
    """Environment of a stack of its own, since the names of the topics that compose makes are fixed."""
    stack = Stack(tmp_path / "stack")
    stack.guard(os.getpid())
    try:
        environment = stack.up(schema_registry=True, quick_start=True).environment
        _make_topics(environment["KAFKA_BOOTSTRAP_SERVERS"])
        yield environment
    finally:
        stack.down(wipe=True)


def _make_topics(bootstrap_servers):
    (script,) = compose()["services"]["topics"]["command"]
    names = re.findall(r"\b(?:churn|digits)\.[a-z-]+", script)
    partitions = int(re.search(r"--partitions (\d+)", script)[1])
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for made in admin.create_topics([NewTopic(name, partitions) for name in names]).values():
        made.result(30)


def _wait_until_ready(worker, port, log):
    deadline = time.monotonic() + 60
    while True:
        assert worker.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            time.sleep(0.1)


def _command(argv):
    return [sys.executable, "-m", MODULES[argv[0]], *argv[1:]]


def _run(argv, environment, *, timeout_s):
    return subprocess.run(
        _command(argv),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _start(argv, environment, *, log):
    with log.open("w") as output:
        return subprocess.Popen(
            _command(argv), env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
