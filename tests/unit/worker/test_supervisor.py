"""Several processes: started again when they end by themselves, ended together, never waited for without a bound."""

import signal

import pytest
from fakes import ManualClock

from app.facts import ProcessReport
from app.worker.supervisor import (
    BACKOFF_MOST_S,
    GONE_WITHIN_S,
    HEALTHY_AFTER_S,
    KILL_MARGIN_S,
    UNWELL_MOST_S,
    Supervisor,
)

READY, STARTING = ProcessReport(None, None), ProcessReport(None, "starting")
STUCK = ProcessReport("no progress for 60 s: churn", None)
DRAIN_S = 20.0
KILLED_AFTER_S = DRAIN_S + 5.0 + KILL_MARGIN_S


class FakeChild:
    """Ends when told to, or as its `ends_with` says once it is terminated."""

    def __init__(self, pid):
        self.pid, self.status, self.said = pid, None, []
        self.terminated = self.killed = self.closed = False
        self.ends_with, self.dies = 0, True

    def poll(self):
        return self.status

    def report(self):
        newest = self.said[-1] if self.said else None
        self.said.clear()
        return newest

    def terminate(self):
        self.terminated = True
        if self.ends_with is not None and self.status is None:
            self.status = self.ends_with

    def kill(self):
        self.killed = True
        if self.dies and self.status is None:
            self.status = -signal.SIGKILL

    def close(self):
        self.closed = True


class Observer:
    """What the supervisor told."""

    def __init__(self):
        self.restarts, self.reports, self.ends, self.states = [], [], [], {}

    def started(self, slot, *, again):
        if again:
            self.restarts.append(slot)

    def reported(self, slot, samples):
        self.reports.append((slot, samples))

    def ended(self, slot):
        self.ends.append(slot)

    def counted(self, states):
        self.states = dict(states)


