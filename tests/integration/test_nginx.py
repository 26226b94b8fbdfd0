"""deploy/nginx/nginx.conf in a real nginx: one of three servers is killed under load, and no client sees it."""

import asyncio
import functools
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import httpx2
import pytest
import yaml
from online_server import OnlineServer

from app.client import BadRequest, NotAllowed, RestClient, RetryPolicy
from app.client.grpc import GrpcClient
from app.grpc_api import prediction_pb2, prediction_pb2_grpc
from deploy.local.errors import StackMismatch
from deploy.local.nginx_server import NginxServer, with_ports
from deploy.local.ports import free_ports, is_open
from deploy.local.process import ServerProcess
from loadgen.cli.load_options import ring
from loadgen.online.grpc_requests import GrpcRequests
from loadgen.online.grpc_target import GrpcTarget
from loadgen.online.load_clock import MonotonicClock
from loadgen.online.load_plan import LoadPlan
from loadgen.online.load_report import Allowed, judge
from loadgen.online.load_run import run_load
from loadgen.online.rest_requests import RestRequests
from loadgen.online.rest_target import RestTarget
from loadgen.pacing import Pace
from loadgen.producing import Extent

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "deploy/nginx/nginx.conf"
REST, GRPC = (8081, 8082, 8083), (9081, 9082, 9083)  # what stands in the configuration
NAMES = ("1", "2", "3")
RATE = 100.0  # of each kind; with what a request takes there are always some inside the server that dies
TAKES_MS = 60.0
STARVED_RUNS = 3
AGAIN = 350  # requests; nginx counts its fail_timeout of 1 s in whole seconds, so for up to 2 s the server gets none


class Watched:
    """A target that calls `then` with each request's number, and remembers who answered which."""

    def __init__(self, target, then=lambda number: None):
        self.rows, self.description = target.rows, target.description
        self.close, self.together = target.close, None
        self.answers = []
        self._target, self._then = target, then

    async def open(self):
        await self._target.open()
        if self.together is not None:
            await self.together.wait()

    async def ask(self, number):
        self._then(number)
        reply = await self._target.ask(number)
        self.answers.append((number, reply.version))
        return reply

    def answered_by(self, first, stop=10**9):
        return Counter(version for number, version in self.answers if first <= number < stop)


def small(name, rest, calls, directory, takes_ms=TAKES_MS):
    """A server without a model, which takes its time."""
    program = [sys.executable, ROOT / "tests/online_server.py", "--rest", rest, "--grpc", calls]
    return [*program, "--takes-ms", takes_ms, "--version", name]


def real(store):
    """`inference-worker serve` with a model of this store."""

    def command(name, rest, calls, directory):
        config = directory / f"{name}.yaml"
        settings = {
            "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "nobody"},
            "schemas": {"directory": str(ROOT / "schemas")},
            "models": {"store": str(store)},
            "serving": {"port": rest, "grpc": {"port": calls}},
            "pipelines": [
                {"name": "churn", "input_topics": ["events"], "output_topic": "predictions",
                 "dead_letter_topic": "dead-letters", "model": "churn"}
            ],
        }  # fmt: skip
        config.write_text(yaml.safe_dump(settings))
        return [sys.executable, "-m", "app", "serve", "--config", config]

    return command


