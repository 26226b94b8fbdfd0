"""`inference-worker top`: what it prints where, and what it says when nobody answers."""

import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress

import pytest
from made_worker import MadeWorker, outcomes, refused
from rich.console import Console

from app.errors import BadSettings, NotReachable
from app.observe.endpoint import Unreadable
from app.wiring.top import show_worker

WITHIN_S = 60


@pytest.fixture
def worker():
    worker = MadeWorker()
    worker.serve_versions(stable="1")
    worker.work(outcomes(rows=100, letters=[refused()]))
    worker.lag(5)
    return worker


def command(*options):
    return [sys.executable, "-m", "app", "top", *options]


def top(*options):
    """(exit status, what it printed, what it said) of the command, not on a terminal."""
    done = subprocess.run(command(*options), capture_output=True, text=True, timeout=WITHIN_S, check=False)
    return done.returncode, done.stdout, done.stderr


def shown(url, *, as_json=False):
    """What is printed once, in this process."""
    console = Console(file=io.StringIO(), width=120)
    show_worker(url, once=True, as_json=as_json, console=console)
    return console.file.getvalue()


def test_once_prints_everything_with_rates(worker):
    with closing(worker.open()) as server:
        status, printed, _ = top("--url", f"http://127.0.0.1:{server.port}", "--once")
    assert status == 0
    assert "lag 5 records" in printed
    assert "0 records/s" in printed
    assert "out_of_range" in printed
    assert "\x1b" not in printed


def test_once_as_json_is_one_snapshot(worker):
    with closing(worker.open()) as server:
        snapshot = json.loads(shown(f"http://127.0.0.1:{server.port}/", as_json=True))
    assert snapshot["throughput"]["total"]["predicted"] == 100
    assert snapshot["rate_s"] > 0


def test_without_a_terminal_there_is_a_line_a_second_until_the_worker_ends(worker):
    server = worker.open()
    with subprocess.Popen(
        command("--url", f"http://127.0.0.1:{server.port}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert "records/s  lag 5 records" in process.stdout.readline()
        assert "p99" in process.stdout.readline()
        server.close()
        _, said = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1
    assert said.startswith("Unreadable: ")


@pytest.fixture
def interruptible():
    """As from a terminal: what a script started in its background ignores interrupts, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_on_a_terminal_it_is_drawn_and_ends_with_an_interrupt(worker):
    ours, theirs = pty.openpty()
    with closing(worker.open()) as server:
        process = subprocess.Popen(
            command("--url", f"http://127.0.0.1:{server.port}"), stdin=theirs, stdout=theirs, stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        )  # fmt: skip
        os.close(theirs)
        drawn = b""
        deadline = time.monotonic() + WITHIN_S
        while b"end to end" not in drawn:
            assert time.monotonic() < deadline, drawn
            if select.select([ours], [], [], 1)[0]:
                drawn += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal is gone with its last user
            while more := os.read(ours, 65536):
                drawn += more
        assert process.wait(WITHIN_S) == 0
    os.close(ours)
    assert b"\x1b[?1049h" in drawn  # a screen of its own, and the old one given back


def test_on_a_terminal_that_cannot_be_drawn_on_there_are_lines(worker):
    """A serial console, an editor's shell, a log of CI: rich would draw nothing at all."""
    ours, theirs = pty.openpty()
    server = worker.open()
    with subprocess.Popen(
        command("--url", f"http://127.0.0.1:{server.port}"), stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "dumb"},
    ) as process:  # fmt: skip
        os.close(theirs)
        printed = b""
        while b"p99" not in printed:
            assert select.select([ours], [], [], WITHIN_S)[0], printed
            printed += os.read(ours, 65536)
        server.close()
        process.communicate(timeout=WITHIN_S)
    os.close(ours)
    assert b"records/s  lag 5 records" in printed
    assert b"\x1b" not in printed


def test_nobody_there_is_said_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    status, printed, said = top("--url", f"http://127.0.0.1:{port}", "--once")
    assert (status, printed) == (2, "")
    assert said.startswith(f"NotReachable: no worker's live page at http://127.0.0.1:{port}: ConnectError: ")
    assert "Traceback" not in said


@pytest.mark.parametrize("url", ["nowhere", "ftp://x", "http://", "http://x:0", "http://a b"])
def test_an_address_that_is_none_is_named(url):
    with pytest.raises(BadSettings):
        shown(url)


@contextmanager
def answering(body):
    """A server that answers every request with these bytes, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):  # who asked may have read enough
                    connection.recv(4096)
                    connection.sendall(body)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x00\xff no HTTP", id="no HTTP"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope", id="no such page"),
        pytest.param(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull", id="too many viewers"),
        pytest.param(OK + b"data: {not json\n\n", id="no JSON"),
        pytest.param(OK + b"data: [1, 2]\n\n", id="no snapshot"),
        pytest.param(OK + b'data: {"format": 99}\n\n', id="of a newer worker"),
        pytest.param(OK + b'data: {"format": 1, "rate_s": 1, "worker": 3}\n\n', id="half a snapshot"),
        pytest.param(OK + b"data: " + b"x" * 17_000_000, id="a line without end"),
        pytest.param(OK, id="nothing"),
    ],
)
def test_what_is_no_worker_is_told_and_not_shown(body):
    with answering(body) as port, pytest.raises((NotReachable, Unreadable)):
        shown(f"http://127.0.0.1:{port}")
