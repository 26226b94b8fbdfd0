"""Brokers that may be broken, shared by all processes of a test run.

A test that asks for `faults` breaks them, so it runs alone, and last, so that nobody else waits for it; the others run
beside each other. Whoever comes first starts the brokers, whoever leaves last stops them.
"""

import contextlib
import fcntl
import os

import pytest

from app.wiring import training
from tests.chaos.faulty_kafka import FaultyKafka
from tests.chaos.flow import Flow, now_ms, recoveries_s

TIMEOUT_S = 900  # of one test: waiting for its turn is part of it


def pytest_collection_modifyitems(items):
    for item in items:
        if "faulty_kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.broker)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))
    items.sort(key=lambda item: "faults" in getattr(item, "fixturenames", ()))


@contextlib.contextmanager
def turn(path, *, alone):
    """Among those who hold the same file: alone, or with others who are not."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def is_last(path):
    """Whether nobody else holds the file; to be asked by one who does not."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.fixture(scope="session")
def rig_directory(tmp_path_factory, pytestconfig):
    """The same for all processes of the run."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if hasattr(pytestconfig, "workerinput") else base) / "faulty-kafka"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def _running(rig_directory, pytestconfig):
    kafka = FaultyKafka(
        rig_directory, group_consumer_session_timeout_ms="4000", group_consumer_heartbeat_interval_ms="500"
    )
    owner = os.getppid() if hasattr(pytestconfig, "workerinput") else os.getpid()
    with turn(rig_directory / "users", alone=False):
        yield kafka.start(owner)
    if is_last(rig_directory / "users"):
        kafka.stop()


@pytest.fixture
def faulty_kafka(_running, rig_directory, request):
    """The brokers, whole, while it is our turn."""
    alone = "faults" in request.fixturenames
    with turn(rig_directory / "turn", alone=alone):
        yield _running
        if alone:
            _running.heal()


@pytest.fixture
def faults(faulty_kafka):
    """The brokers for those who break them; whole again afterwards."""
    return faulty_kafka


@pytest.fixture
def measured(request):
    """Keep a figure with the test's report. Not pytest's record_property, which warns about its own file format."""

    def keep(name, figure):
        request.node.user_properties.append((name, figure))
        print(f"{name}: {figure}")  # noqa: T201 - shown by -rP

    return keep


@pytest.fixture
def trio(flow):
    """(flow, slot) in each mode and protocol, all flowing; what happens to one happens to all."""
    flows = [flow(), flow(protocol="consumer"), flow(mode="at_least_once")]
    with contextlib.ExitStack() as running:
        kept = [(stream, running.enter_context(stream.kept())) for stream in flows]
        recoveries_s(kept, now_ms())
        yield kept


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A model store with version 1 of churn."""
    store = tmp_path_factory.mktemp("models")
    training.train("churn", store=str(store), estimator=None, rows=5_000, seed=0, progress=lambda _: None)
    return store


@pytest.fixture
def flow(faulty_kafka, models, tmp_path):
    """Start flows: flow(mode="exactly_once", protocol="classic", …); as many as a test likes."""
    with contextlib.ExitStack() as opened:

        def start(**options):
            folder = tmp_path / f"flow-{len(list(tmp_path.glob('flow-*')))}"
            folder.mkdir()
            return opened.enter_context(contextlib.closing(Flow(faulty_kafka, models, folder, **options)))

        yield start