class Servers:
    """Three servers in processes of their own behind an nginx that runs a configuration's text.

    command: of (name, REST port, gRPC port, directory).
    """

    def __init__(self, directory, text, command=small):
        self._directory, self._command = directory, command
        self.rest_port, self.grpc_port, *ports = free_ports(8)
        self.places = dict(zip(NAMES, zip(ports[:3], ports[3:], strict=True), strict=True))
        self.processes = {name: ServerProcess(f"server {name}", directory / name) for name in NAMES}
        path = directory / "given.conf"
        path.write_text(text)
        listening = {8080: self.rest_port, 9000: self.grpc_port}
        self.nginx = NginxServer(directory / "nginx", path, listening | dict(zip((*REST, *GRPC), ports, strict=True)))

    def start(self, *names):
        for name in names:
            command = self._command(name, *self.places[name], self._directory)
            self.processes[name].start(command, {"PYTHONPATH": str(ROOT)})
        for name in names:
            self.wait_for(name)

    def wait_for(self, name):
        self.processes[name].wait_until(
            lambda: all(map(is_open, self.places[name])) and self._has_a_model(name), deadline=time.monotonic() + 120
        )

    def _has_a_model(self, name):
        return httpx2.get(f"http://127.0.0.1:{self.places[name][0]}/health", trust_env=False).status_code == 200

    def kill(self, name):
        os.kill(self.processes[name].pid, signal.SIGKILL)

    @property
    def one_was_starved(self):
        """Whether a living server did not answer within the configuration's 2 s, which costs requests as well."""
        return "upstream timed out" in self.nginx.process.log_path.read_text()

    def __enter__(self):
        try:
            self.start(*NAMES)
            self.nginx.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.nginx.stop()
        for process in self.processes.values():
            process.kill()


@pytest.fixture(scope="module")
def churn():
    return ring("churn", ROOT / "schemas", 7, asked=256)


def by_rest(servers, churn):
    requests = RestRequests(churn, rows=1, style="fields")
    url = f"http://127.0.0.1:{servers.rest_port}"
    return RestTarget(url, requests, timeout_s=20.0, connections=64, headers={})


def by_grpc(servers, churn):
    requests = GrpcRequests(churn, rows=1)
    return GrpcTarget(f"127.0.0.1:{servers.grpc_port}", requests, timeout_s=20.0, connections=2, metadata={})


def ran(requests, *targets):
    """Begun at the same moment: what one does to the servers at a number happens near that number of the others."""
    plan = LoadPlan(Pace(rate=RATE), Extent(requests))

    async def run():
        clock, together = MonotonicClock(), asyncio.Barrier(len(targets))
        for target in targets:
            target.together = together
        return await asyncio.gather(*(run_load(plan, target, clock, lambda _: None) for target in targets))

    return [judge(plan, target, found, Allowed()) for target, found in zip(targets, asyncio.run(run()), strict=True)]


def unless_starved(run, folder):
    """What `run(folder)` gives: (whether a server had no turn for 2 s, results …). Again if so: another fault."""
    for number in range(STARVED_RUNS):
        place = folder / str(number)
        place.mkdir()
        starved, *found = run(place)
        if not starved or not any(result.failed for result in found[0]):
            return found
    raise AssertionError(f"{STARVED_RUNS} runs in which a server had no turn for 2 s: this machine is too busy")


def one_killed(folder, churn):
    """(whether one was starved, results, targets, targets afterwards) of 320 requests each while one goes and comes."""
    with Servers(folder, CONFIGURATION.read_text()) as servers:
        backing = threading.Thread(target=servers.start, args=("2",))

        def events(number):
            if number == 120:
                servers.kill("2")
            elif number == 200:
                backing.start()

        rest, calls = Watched(by_rest(servers, churn), events), Watched(by_grpc(servers, churn))
        results = ran(320, rest, calls)
        backing.join()
        again = [Watched(by_rest(servers, churn)), Watched(by_grpc(servers, churn))]
        results += ran(AGAIN, *again)
        return servers.one_was_starved, results, (rest, calls), again


def test_a_server_that_is_killed_under_load_costs_no_request_and_comes_back(tmp_path, churn):
    results, targets, again = unless_starved(lambda folder: one_killed(folder, churn), tmp_path)
    assert [result.failed for result in results] == [{}] * 4
    assert [result.answered for result in results] == [320, 320, AGAIN, AGAIN]
    for target in targets:
        assert set(target.answered_by(0, 110)) == set(NAMES)  # all three had their share before
        assert set(target.answered_by(130, 200)) == {"1", "3"}
    for target in again:
        assert target.answered_by(0)["2"] > 0


