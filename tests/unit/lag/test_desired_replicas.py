"""How many processes a group needs: the laws of the number, and the cases it was made for."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lag.desired_replicas import DesiredReplicas, ScalingPolicy, ScalingSample

LOOK_S = 15.0
POLICY = ScalingPolicy(max_replicas=100, capacity_per_process=5_000.0)
OFFSETS = st.integers(0, 2**63 - 1)


class Group:
    """A group under a simulated clock, looked at every LOOK_S: so much comes, so much is finished, so many work."""

    def __init__(self, policy=POLICY, *, partitions=100, members=1, lag=0):
        self.desired = DesiredReplicas(policy)
        self.sample = ScalingSample(0.0, 10**9, 10**9 - lag, lag, 0.0, partitions, members)
        self.advice = self.desired.advise(self.sample)

    def look(self, rate=0.0, done=None, *, members=None, seconds=LOOK_S, looks=1, **changes):
        """After `seconds` in which `rate` came in each second and `done` was finished; all of it by default."""
        for _ in range(looks):
            last = self.sample
            arrived = last.arrived + round(rate * seconds)
            finished = min(arrived, last.finished + round((rate if done is None else done) * seconds))
            self.sample = replace(
                last,
                at_s=last.at_s + seconds,
                arrived=arrived,
                finished=finished,
                lag_records=arrived - finished,
                members=last.members if members is None else members,
                **changes,
            )
            self.advice = self.desired.advise(self.sample)
        return self.advice.replicas

    def numbers(self, rates, *, done=None):
        return [self.look(rate, done) for rate in rates]


samples = st.builds(
    ScalingSample,
    at_s=st.floats(-1e12, 1e12),
    arrived=OFFSETS,
    finished=OFFSETS,
    lag_records=st.integers(-(2**63), 2**63 - 1),
    lag_seconds=st.floats(),
    partitions=st.integers(-1, 10_000),
    members=st.integers(0, 10_000),
)
policies = st.builds(
    ScalingPolicy,
    min_replicas=st.integers(0, 20),
    max_replicas=st.integers(20, 1_000),
    drain_target_s=st.floats(31.0, 3_600.0),
    capacity_per_process=st.none() | st.floats(1e-3, 1e9),
    utilization=st.floats(0.05, 0.9),
    hold_s=st.floats(1.0, 3_600.0),
    rebalance_pause_s=st.floats(0.0, 600.0),
)


@given(policies, st.lists(samples, min_size=1, max_size=30))
def test_whatever_is_seen_the_number_is_within_its_bounds_and_what_it_came_from_is_finite(policy, seen):
    """Counters that fall, clocks that go back, groups without members or partitions, a lag below zero."""
    desired = DesiredReplicas(policy)

    for sample in seen:
        advice = desired.advise(sample)
        assert isinstance(advice.replicas, int)
        assert 0 <= advice.replicas <= policy.max_replicas
        if sample.partitions > 0:
            assert advice.replicas <= sample.partitions
            assert advice.replicas >= min(policy.min_replicas, sample.partitions)
        assert math.isfinite(advice.arrival_rate)
        assert advice.arrival_rate >= 0
        assert advice.capacity_per_process is None or 0 < advice.capacity_per_process < math.inf


@given(
    st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 50_000)), max_size=10),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.sampled_from(["arrivals", "lag"]),
    st.floats(0.0, 100.0),
)
def test_more_arrivals_or_more_lag_never_mean_fewer_processes(history, less, more, which, pause_s):
    less, more = sorted([less, more])
    policy = replace(POLICY, rebalance_pause_s=pause_s)
    numbers = []
    for amount in (less, more):
        group = Group(policy, members=3)
        for rate, done in history:
            group.look(rate, done)
        last = replace(group.sample, at_s=group.sample.at_s + LOOK_S)
        if which == "arrivals":
            last = replace(last, arrived=last.arrived + amount)
        else:
            last = replace(last, lag_records=amount)
        numbers.append(group.desired.advise(last).replicas)

    assert numbers[0] <= numbers[1]


@given(st.floats(1.0, 400_000.0), st.randoms(use_true_random=False), st.integers(0, 100))
def test_under_a_constant_load_that_trembles_by_four_percent_the_number_settles(rate, dice, members):
    """It rises once more at most, where the group it found was just about enough, and never swings."""
    group = Group(members=members)
    numbers = group.numbers([rate * (1 + dice.uniform(-0.04, 0.04)) for _ in range(80)])
    settled = numbers[4:]
    rises = [number > before for before, number in itertools.pairwise(settled)]
    falls = [number < before for before, number in itertools.pairwise(settled)]

    assert sum(rises) <= 1
    assert sum(falls) <= 2


@given(st.floats(1.0, 400_000.0), st.integers(0, 10**8))
def test_within_its_number_a_group_keeps_up_and_drains_within_the_target(rate, lag):
    """The number's own promise, if the processes do what the capacity says and come within reaction_s."""
    policy = replace(POLICY, max_replicas=10**6)
    group = Group(policy, partitions=10**6, members=1, lag=lag)
    number = group.look(rate, 0.0, looks=8)
    spare = number * POLICY.capacity_per_process - rate

    assert spare > 0
    assert group.sample.lag_records / spare <= policy.drain_target_s - policy.reaction_s + 1e-6


