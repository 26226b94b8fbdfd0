"""A process's line to its supervisor: reports go out, its end is heard."""

import math
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.facts import ProcessReport
from app.worker import slot
from app.worker.slot import SupervisorLine, report_line, report_of

ROOT = Path(__file__).parents[3]
WAIT_S = 20.0
LABELS = st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple)
SAMPLES = st.lists(st.tuples(st.text(), LABELS, st.floats(allow_nan=False)), max_size=5).map(tuple)
ENDED = (("inference_records_total", (("pipeline", "p"),), 7.0),)


class Process:
    """As much of a WorkerProcess as the line sees."""

    def __init__(self):
        self.stuck, self.awaits, self.stopped = None, None, threading.Event()

    def alive(self):
        return self.stuck

    def ready(self):
        return self.awaits

    def stop(self):
        self.stopped.set()


@pytest.fixture
def ends(monkeypatch):
    """The supervisor's end and the process's."""
    monkeypatch.setattr(slot, "REPORT_EVERY_S", 0.05)
    monkeypatch.setattr(slot, "UNTIL_READY_S", 0.05)
    ours, theirs = socket.socketpair()
    ours.settimeout(WAIT_S)
    line = SupervisorLine(theirs.detach())
    yield ours, line
    if line._socket.fileno() >= 0:
        line.close()
    ours.close()


def heard(ours, until):
    """The first report for which `until` is true."""
    with ours.makefile("rb") as lines:
        return next(report for report in map(report_of, lines) if until(report))


@given(st.none() | st.text(), st.none() | st.text(), SAMPLES)
def test_a_report_is_one_line_and_comes_back_as_it_was(stuck, awaits, samples):
    report = ProcessReport(stuck, awaits, samples)
    line = report_line(report)
    assert line.count(b"\n") == 1
    assert report_of(line) == report


def test_a_number_that_is_none_comes_back():
    (sample,) = report_of(report_line(ProcessReport(None, None, (("a", (), math.nan),)))).samples
    assert math.isnan(sample[2])


@pytest.mark.parametrize("torn", [b"", b"[null, nu", b'"in [null, null, []]', b"[null, null]", b"[1, 2, [3]]"])
def test_a_torn_line_is_no_report(torn):
    with pytest.raises((ValueError, TypeError)):
        report_of(torn)


def test_it_is_starting_until_it_begins_and_then_says_what_is_so(ends):
    ours, line = ends
    assert heard(ours, lambda _: True) == ProcessReport(None, "starting", ())
    process = Process()
    process.awaits, process.stuck = "not in the consumer group yet: churn", "no progress for 60 s: churn"
    line.begin(process, lambda: ENDED)
    told = heard(ours, lambda report: report.awaits != "starting")
    assert told == ProcessReport(process.stuck, process.awaits, ENDED)
    process.awaits = process.stuck = None
    assert heard(ours, lambda report: report.awaits is None) == ProcessReport(None, None, ENDED)


def test_its_last_word_is_what_it_counted(ends):
    ours, line = ends
    counted = []
    line.begin(Process(), lambda: tuple(counted))
    heard(ours, lambda report: report.awaits is None)
    counted.append(ENDED[0])
    line.close()
    with ours.makefile("rb") as lines:
        assert report_of(lines.readlines()[-1]) == ProcessReport(None, "ended", ENDED)


def test_a_process_whose_supervisor_died_drains(ends):
    ours, line = ends
    process = Process()
    line.begin(process, tuple)
    ours.close()
    assert process.stopped.wait(WAIT_S)
    line.close()


def test_a_supervisor_that_does_not_read_keeps_nobody_from_ending(ends, monkeypatch):
    ours, line = ends
    line._socket.settimeout(0.1)
    many = tuple(("x" * 1000, (), 1.0) for _ in range(2_000))
    line.begin(Process(), lambda: many)
    time.sleep(0.3)
    began = time.monotonic()
    line.close()
    assert time.monotonic() - began < WAIT_S
    assert ours.fileno() >= 0


def test_a_process_that_has_not_begun_ends_at_once_when_it_is_alone():
    ours, theirs = socket.socketpair()
    script = (
        f"import time; from app.worker.slot import SupervisorLine; SupervisorLine({theirs.fileno()}); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], pass_fds=[theirs.fileno()], cwd=ROOT) as process:
        theirs.close()
        ours.settimeout(60)
        assert report_of(ours.makefile("rb").readline()).awaits == "starting"
        ours.close()
        assert process.wait(WAIT_S) == 0