def test_without_leave_to_ask_again_the_same_death_is_seen_by_clients(tmp_path, churn):
    """Proves that the test above has requests inside the dying server."""
    text = CONFIGURATION.read_text()
    for leave in (" non_idempotent", "mirror /nowhere;", "error_page 502 504 = @again;"):
        assert leave in text
        text = text.replace(leave, "")
    with Servers(tmp_path, text) as servers:
        rest = Watched(by_rest(servers, churn), lambda number: servers.kill("2") if number == 60 else None)
        results = ran(100, rest, Watched(by_grpc(servers, churn)))
    assert [sum(result.failed.values()) > 0 for result in results] == [True, True]


def test_calls_in_a_dying_server_move_to_servers_that_have_no_connection_yet(tmp_path):
    """nginx does not number a call anew when it sends it again itself, over a new connection after a kept one."""
    takes_s = 1.0  # so long that no call is answered before the server dies
    slow = functools.partial(small, takes_ms=1000 * takes_s)
    with Servers(tmp_path, CONFIGURATION.read_text(), slow) as servers:
        for name in ("1", "3"):
            servers.kill(name)

        async def asked(many, meanwhile=lambda: None):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{servers.grpc_port}") as channel:
                stub = prediction_pb2_grpc.PredictionServiceStub(channel)
                calls = [stub.Predict(prediction_pb2.PredictRequest(features=[1, 2, 3])) for _ in range(many)]
                await asyncio.sleep(takes_s / 2)
                meanwhile()
                return [answer.model_version for answer in await asyncio.gather(*calls)]

        for _ in range(2):  # kept connections, and calls on them that are not the first
            assert set(asyncio.run(asked(9))) == {"2"}
        servers.start("1", "3")
        time.sleep(2.1)  # they are asked again
        assert set(asyncio.run(asked(9, lambda: servers.kill("2")))) == {"1", "3"}


def clients_agree(servers):
    """Over REST by name, by numbers, in a batch, and over gRPC: one answer, and a named error for a bad row."""
    customer = {"age": 34, "income": 41_000.0, "tenure_months": 7, "monthly_charges": 79.9, "total_charges": None,
                "plan": "basic"}  # fmt: skip
    vector = [34, 41_000.0, 7, 79.9, None, 0]
    once = RetryPolicy(attempts=1)
    with RestClient(f"http://127.0.0.1:{servers.rest_port}", retry=once, deadline_s=30) as client:
        found = client.predict(customer, key="customer-7")
        assert client.health().model_loaded
        assert client.model_info()["model"] == "churn"
        by_number, rejected = client.predict_many([vector, [7, *vector[1:]]], keys=["customer-7", None])
        with pytest.raises(BadRequest) as refused:
            client.predict(customer | {"age": 7})
        with pytest.raises(NotAllowed):
            client.reload()
    with GrpcClient(f"127.0.0.1:{servers.grpc_port}", retry=once, deadline_s=30) as client:
        by_grpc = client.predict(vector, key="customer-7")
        (in_batch,) = client.predict_many([vector], key="customer-7")
        with pytest.raises(BadRequest, match="age"):
            client.predict([7, *vector[1:]])
    assert found.confidence == max(found.probabilities)
    assert (refused.value.field, rejected.reason, rejected.field) == ("features.age", "out_of_range", "age")
    for answer in (by_number, by_grpc, in_batch):
        assert answer.prediction == found.prediction
        assert answer.probabilities == pytest.approx(found.probabilities, abs=1e-6)
        assert (answer.model_version, answer.answered_by) == (found.model_version, found.answered_by) == ("1", "stable")
        assert answer.rollout_revision == found.rollout_revision