@given(st.integers(1, 2_000), st.floats(0.0, 1.0), st.floats(0.0, 5e6))
def test_no_step_is_small_enough_for_the_autoscaler_to_swallow(held, share, rate):
    """Its rule: nothing is done while 0.9 <= published / current <= 1.1. The ends of the range are the exception."""
    policy = replace(POLICY, min_replicas=0, max_replicas=2_200)
    group = Group(policy, partitions=2_200, members=held)
    group.look(held * 4_000.0 * share, looks=20)
    before = group.advice.replicas
    number = group.look(rate, looks=1)
    ratio = number / before if before else math.inf

    assert number in {before, 0, 2_200} or not (1.0 - 0.1) <= ratio <= (1.0 + 0.1)


@pytest.mark.parametrize("most", range(1, 60))
def test_the_most_is_reached_from_any_number_below_by_steps_the_autoscaler_takes(most):
    """11 of 12 would be a dead end: 12/11 is within its tolerance."""
    group = Group(replace(POLICY, max_replicas=most, hold_s=10**6), partitions=100)
    for rate in range(0, 5_000 * most, 500):
        before = group.advice.replicas
        number = group.look(float(rate))
        assert number == before or number / before > 1.1
    assert group.advice.replicas == most


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 100_000)), max_size=10), st.integers(1, 10))
def test_nothing_to_do_ends_at_the_least(history, least):
    group = Group(replace(POLICY, min_replicas=least), members=20)
    for rate, done in history:
        group.look(rate, done)
    group.look(0.0, 10**9, looks=40)

    assert group.advice.replicas == least


def test_with_a_least_of_zero_a_silent_topic_ends_at_zero_and_its_first_record_brings_one():
    group = Group(replace(POLICY, min_replicas=0), members=3)

    assert group.look(0.0, looks=30) == 0
    assert group.look(1 / LOOK_S, 0.0, members=0) == 1


def test_a_slow_stream_keeps_its_one_process():
    """One record in two minutes; an average of the rate alone would be below any threshold now and then."""
    group = Group(replace(POLICY, min_replicas=0))

    assert {number for _ in range(20) for number in group.numbers([0.0] * 7 + [1 / LOOK_S])} == {1}


def test_a_load_five_times_as_large_is_answered_at_the_first_look_that_shows_it():
    group = Group()
    group.look(4_000.0, looks=20)
    assert group.advice.replicas == 1

    number = group.look(20_000.0, 5_000.0)
    assert number >= 5
    assert group.advice.reason == "arrivals"
    # what joins the backlog until they work was foreseen: another look or two without them asks for no more than one
    assert group.look(20_000.0, 5_000.0, looks=2) <= number + 3


def test_a_backlog_is_worth_more_processes_even_without_arrivals():
    group = Group(lag=4_000_000)

    assert group.advice.reason == "backlog"
    assert group.advice.replicas == 12  # 4,000,000 / 90 s / 4,000 a second is 11.1: 9 partitions at most for each


def test_a_rebalance_that_costs_more_than_it_brings_is_not_made():
    """Two would have to make up for 300 s in which neither works."""
    dear = replace(POLICY, rebalance_pause_s=300.0)
    group = Group(dear, lag=500_000)
    group.look(500.0, 5_000.0)

    assert group.advice.reason == "rebalance"
    assert group.advice.replicas == 1
    cheap = Group(replace(POLICY, rebalance_pause_s=3.0), lag=500_000)
    assert cheap.look(500.0, 5_000.0) == 2


def test_a_dear_rebalance_keeps_nobody_from_what_is_needed_to_keep_up():
    group = Group(replace(POLICY, rebalance_pause_s=10_000.0))

    assert group.look(20_000.0, 5_000.0) >= 5