class Fleet:
    """A supervisor, its clock, and every child it ever made."""

    def __init__(self, processes=2):
        self.clock, self.observer, self.refused = ManualClock(), Observer(), 0
        self.all, self.now = [], {}
        self.supervisor = Supervisor(processes, self.spawn, self.observer, DRAIN_S, self.clock)

    def spawn(self, slot):
        if self.refused:
            self.refused -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.now[slot] = FakeChild(100 + len(self.all))
        self.all.append(self.now[slot])
        return self.now[slot]

    def turn(self):
        return self.supervisor.turn()

    def passes(self, seconds, saying=READY, step=0.25):
        """Turns for so long, every child saying this; the exit status when there is one."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            if saying is not None:
                for child in self.now.values():
                    child.said.append(saying)
            if (status := self.turn()) is not None:
                return status
        return None

    def at_work(self):
        """All started and ready."""
        self.turn()
        self.passes(0.25)
        return self

    def ends(self, slot, status):
        self.now[slot].status = status
        return self.turn()

    def restarted_after(self, slot, within_s=100.0):
        """Seconds until the slot has another child; the others are well."""
        gone, began = self.now.pop(slot), self.clock.monotonic()
        assert gone.closed
        while slot not in self.now:
            assert self.clock.monotonic() - began < within_s
            assert self.passes(0.25) is None
        return self.clock.monotonic() - began


@pytest.fixture
def fleet():
    return Fleet().at_work()


def test_every_slot_is_started_once_and_told_apart():
    three = Fleet(3)
    for _ in range(5):
        assert three.turn() is None
    assert list(three.now) == [0, 1, 2]
    assert len(three.all) == 3


def test_ready_names_those_that_are_not():
    two = Fleet()
    assert two.supervisor.ready() == "process 0: starting; process 1: starting"
    two.turn()
    assert two.supervisor.ready() == "process 0: starting; process 1: starting"
    two.now[0].said.append(READY)
    two.now[1].said.append(ProcessReport(None, "not in the consumer group yet: churn"))
    two.turn()
    assert two.supervisor.ready() == "process 1: not in the consumer group yet: churn"
    assert two.observer.states == {"ready": 1, "not_ready": 1, "waiting": 0}
    two.now[1].said.append(READY)
    two.turn()
    assert two.supervisor.ready() is None
    two.ends(1, 4)
    assert two.supervisor.ready() == "process 1: ended, starts again in 1 s"
    assert two.observer.states == {"ready": 1, "not_ready": 0, "waiting": 1}


@pytest.mark.parametrize("status", [0, 3, 4, -signal.SIGKILL, -signal.SIGSEGV])
def test_a_process_that_ends_by_itself_is_started_again_and_the_others_are_left_alone(fleet, status):
    neighbour = fleet.now[0]
    assert fleet.ends(1, status) is None
    assert fleet.observer.ends == [1]
    assert fleet.restarted_after(1) == 1.0
    assert fleet.observer.restarts == [1]
    assert fleet.now[0] is neighbour
    assert not neighbour.terminated


def test_the_wait_doubles_up_to_a_minute_and_starts_over_after_a_healthy_spell(fleet):
    waits = []
    for _ in range(8):
        fleet.ends(1, -signal.SIGKILL)
        waits.append(fleet.restarted_after(1))
        fleet.passes(1.0)
    assert waits == [1, 2, 4, 8, 16, 32, BACKOFF_MOST_S, BACKOFF_MOST_S]

    fleet.passes(HEALTHY_AFTER_S)
    fleet.ends(1, -signal.SIGKILL)
    assert fleet.restarted_after(1) == 1.0
    fleet.passes(HEALTHY_AFTER_S, STARTING)  # up for as long, but never ready
    fleet.ends(1, -signal.SIGKILL)
    assert fleet.restarted_after(1) == 2.0


def test_a_start_that_the_system_refuses_is_tried_again(fleet):
    fleet.refused = 2
    fleet.ends(1, 4)
    assert fleet.restarted_after(1) == 1.0 + 2.0 + 4.0


def test_what_it_said_last_is_heard_before_it_counts_as_ended(fleet):
    samples = (("inference_records_total", (("pipeline", "p"),), 7.0),)
    fleet.now[1].said.append(ProcessReport(None, "ended", samples))
    fleet.ends(1, 4)
    assert fleet.observer.reports[-1] == (1, samples)
    assert fleet.observer.ends == [1]


def test_a_fatal_error_ends_everything_with_1_when_the_others_have_drained(fleet):
    fleet.now[0].ends_with = None
    assert fleet.ends(1, 1) is None
    assert fleet.now[0].terminated
    assert fleet.passes(3) is None
    assert fleet.ends(0, 0) == 1
    assert len(fleet.all) == 2


def test_a_bad_first_start_ends_everything_with_2_even_when_others_are_ready():
    two = Fleet()
    two.turn()
    two.now[0].said.append(READY)
    two.turn()
    two.ends(1, 2)
    assert two.now[0].terminated
    assert two.turn() == 2


def test_a_bad_start_of_a_slot_that_was_ready_before_is_tried_again(fleet):
    fleet.ends(1, 4)
    fleet.restarted_after(1)
    assert fleet.ends(1, 2) is None
    assert fleet.restarted_after(1) == 2.0
    assert not fleet.now[0].terminated


def test_the_first_of_two_named_errors_is_the_status(fleet):
    fleet.now[0].status, fleet.now[1].status = 1, 1
    assert fleet.turn() == 1
    other = Fleet()
    other.turn()
    other.now[0].status, other.now[1].status = 2, 1
    assert other.turn() == 2


def test_a_stop_drains_all_and_starts_nobody_again(fleet):
    fleet.ends(1, 4)
    fleet.now.pop(1)
    fleet.now[0].ends_with = None
    fleet.supervisor.stop()
    assert fleet.turn() is None
    assert fleet.supervisor.ready() == "draining"
    assert fleet.now[0].terminated
    assert fleet.passes(10) is None
    assert fleet.ends(0, 0) == 0
    assert len(fleet.all) == 2


def test_a_stop_before_the_first_turn_starts_nobody():
    two = Fleet()
    two.supervisor.stop()
    assert two.turn() == 0
    assert two.all == []


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((0, 0), 0),
        ((0, 3), 3),
        ((1, 3), 3),
        ((4, 3), 3),
        ((0, 4), 4),
        ((1, 0), 1),
        ((0, -signal.SIGKILL), 3),  # what it had not committed is left
        ((0, -signal.SIGTERM), 0),  # it had not begun
    ],
)
def test_the_status_of_a_drain_is_the_worst(fleet, statuses, expected):
    for slot, status in enumerate(statuses):
        fleet.now[slot].ends_with = status
    fleet.supervisor.stop()
    assert fleet.passes(1) == expected


def test_a_drain_has_a_bound_and_then_kills(fleet):
    fleet.now[1].ends_with = None
    fleet.supervisor.stop()
    assert fleet.passes(KILLED_AFTER_S) is None
    assert not fleet.now[1].killed
    assert fleet.passes(1) == 3
    assert fleet.now[1].killed


def test_not_even_a_process_that_cannot_be_killed_is_waited_for_without_a_bound(fleet):
    fleet.now[1].ends_with, fleet.now[1].dies = None, False
    fleet.supervisor.stop()
    assert fleet.passes(KILLED_AFTER_S + GONE_WITHIN_S - 1) is None
    assert fleet.passes(2) == 3


def test_kill_ends_all_at_once(fleet):
    fleet.supervisor.kill()
    assert all(child.killed for child in fleet.all)


@pytest.mark.parametrize("saying", [None, STUCK], ids=["silent", "stuck"])
def test_a_process_without_a_good_word_for_long_is_killed_and_started_again(fleet, saying):
    for _ in range(round(UNWELL_MOST_S) - 1):
        fleet.now[0].said.append(READY)
        if saying:
            fleet.now[1].said.append(saying)
        fleet.passes(1, saying=None)
    assert not fleet.now[1].killed
    fleet.now[0].said.append(READY)
    fleet.passes(1.25, saying=None)
    assert fleet.now[1].killed
    assert not fleet.now[0].killed
    fleet.passes(0.25)
    assert 0.5 <= fleet.restarted_after(1) <= 1.0
    assert fleet.supervisor.alive() is None


def test_when_all_were_frozen_nobody_was_silent(fleet):
    for _ in range(20):
        fleet.clock.advance(3600)
        fleet.turn()
    assert not any(child.killed for child in fleet.all)


def test_alive_fails_only_for_what_a_restart_of_everything_may_mend(fleet):
    fleet.ends(0, 4)
    assert fleet.supervisor.alive() is None
    fleet.now[1].dies = False
    fleet.now.pop(0)
    fleet.passes(UNWELL_MOST_S + 1, saying=None)
    assert fleet.now[1].killed
    assert fleet.supervisor.alive() is None
    fleet.passes(GONE_WITHIN_S + 1, saying=None)
    assert fleet.supervisor.alive() == "process 1 was killed and does not go away"
    fleet.clock.advance(61)
    assert fleet.supervisor.alive() == "the supervisor made no progress for 60 s"
