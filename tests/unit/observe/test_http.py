"""The probe server: answers whatever its clients do to it."""

import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, closing

import pytest

from app.errors import BadSettings
from app.observe import http
from app.observe.http import Health, ProbeServer
from app.observe.worker_metrics import Metrics


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(http, "REQUEST_WITHIN_S", 0.5)
    health = Health(alive=lambda: None, ready=lambda: "not in the consumer group yet: churn")
    with closing(ProbeServer("127.0.0.1", 0, Metrics(), health)) as server:
        yield server


def get(server, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_a_probe_answers_503_with_what_is_wrong(server):
    assert get(server, "/livez") == (200, "ok\n")
    assert get(server, "/readyz") == (503, "not in the consumer group yet: churn\n")


def test_nothing_changes_state(server):
    with connect(server) as raw:
        raw.sendall(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert raw.recv(64).startswith(b"HTTP/1.1 405 ")


def test_half_sent_requests_do_not_take_the_probes_away(server):
    with ExitStack() as open_ones:
        for _ in range(200):
            raw = open_ones.enter_context(connect(server))
            raw.sendall(b"GET /livez HT")
        assert get(server, "/livez") == (200, "ok\n")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /livez HTTP/1.1\r\nHost: x\r\n", id="half a request"),
        pytest.param(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /li", id="half a second request"),
    ],
)
def test_a_request_that_does_not_come_is_not_waited_for(server, sent):
    began = time.monotonic()
    with connect(server) as raw:
        raw.sendall(sent)
        while raw.recv(4096):
            pass
        assert 0.4 <= time.monotonic() - began < 10


def test_a_request_that_drips_is_not_waited_for(server):
    def drip(raw):
        for letter in b"GET /livez HTTP/1.1\r\n" + 1000 * b"X: y\r\n":
            raw.sendall(bytes([letter]))
            time.sleep(0.02)

    with connect(server) as raw, pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
        drip(raw)


def test_a_request_that_comes_in_the_last_moment_is_answered(monkeypatch):
    """Prometheus keeps its connection, and may ask again as often as an idle one is cut: each 5 s."""
    monkeypatch.setattr(http, "REQUEST_WITHIN_S", 3.0)
    give_up, over = http._Impatient._give_up, threading.Event()

    def told(connection):
        give_up(connection)
        over.set()

    monkeypatch.setattr(http._Impatient, "_give_up", told)

    class Slow:
        def exposition(self):
            assert over.wait(20)
            return b"answer"

    health = Health(alive=lambda: None, ready=lambda: None)
    with closing(ProbeServer("127.0.0.1", 0, Slow(), health)) as server, connect(server) as raw:
        for _ in range(2):
            over.clear()
            raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"answer"):
                more = raw.recv(4096)
                assert more, answer
                answer += more


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x00\xff\xfe garbage\r\n\r\n", id="no HTTP"),
        pytest.param(b"GET /livez HTTP/1.1\r\nX: " + 100_000 * b"y" + b"\r\n\r\n", id="headers of 100 kB"),
    ],
)
def test_bad_requests_are_refused(server, sent):
    with connect(server) as raw:
        raw.sendall(sent)
        assert raw.recv(64).startswith(b"HTTP/1.1 4")
    assert get(server, "/livez") == (200, "ok\n")


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadSettings, match=rf"http: cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            ProbeServer("127.0.0.1", port, Metrics(), Health(lambda: None, lambda: None))