@pytest.mark.parametrize(("wanted", "number"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (6, 6), (7, 12), (11, 12)])
def test_only_numbers_are_asked_for_that_do_more_than_the_next_smaller_one(wanted, number):
    """Of 12 partitions one of 7 processes would have 2 all the same, and the group would do what 6 do."""
    group = Group(partitions=12)

    assert group.look(4_000.0 * wanted, looks=20) == number


@given(st.integers(1, 300), st.integers(1, 300))
def test_no_smaller_number_would_do_the_same_work(partitions, wanted):
    """The busiest process has no fewer partitions with one process less than with the number asked for."""
    group = Group(replace(POLICY, max_replicas=300, hold_s=10**6), partitions=partitions)
    number = group.look(4_000.0 * wanted, looks=20)

    if number > 1:
        assert math.ceil(partitions / (number - 1)) > math.ceil(partitions / number)


def test_fewer_are_asked_for_once_fewer_were_enough_for_the_whole_time():
    group = Group(members=10)
    group.look(39_000.0, looks=40)
    assert group.advice.replicas == 10

    looks = 0
    while group.look(8_000.0) == 10:
        looks += 1
        assert group.advice.reason in {"holds", "steady"}
    assert group.advice.reason == "down"
    assert looks * LOOK_S >= POLICY.hold_s
    assert group.look(8_000.0, looks=40) == 2


def test_one_look_with_more_to_do_starts_the_time_again():
    group = Group(members=10)
    group.look(40_000.0, looks=40)
    for _ in range(5):
        assert group.look(8_000.0, looks=10) == 10
        assert group.look(40_000.0, looks=2) == 10


