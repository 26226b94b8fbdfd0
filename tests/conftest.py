"""The real broker that tests share: one for the whole run, however many processes run it.

Tests ask for `kafka`, `schema_registry` or `topics` and are marked `broker` by that. The broker is started by
whoever asks first, and reused by all others (pytest-xdist's workers too, through the directory that the
controller hands them). The controller takes it down at the end, a guardian does if the controller is killed.
A broker that cannot be started is an error in every test that asked for it; nothing is skipped.

And how hard Hypothesis tries: little by default, `--hypothesis-profile=thorough` for a long night. Here, because a test
takes its settings when its module is imported.
"""

import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

import pytest
import structlog
from browsing import opened_browser
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import HealthCheck, settings

from deploy.local.stack import Stack

_STACK = pytest.StashKey[Stack]()
_OWNER_PID = pytest.StashKey[int]()
_BROKER_FIXTURES = {"kafka", "schema_registry"}
_SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large)  # a busy machine is not a bug

# The same examples every time in CI: a red build there is a change's fault.
settings.register_profile(
    "quick", max_examples=60, deadline=None, derandomize="CI" in os.environ, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile("thorough", max_examples=1000, deadline=None, suppress_health_check=_SLOW_IS_FINE)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def default_logs():
    """A command that a test runs in this process sends logs to where that test is captured: closed after it."""
    yield
    structlog.reset_defaults()


def pytest_configure(config):
    handed_over = getattr(config, "workerinput", None)  # what a pytest-xdist worker got from its controller
    if handed_over is None:
        handed_over = {"stack": tempfile.mkdtemp(prefix="inference-tests-"), "owner": os.getpid()}
    config.stash[_STACK] = Stack(Path(handed_over["stack"]))
    config.stash[_OWNER_PID] = handed_over["owner"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["stack"] = str(node.config.stash[_STACK].directory)
    node.workerinput["owner"] = node.config.stash[_OWNER_PID]


def pytest_unconfigure(config):
    if config.stash.get(_OWNER_PID, None) == os.getpid():
        stack = config.stash[_STACK]
        stack.down(wipe=True)
        shutil.rmtree(stack.directory, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if _BROKER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)


@pytest.fixture(scope="session")
def _stack(pytestconfig):
    stack = pytestconfig.stash[_STACK]
    stack.guard(pytestconfig.stash[_OWNER_PID])
    return stack


@pytest.fixture(scope="session")
def kafka(_stack):
    """Bootstrap servers of a real single broker; topics are not created on demand.

    It serves for as long as the whole suite takes, so no quick start.
    """
    return _stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"]


@pytest.fixture(scope="session")
def schema_registry(_stack):
    """URL of a real schema registry, Confluent-compatible."""
    return _stack.up(schema_registry=True).environment["SCHEMA_REGISTRY_URL"]


@pytest.fixture(scope="module")  # while it is open no test of its process can have an event loop of its own
def browser():
    """A real Chromium, driven by Playwright. One that cannot be had is an error."""
    with opened_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def topics(kafka):
    """Make topics: topics("events", partitions=3) returns a name that nobody else has. Nothing is deleted."""
    admin = AdminClient({"bootstrap.servers": kafka})

    def make(name="topic", partitions=1, config=None):
        unique = f"{name}.{uuid.uuid4().hex[:12]}"
        new = NewTopic(unique, num_partitions=partitions, replication_factor=1, config=config or {})
        deadline = time.monotonic() + 30
        while not _is_made(admin, new):
            assert time.monotonic() < deadline, f"{unique}: no broker to hold it"
            time.sleep(0.5)
        while not _is_led(admin, unique, partitions):  # the controller knows it first, the broker a moment later
            assert time.monotonic() < deadline, f"{unique} has no leaders"
            time.sleep(0.01)
        return unique

    return make


def _is_made(admin, new):
    try:
        admin.create_topics([new], operation_timeout=30)[new.topic].result(timeout=30)
    except KafkaException as exc:
        # A broker that got no time to speak to its controller for 6 s is fenced until it does.
        if exc.args[0].code() != KafkaError.INVALID_REPLICATION_FACTOR:
            raise
        return False
    return True


def _is_led(admin, topic, partitions):
    known = admin.list_topics(topic, timeout=10).topics[topic]
    return len(known.partitions) == partitions and all(p.leader >= 0 for p in known.partitions.values())
