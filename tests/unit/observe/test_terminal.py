"""`top` shows a snapshot as plain text: all figures, and nothing that a terminal would obey."""

import io

import pytest
from fakes import ManualClock
from hypothesis import given
from hypothesis import strategies as st
from made_worker import CHURN, MadeWorker, outcomes, refused
from rich.console import Console

from app.observe.look import Look, OneProcess
from app.observe.snapshot import Snapshots, WorkerFacts
from app.observe.terminal import count, line, seconds, whole

HOSTILE = "[red]x[/red]\x1b[2J\x1b]0;title\x07\r\n[/]"


def snapshot_of(worker):
    """After two looks, with work between."""
    clock = ManualClock()
    snapshots = Snapshots(OneProcess(worker.metrics), worker.facts, clock)
    snapshots.facts(alive=None, ready=None)
    worker.serve_versions(stable="1", canary="2")
    worker.work(outcomes("1", 750, [refused(HOSTILE, topic=HOSTILE)]), outcomes("2", 250, answered_by="canary"))
    worker.lag(12, 30)
    worker.observer.transaction("aborted")
    clock.advance(1)
    return snapshots.facts(alive=None, ready="not in the consumer group yet: churn")


@pytest.fixture(scope="module")
def snapshot():
    return snapshot_of(MadeWorker())


def printed(what, width=120):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(what)
    return console.file.getvalue()


def test_all_parts_are_shown(snapshot):
    text = printed(whole(snapshot))
    for words in (
        "worker-7f9c", "exactly once", "not ready: not in the consumer group yet", "lag 42 records", "end to end",
        "rollout canary, revision 2", "25 %", "churn.events", "1 aborted", "transactions aborted", "out_of_range",
        "percentiles from histogram buckets, of the last 1 s",
    ):  # fmt: skip
        assert words in text


def test_text_from_elsewhere_is_shown_and_not_obeyed(snapshot):
    text = printed(whole(snapshot, lost=HOSTILE), width=300)
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_narrow_terminal_is_no_error(snapshot, width):
    assert printed(whole(snapshot), width=width)


def test_a_lost_worker_is_shown_with_the_age_of_its_figures(snapshot):
    assert "figures are 12 s old, trying again: silent" in printed(whole(snapshot, lost="silent", age_s=12.2))


def test_one_line_says_what_matters_most(snapshot):
    assert "1,001 records/s  lag 42 records, 200 ms" in line(snapshot)
    assert "\n" not in line(snapshot)


class Nothing:
    def look(self):
        return Look({})


def test_a_worker_of_which_nothing_is_known_is_shown():
    facts = WorkerFacts("w", "0", "at_least_once", 2, (CHURN,))
    snapshot = Snapshots(Nothing(), facts, ManualClock()).facts(alive="stuck", ready=None)
    assert "1 (no report)" in printed(whole(snapshot))
    assert "not alive: stuck" in printed(whole(snapshot))


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (0, "0 s"), (0.0042, "4.2 ms"), (1.5, "1.5 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min")],
)
def test_durations_are_for_people(value, words):
    assert seconds(value) == words


@given(st.floats(0, 1e12))
def test_every_number_has_words(value):
    assert count(value)
    assert seconds(value)
