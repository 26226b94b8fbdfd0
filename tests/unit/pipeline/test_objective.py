"""A latency objective: what is left of it is spent on waiting, and never more than that."""

import math
import random

import numpy as np
import pytest
from fakes import NOW_MS, FakeRecord, ManualClock
from hypothesis import given
from hypothesis import strategies as st

from app.pipeline.batcher import BatchPolicy, MicroBatcher
from app.pipeline.objective import CAUTION, BatchCost, LatencyObjective

OBJECTIVE_S = 0.1
POLICY = BatchPolicy(max_records=512)


class Simulation:
    """One worker on a simulated clock: a batch of n takes fixed_s + n * per_record_s, its delivery delivery_s.

    arrivals: seconds from now, rising; a record's own timestamp is when it arrives.
    """

    def __init__(self, fixed_s, per_record_s, delivery_s, policy=POLICY):
        self.clock = ManualClock()
        self.objective = LatencyObjective(OBJECTIVE_S, self.clock)
        self.batcher = MicroBatcher(policy, self.clock, self.objective)
        self._cost = lambda count: fixed_s + per_record_s * count
        self._delivery_s = delivery_s
        self.ages, self.sizes = [], []

    def run(self, arrivals):
        start = self.clock.monotonic()
        waiting = [start + when for when in arrivals]
        held = []
        while waiting or held:
            now = self.clock.monotonic()
            room = self.batcher.room()
            come = [when for when in waiting[:room] if when <= now]
            if come:
                del waiting[: len(come)]
                held += come
                self.batcher.add(
                    [FakeRecord(timestamp=(1, self.clock.now_ms() - round((now - t) * 1000))) for t in come]
                )
            due_in = self.batcher.due_in()
            if due_in > 0:
                self.clock.advance(max(1e-6, min(due_in, (waiting[0] if waiting else math.inf) - now)))
                continue
            batch = self.batcher.take()
            self.clock.advance(self._cost(len(batch)))
            self.objective.scored(len(batch), self._cost(len(batch)), batch.taken_at)
            self.clock.advance(self._delivery_s)
            self.objective.settled()
            self.sizes.append(len(batch))
            self.ages += [self.clock.monotonic() - when for when in held[: len(batch)]]
            del held[: len(batch)]


def poisson(rate, seconds, seed=0):
    chance = random.Random(seed)
    found, when = [], 0.0
    while (when := when + chance.expovariate(rate)) < seconds:
        found.append(when)
    return found


@pytest.mark.parametrize("load", [0.01, 0.1, 0.3, 0.5, 0.7, 0.8])
@pytest.mark.parametrize(
    ("fixed_s", "per_record_s"),
    [pytest.param(0.0005, 0.0002, id="dear records"), pytest.param(0.02, 0.00002, id="dear batches")],
)
def test_99_of_100_records_are_on_time_up_to_80_percent_of_capacity(fixed_s, per_record_s, load):
    delivery_s = 0.003
    # of batches that take half of what the objective leaves: larger ones could not be on time
    largest = min(512, ((OBJECTIVE_S - delivery_s) / 2 - fixed_s) / per_record_s)
    capacity = largest / (fixed_s + per_record_s * largest + delivery_s)
    simulation = Simulation(fixed_s, per_record_s, delivery_s)
    simulation.run(poisson(load * capacity, 4.0))
    late = np.mean(np.array(simulation.ages) > OBJECTIVE_S)
    assert late <= 0.01


def test_waiting_makes_batches_as_large_as_the_objective_allows():
    simulation = Simulation(0.001, 0.00001, 0.002)
    simulation.run(np.arange(0, 10, 0.001).tolist())
    steady = simulation.sizes[20:-1]
    assert 40 <= np.mean(steady) <= 50  # 1,000 a second, for nearly half of the 100 ms
    assert max(simulation.ages) < OBJECTIVE_S


def test_the_first_record_after_a_quiet_time_leaves_at_once():
    simulation = Simulation(0.001, 0.00001, 0.002)
    simulation.run([0.0, 30.0, 60.0])
    assert simulation.ages == pytest.approx([0.003] * 3, rel=0.01)
    assert simulation.sizes == [1, 1, 1]


