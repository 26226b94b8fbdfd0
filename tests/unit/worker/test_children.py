"""Real processes under a supervisor; what needs a broker is in the integration tests."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from app.errors import BadSettings
from app.facts import ProcessReport
from app.wiring import processes
from app.worker import children
from app.worker.children import ChildProcess, Children
from app.worker.slot import report_line

ROOT = Path(__file__).parents[3]
WAIT_S = 30.0
SETTINGS = {
    "pipelines": [{"name": "p", "input_topics": ["in"], "output_topic": "out", "dead_letter_topic": "dead",
                   "model": "nobody-trained-it"}],
    "worker": {"processes": 2},
    "models": {"store": "file://nowhere"},
    "http": {"port": 0},
    "log": {"format": "json"},
}  # fmt: skip


@pytest.fixture
def child(monkeypatch):
    """Make a process that runs this, with `line` as its end of the line and the text it was told on its input."""
    made = []

    def make(script, told="[]\n"):
        script = f"import os, signal, socket, sys, time; line = socket.socket(fileno=int(sys.argv[-1])); {script}"
        monkeypatch.setattr(children, "_BEGIN", script)
        made.append(ChildProcess([], told))
        return made[-1]

    yield make
    for one in made:
        one.kill()
        one._process.wait(WAIT_S)
        one.close()


def until(condition):
    deadline = time.monotonic() + WAIT_S
    while (given := condition()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return given


def test_its_end_is_known_by_status_or_signal(child):
    assert until(child("sys.exit(4)").poll) == 4
    killed = child("time.sleep(60)")
    assert killed.poll() is None
    killed.kill()
    assert until(killed.poll) == -signal.SIGKILL


def test_it_reads_all_that_it_is_told_however_long(child):
    told = "[]\n" + "x" * 1_000_000
    assert until(child(f"sys.exit(len(sys.stdin.read()) == {len(told)})", told).poll) == 1


def test_one_that_never_reads_holds_nobody_up(child):
    began = time.monotonic()
    child("time.sleep(60)", "x" * 1_000_000)
    assert time.monotonic() - began < 10


def test_the_newest_whole_report_counts_also_after_its_end(child):
    first, second = report_line(ProcessReport(None, "starting")), report_line(ProcessReport(None, None))
    ended = child(f"line.sendall({first + second + b'[null, nu'!r})")
    until(ended.poll)
    assert ended.report() == ProcessReport(None, None)
    assert ended.report() is None
    assert ended.line.fileno() < 0


def test_a_torn_report_is_passed_over(child):
    good = report_line(ProcessReport(None, None))
    ended = child(f"line.sendall({good + b'[null, nu' + good!r})")
    until(ended.poll)
    assert ended.report() == ProcessReport(None, None)


def test_the_terminal_and_the_other_children_are_not_its_own(child):
    """It leads a session, so Ctrl-C reaches it through its parent only; it holds no other line open."""
    one = child("line.recv(1); sys.exit(7)")
    child("time.sleep(60)")
    assert os.getsid(one.pid) == one.pid
    one.line.close()
    assert until(one.poll) == 7


def test_what_it_is_told_is_where_modules_are_and_the_settings_as_they_were(tmp_path):
    file = tmp_path / "worker.yaml"
    text = "pipelines: none  # né à l'aube\n"
    nursery = Children(file, text)
    assert nursery._stdin.isascii()
    assert list(map(json.loads, nursery._stdin.splitlines())) == [sys.path, text]


SUPERVISED = """
import sys
from pathlib import Path
from app.clock import SystemClock
from app.observe.merged import ProcessMetrics
from app.worker import children
from app.worker.supervisor import Supervisor
children._BEGIN = {begin!r}
nursery = children.Children(Path("worker.yaml"), "")
sys.exit(nursery.run(Supervisor(2, nursery.spawn, ProcessMetrics(), 20.0, SystemClock())))
"""


def supervised(begin, folder):
    """A supervisor whose two children run this; each makes a file named for its pid once it is at work."""
    begin = f"import signal, sys, time; from pathlib import Path; {begin}; Path(str(__import__('os').getpid())).touch()"
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISED.format(begin=begin + "; time.sleep(60)")],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    until(lambda: len(list(folder.iterdir())) == 2 or None)
    return supervisor, [int(file.name) for file in folder.iterdir()]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_a_signal_is_handed_on_once_and_all_drain(tmp_path):
    supervisor, children_of_it = supervised("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))", tmp_path)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(WAIT_S) == 0
    assert all(map(gone, children_of_it))


def test_a_second_signal_ends_everything_at_once_with_3(tmp_path):
    supervisor, children_of_it = supervised("signal.signal(signal.SIGTERM, signal.SIG_IGN)", tmp_path)
    supervisor.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert supervisor.poll() is None
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(WAIT_S) == 3
    until(lambda: all(map(gone, children_of_it)) or None)


# -- the program itself, as far as it gets without a broker ------------------------------------------------------


def settings_file(folder, **sections):
    file = folder / "worker.yaml"
    file.write_text(yaml.safe_dump(SETTINGS | sections))
    return file


def test_a_bad_start_of_the_processes_ends_everything_with_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "app", "run", "--config", settings_file(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "ModelMissing" in done.stderr
    assert "process_ended" in done.stderr
    assert "process_restarts" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("logs_as_they_were")
def test_what_is_wrong_with_the_settings_is_found_before_a_process_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(Children, "spawn", None)
    with pytest.raises(BadSettings, match=r"delivery\.mode"):
        processes.run_worker(settings_file(tmp_path, delivery={"mode": "at_most_once"}))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BadSettings, match="cannot listen"):
        processes.run_worker(settings_file(tmp_path, http={"port": taken.getsockname()[1]}))
