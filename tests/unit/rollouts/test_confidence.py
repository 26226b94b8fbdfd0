"""Bounds that hold at every look: exact counts in, no false alarm by looking often, and quick where it matters."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rollouts.confidence import Interval, Rate, difference_within, rate_within

ALPHAS = st.floats(1e-9, 0.5)


@st.composite
def rates(draw, most=10**6):
    trials = draw(st.integers(0, most))
    return Rate(draw(st.integers(0, trials)), trials)


@given(rates(), ALPHAS)
def test_the_bounds_contain_what_was_counted_and_stay_within_0_and_1(rate, alpha):
    within = rate_within(rate, alpha)
    assert 0.0 <= within.low <= within.high <= 1.0
    if rate.trials:
        assert within.low <= rate.share <= within.high


@given(rates(), ALPHAS)
def test_the_opposite_of_a_rate_has_the_opposite_bounds(rate, alpha):
    one, other = rate_within(rate, alpha), rate_within(rate.rest, alpha)
    assert one.low == pytest.approx(1 - other.high, abs=1e-9)
    assert one.high == pytest.approx(1 - other.low, abs=1e-9)


@given(rates(), ALPHAS)
def test_who_wants_to_be_surer_gets_wider_bounds(rate, alpha):
    sure, surer = rate_within(rate, alpha), rate_within(rate, alpha / 10)
    assert surer.low <= sure.low
    assert surer.high >= sure.high


@given(rates(10**4).filter(lambda rate: rate.trials > 0), ALPHAS)
def test_a_hundred_times_the_rows_narrow_the_bounds(rate, alpha):
    few, many = rate_within(rate, alpha), rate_within(Rate(100 * rate.events, 100 * rate.trials), alpha)
    assert many.high - many.low <= few.high - few.low


@given(rates(), rates(), ALPHAS)
def test_a_difference_changes_its_sign_with_its_sides(one, other, alpha):
    there, back = difference_within(one, other, alpha), difference_within(other, one, alpha)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_of_nothing_nothing_is_known():
    assert rate_within(Rate(0, 0), 0.01) == Interval(0.0, 1.0)
    assert difference_within(Rate(0, 0), Rate(0, 0), 0.01) == Interval(-1.0, 1.0)
    assert Rate(0, 0).share == 0.0


@pytest.mark.parametrize("trials", [1, 10, 10**6, 10**12, 10**15])
def test_all_or_none_leave_one_side_open(trials):
    assert rate_within(Rate(0, trials), 0.01).low == 0.0
    assert rate_within(Rate(trials, trials), 0.01).high == 1.0


def test_a_bound_is_where_the_mixture_says():
    """By its definition: Beta(1/2 + k, 1/2 + n - k) / Beta(1/2, 1/2) over p^k (1 - p)^(n - k) is 1/alpha there."""

    def log_beta(a, b):
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    alpha = 0.02
    within = rate_within(Rate(7, 300), alpha)
    for p in (within.low, within.high):
        mixture = log_beta(7.5, 293.5) - log_beta(0.5, 0.5)
        assert mixture - 7 * math.log(p) - 293 * math.log(1 - p) == pytest.approx(-math.log(alpha), abs=1e-6)


RUNS, LOOKS, ALPHA = 300, 40, 0.05
LOOK_AT = np.unique(np.geomspace(20, 50_000, LOOKS).astype(int))


def counted(rng, rate):
    """Events until each look, of one run."""
    return np.cumsum(rng.binomial(np.diff(LOOK_AT, prepend=0), rate))


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.3])
def test_looking_often_at_two_equal_versions_alarms_no_more_than_alpha(rate):
    rng = np.random.default_rng(20_260_102)
    alarms = naive = 0
    for _ in range(RUNS):
        one, other = counted(rng, rate), counted(rng, rate)
        looks = list(zip(one.tolist(), other.tolist(), LOOK_AT.tolist(), strict=True))
        alarms += any(a > b and difference_within(Rate(a, n), Rate(b, n), ALPHA).low > 0 for a, b, n in looks)
        naive += any(a - b > 1.645 * math.sqrt(max((a + b) * (1 - (a + b) / (2 * n)), 1e-9)) for a, b, n in looks)
    assert alarms <= ALPHA * RUNS
    assert naive > 2 * ALPHA * RUNS  # a test for one look, done at each of them, cries wolf


def test_the_true_rate_is_within_the_bounds_at_all_looks_together():
    rng, rate = np.random.default_rng(5), 0.01
    missed = 0
    for _ in range(RUNS):
        looks = zip(counted(rng, rate).tolist(), LOOK_AT.tolist(), strict=True)
        within = [rate_within(Rate(events, trials), ALPHA) for events, trials in looks]
        missed += any(not bounds.low <= rate <= bounds.high for bounds in within)
    assert missed <= ALPHA * RUNS