def test_a_backlog_is_worked_off_in_full_batches():
    simulation = Simulation(0.001, 0.0001, 0.002)
    simulation.run([-10.0] * 5120)
    assert simulation.sizes == [512] * 10


def test_after_a_backlog_records_are_on_time_again():
    simulation = Simulation(0.0005, 0.0002, 0.003)
    arrivals = np.arange(0, 10, 1 / 3000)
    simulation.run(np.where(arrivals < 1.0, 1.0, arrivals).tolist())  # a second's records come at once
    ages = np.array(simulation.ages)
    assert ages.max() > OBJECTIVE_S
    assert np.mean(ages[len(ages) // 2 :] > OBJECTIVE_S) == 0


@pytest.mark.parametrize(
    "timestamp",
    [
        pytest.param((0, -1), id="none"),
        pytest.param((1, NOW_MS + 3_600_000), id="an hour ahead"),
        pytest.param((1, NOW_MS), id="now"),
    ],
)
def test_a_timestamp_that_says_nothing_counts_from_the_arrival(timestamp):
    clock = ManualClock()
    objective = LatencyObjective(OBJECTIVE_S, clock)
    assert objective.arrived([FakeRecord(timestamp=timestamp)]) == clock.monotonic() + CAUTION * OBJECTIVE_S


def test_the_oldest_record_decides():
    clock = ManualClock()
    objective = LatencyObjective(OBJECTIVE_S, clock)
    records = [FakeRecord(timestamp=(1, NOW_MS - age)) for age in (0, 40, 7)] + [FakeRecord(timestamp=(0, -1))]
    assert objective.arrived(records) == pytest.approx(clock.monotonic() + CAUTION * OBJECTIVE_S - 0.04)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-6, 2.0)), max_size=30),
    st.lists(st.integers(1, 5000), max_size=5),
    st.floats(-1.0, 1.0),
    st.integers(1, 5000),
    st.integers(0, 5000),
)
def test_no_history_makes_it_wait_for_longer_than_is_left(batches, arrivals, left_s, held, more):
    clock = ManualClock()
    objective = LatencyObjective(OBJECTIVE_S, clock)
    for count, seconds in batches:
        taken_at = clock.monotonic()
        clock.advance(seconds)
        objective.scored(count, seconds, taken_at)
        clock.advance(0.001)
        objective.settled()
    for count in arrivals:
        objective.arrived([FakeRecord()] * count)
        clock.advance(0.01)
    wait_s = objective.wait_s(left_s, held)
    assert 0 <= wait_s <= max(0.0, left_s)
    assert objective.wait_s(left_s, held + more) <= wait_s
    assert objective.most(left_s) >= 1
    state = objective.state()
    assert min(state.fixed_s, state.per_record_s, state.delivery_s) >= 0


@given(st.floats(0, 0.1), st.floats(1e-7, 0.01), st.lists(st.integers(1, 4096), min_size=2, max_size=200, unique=True))
def test_the_cost_of_batches_is_found(fixed_s, per_record_s, counts):
    cost = BatchCost()
    for count in counts:
        cost.seen(count, fixed_s + per_record_s * count)
    # what is asked about is among the sizes seen
    assert cost.of(counts[-1]) == pytest.approx(fixed_s + per_record_s * counts[-1], rel=0.02, abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 10)), min_size=1, max_size=100))
def test_a_cost_is_never_negative_and_never_falls_with_the_size(batches):
    cost = BatchCost()
    for count, seconds in batches:
        cost.seen(count, seconds)
    assert cost.fixed_s >= 0
    assert cost.per_record_s >= 0


def test_of_batches_of_one_size_the_cost_is_all_their_records():
    cost = BatchCost()
    for _ in range(10):
        cost.seen(100, 0.01)
    assert (cost.fixed_s, cost.per_record_s) == (0.0, pytest.approx(0.0001))


def test_what_was_undone_is_not_measured_as_delivery():
    clock = ManualClock()
    objective = LatencyObjective(OBJECTIVE_S, clock)
    objective.scored(1, 0.0, clock.monotonic())
    objective.undone()
    clock.advance(5)
    objective.settled()
    assert objective.state().delivery_s == 0
