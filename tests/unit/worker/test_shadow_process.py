"""A shadow's process has bounds before it has a candidate, and ends when it is told to, whatever it is doing."""

import json
import resource
import sys

import pytest

from app.worker import shadow_process
from app.worker.shadow_process import ShadowProcess

MIB = 2**20
STARTS = "import json, os, socket, sys; sys.path[:] = json.loads(sys.stdin.readline()); "
LINE = "line = socket.socket(fileno=int(sys.argv[-1])); "
GIVES_UP = "from app.worker.shadow_process import give_up; give_up(256 << 20, os.getppid()); "


@pytest.fixture
def process(monkeypatch):
    """Start one that runs this; it is ended with the test."""
    started = []

    def start(code, *command, stdin=""):
        monkeypatch.setattr(shadow_process, "BEGIN", code)
        started.append(ShadowProcess(command, stdin))
        started[-1].line.settimeout(30)
        return started[-1]

    yield start
    for one in started:
        one.end(0.0)


def said(one):
    """Everything until the end of its line."""
    found = b""
    while came := one.line.recv(4096):
        found += came
    return found.decode()


def test_it_is_told_its_command_and_its_settings(process):
    code = STARTS + LINE + "line.sendall(json.dumps([sys.argv[1:-1], sys.stdin.read()]).encode())"
    one = process(code, "run-shadow", "--version", "2", stdin='"kafka: {}"')
    assert json.loads(said(one)) == [["run-shadow", "--version", "2"], '"kafka: {}"']


def test_its_memory_and_priority_are_bounded_before_it_works(process):
    reads = (
        "import resource; own = lambda what: resource.getrlimit(what)[0]; "
        "line.sendall(json.dumps([own(resource.RLIMIT_DATA), own(resource.RLIMIT_CORE), os.nice(0), "
        "open('/proc/self/oom_score_adj').read().strip()]).encode())"
    )
    found = json.loads(said(process(STARTS + GIVES_UP + LINE + reads)))
    assert found == [256 * MIB, 0, 19, "1000"]


def test_more_memory_than_that_is_a_memory_error_of_its_own(process):
    takes = "taken = []\nwhile True:\n  try: taken.append(bytearray(16 << 20))\n  except MemoryError: break\n"
    code = (STARTS + GIVES_UP + LINE).replace("; ", "\n") + takes + "line.sendall(str(len(taken)).encode())"
    assert 0 < int(said(process(code))) <= 16


def test_a_limit_that_is_lower_already_stays(process):
    lower = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20)); "
    reads = "line.sendall(str(resource.getrlimit(resource.RLIMIT_DATA)[1]).encode())"
    assert int(said(process(STARTS + lower + GIVES_UP + LINE + reads))) == 200 * MIB
    assert resource.getrlimit(resource.RLIMIT_DATA)[1] != 200 * MIB


def test_one_whose_worker_is_gone_already_ends(process):
    code = STARTS + "from app.worker.shadow_process import give_up; give_up(256 << 20, 1 << 30); os._exit(7)"
    assert process(code).end(30) == "ended with status 0"


def test_one_that_hangs_is_ended_by_force(process):
    hangs = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
    assert process(hangs).end(0.0) == "ended by SIGKILL"


def test_how_it_ended_by_itself_is_told(process):
    assert process("import os; os._exit(3)").end(30) == "ended with status 3"
    assert process("import os; os.kill(os.getpid(), 11)").end(30) == "ended by SIGSEGV"


def test_a_system_that_starts_nothing_is_an_os_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/dev/null/none")
    with pytest.raises(OSError, match="none"):
        ShadowProcess((), "")