def test_a_new_exporter_takes_nothing_away_before_it_has_watched_long_enough():
    group = Group(members=10)

    assert {group.look(0.0) for _ in range(int(POLICY.hold_s // LOOK_S) - 1)} == {10}


def test_capacity_is_measured_where_there_was_a_backlog_all_the_time():
    group = Group(members=2, lag=10**6)
    group.look(1_000.0, 6_000.0, looks=30)

    assert group.advice.capacity_per_process == pytest.approx(3_000.0, rel=0.05)


def test_an_idle_stream_says_nothing_about_capacity():
    group = Group(members=2)
    group.look(100.0, looks=100)

    assert group.advice.capacity_per_process == 5_000.0


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_processes_that_waited_for_work_are_never_measured(lag, rate):
    """The backlog was smaller than what they finished, so that some of it had come meanwhile."""
    group = Group(members=2, lag=lag)
    group.look(float(rate), lag / LOOK_S + rate)

    assert group.advice.capacity_per_process == 5_000.0


def test_processes_without_a_partition_are_not_counted_as_slow():
    group = Group(members=8, partitions=4, lag=10**7)
    group.look(0.0, 20_000.0, looks=10)

    assert group.advice.capacity_per_process == pytest.approx(5_000.0)


def test_a_rebalance_is_no_measurement():
    group = Group(replace(POLICY, rebalance_pause_s=20.0), members=1, lag=10**7)
    group.look(0.0, 10.0, members=2)
    group.look(0.0, 10.0)

    assert group.advice.capacity_per_process == 5_000.0


def test_a_standstill_is_no_measurement():
    """A broker that is away, workers that wait for it: more of them would wait too."""
    group = Group(members=3, lag=10**6)
    group.look(0.0, 0.0, looks=100)

    assert group.advice.capacity_per_process == 5_000.0


def test_an_offset_set_forward_by_hand_hardly_counts_as_capacity():
    group = Group(members=1, lag=10**9)
    group.look(0.0, 10**7)

    assert group.advice.capacity_per_process < 2 * 5_000.0


def test_a_topic_made_anew_takes_the_rate_along():
    group = Group()
    group.look(4_000.0, looks=10)
    group.sample = replace(group.sample, arrived=0, finished=0, lag_records=0)
    group.look(4_000.0)

    assert group.advice.arrival_rate == pytest.approx(4_000.0)
    assert group.advice.replicas == 1


def test_the_offsets_of_a_new_topic_are_no_arrivals():
    group = Group(partitions=4)
    group.look(4_000.0, looks=10)
    group.look(10**9, partitions=8)

    assert group.advice.arrival_rate == pytest.approx(4_000.0)


def test_without_a_capacity_the_number_is_that_of_the_group_until_one_was_measured():
    group = Group(replace(POLICY, capacity_per_process=None), members=0)
    assert group.look(9_000.0, 0.0) == 1
    assert group.advice.reason == "unknown"

    group.look(9_000.0, 0.0, members=1)
    group.look(9_000.0, 3_000.0, looks=2)
    assert group.advice.capacity_per_process == pytest.approx(3_000.0)
    assert group.advice.replicas >= 4


@given(st.integers(2, 12), st.lists(st.integers(0, 12), min_size=1, max_size=11), st.none() | st.just(5_000.0))
def test_members_that_are_missing_for_a_while_are_no_wish_for_fewer(members, seen, capacity):
    """A rolling update, crashes, a session that runs out: whoever scaled down to these would never get them back."""
    group = Group(replace(POLICY, capacity_per_process=capacity), members=members, partitions=27_720)
    busy = 4_000.0 * members
    group.look(busy, looks=20)
    held = group.advice.replicas
    assert held == members

    for number in seen:  # for less than hold_s
        assert group.look(busy, members=min(number, members)) >= held
    assert group.look(busy, members=members) >= held


def test_members_that_stay_away_are_no_longer_asked_for_where_no_capacity_is_known():
    group = Group(replace(POLICY, capacity_per_process=None), members=3)
    group.look(0.0, looks=20)

    numbers = [group.look(0.0, members=1) for _ in range(20)]

    held = int(POLICY.hold_s // LOOK_S)
    assert numbers[:held] == [3] * held
    assert numbers[-1] == 1


def test_a_number_is_settled_when_those_who_are_replaced_would_be_back():
    """A new exporter may come while a pod is replaced: 2 of 3, and 2 would be for good."""
    group = Group(members=2)
    assert not group.advice.settled
    group.look(4_000.0, members=3)
    assert not group.advice.settled
    group.look(4_000.0)

    assert group.advice.settled
    assert group.advice.replicas == 3


@pytest.mark.parametrize("capacity", [None, 5_000.0])
def test_a_number_above_what_there_is_may_be_told_at_once_and_stays_told(capacity):
    group = Group(replace(POLICY, capacity_per_process=capacity), members=0, lag=100)
    group.look(10.0, 0.0, members=0)
    assert group.advice.settled
    group.look(10.0, members=1)

    assert group.advice.settled


def test_after_a_time_unseen_the_number_is_the_one_of_before_and_nothing_is_measured_across_it():
    """The broker was away for ten minutes: every session ran out, and what was done in them says nothing."""
    group = Group(members=6, lag=10**6)
    group.look(20_000.0, 20_000.0, looks=20)
    before = group.advice
    group.desired.lost_sight()
    group.look(2_000.0, 100.0, seconds=600.0, members=1)

    assert group.advice.replicas >= before.replicas
    assert group.advice.capacity_per_process == before.capacity_per_process
    assert group.advice.arrival_rate == before.arrival_rate


def test_nobody_watched_while_nothing_was_seen():
    group = Group(members=6)
    group.look(24_000.0, looks=20)
    group.desired.lost_sight()
    group.look(0.0, seconds=600.0)

    numbers = [group.look(0.0) for _ in range(20)]

    held = int(POLICY.hold_s // LOOK_S) - 1
    assert set(numbers[:held]) == {6}
    assert numbers[-1] < 6


def test_a_group_whose_partitions_are_not_known_stays_as_it_is():
    group = Group(members=7)
    group.look(28_000.0, looks=5)

    assert group.look(0.0, partitions=0, looks=100) == 7


@pytest.mark.parametrize(("partitions", "reason"), [(4, "partitions"), (200, "max_replicas")])
def test_what_keeps_the_number_down_is_told(partitions, reason):
    group = Group(partitions=partitions, members=partitions, lag=10**12)
    group.look(10**9, 1.0, looks=3)

    assert group.advice.replicas == min(partitions, 100)
    assert group.advice.reason == reason


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"utilization": 0.95}, "dead_band"),
        ({"utilization": 0.0}, "utilization"),
        ({"min_replicas": 5, "max_replicas": 4}, "min_replicas"),
        ({"min_replicas": 0, "max_replicas": 0}, "max_replicas"),
        ({"reaction_s": 120.0}, "reaction_s"),
        ({"drain_target_s": math.inf}, "drain_target_s"),
        ({"drain_target_s": math.nan}, "drain_target_s"),
        ({"capacity_per_process": 0.0}, "capacity_per_process"),
        ({"hold_s": -1.0}, "hold_s"),
        ({"rebalance_pause_s": -1.0}, "rebalance_pause_s"),
    ],
)
def test_a_policy_that_no_number_could_keep_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        ScalingPolicy(**values)