def test_of_three_real_servers_one_is_killed_under_load_and_no_client_sees_it(tmp_path, churn, models):
    def run(folder):
        with Servers(folder, CONFIGURATION.read_text(), real(models)) as servers:
            clients_agree(servers)
            rest = Watched(by_rest(servers, churn), lambda number: servers.kill("2") if number == 150 else None)
            results = ran(300, rest, Watched(by_grpc(servers, churn)))
            return servers.one_was_starved, results

    (results,) = unless_starved(run, tmp_path)
    assert [(result.failed, result.answered) for result in results] == [({}, 300)] * 2


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """nginx before three servers in this process, whose behaviour a test may change."""
    with OnlineServer(version="1") as one, OnlineServer(version="2") as two, OnlineServer(version="3") as three:
        servers = (one, two, three)
        rest, grpc_port = free_ports(2)
        ports = {8080: rest, 9000: grpc_port}
        ports |= {port: int(server.url.rpartition(":")[2]) for port, server in zip(REST, servers, strict=True)}
        ports |= {port: int(server.address.rpartition(":")[2]) for port, server in zip(GRPC, servers, strict=True)}
        with (
            NginxServer(tmp_path_factory.mktemp("nginx"), CONFIGURATION, ports),
            httpx2.Client(base_url=f"http://127.0.0.1:{rest}", trust_env=False, timeout=20) as client,
        ):
            yield client, f"127.0.0.1:{grpc_port}", [server.behaviour for server in servers]


@pytest.fixture
def asked(front):
    """Ask nginx for a prediction; `asked.behaviours` are the three servers'."""
    client, _, behaviours = front
    for behaviour in behaviours:
        behaviour.statuses, behaviour.headers = [], {}
        behaviour.seen.clear()

    def ask(path="/predict", **options):
        return client.post(path, **{"json": {"features": [1, 2, 3]}, **options})

    ask.behaviours = behaviours
    return ask


def seen(asked):
    return [request_id for behaviour in asked.behaviours for request_id, _ in behaviour.seen]


def test_a_server_that_is_not_ready_passes_its_request_on(asked):
    asked.behaviours[0].statuses = [503] * 10
    asked.behaviours[1].statuses = [503] * 10
    assert [asked().json()["model_version"] for _ in range(5)] == ["3"] * 5


def test_overload_reaches_the_client_with_when_to_come_back_and_is_asked_once(asked):
    for behaviour in asked.behaviours:
        behaviour.statuses, behaviour.headers = [429], {"retry-after": "3"}
    answer = asked()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert len(seen(asked)) == 1


def test_every_attempt_carries_the_clients_request_id(asked):
    asked.behaviours[0].statuses = asked.behaviours[1].statuses = asked.behaviours[2].statuses = [503]
    answer = asked(headers={"x-request-id": "mine"})
    assert answer.headers.get("x-request-id") == "mine"
    assert set(seen(asked)) == {"mine"}


def test_a_request_without_an_id_gets_one(asked):
    assert len(asked().headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/model/reload", "/v2/repository/models/churn/load", "/metrics"])
def test_what_concerns_one_server_is_not_asked_of_any(asked, path):
    assert asked(path).status_code == 403
    assert seen(asked) == []


def test_a_body_that_is_too_large_reaches_no_server(asked):
    assert asked(content=b" " * (9 * 1024 * 1024), json=None).status_code == 413
    assert seen(asked) == []


def test_a_stream_is_answered_while_it_is_asked(front):
    _, address, _ = front
    asked = queue.SimpleQueue()
    with grpc.insecure_channel(address) as channel:
        answers = prediction_pb2_grpc.PredictionServiceStub(channel).PredictStream(iter(asked.get, None), timeout=30)
        for _ in range(5):
            asked.put(prediction_pb2.StreamedPredictRequest(features=[1.0]))
            assert next(answers).prediction == 1
        asked.put(None)
        assert list(answers) == []


def test_ports_that_the_configuration_does_not_have_are_refused():
    with pytest.raises(StackMismatch, match="1234"):
        with_ports("listen 127.0.0.1:80;", {1234: 1})
    assert with_ports("listen 127.0.0.1:80; server 127.0.0.1:81;", {80: 81, 81: 80}) == (
        "listen 127.0.0.1:81; server 127.0.0.1:80;"
    )
