"""Open-loop pacing: intended send times are decided before the run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.errors import BadOption
from loadgen.pacing import Pace, Schedule

RATES = st.floats(0.1, 50_000)
PACES = st.one_of(
    st.builds(Pace, st.just("constant"), rate=RATES),
    st.builds(Pace, st.just("ramp"), rate=RATES, peak=RATES, period_s=st.floats(0.1, 100)),
    st.builds(
        Pace,
        st.just("spike"),
        rate=RATES,
        peak=RATES,
        period_s=st.floats(2, 100),
        spike_s=st.floats(0.01, 2),
    ),
    st.builds(Pace, st.just("sine"), rate=RATES, peak=RATES, period_s=st.floats(0.1, 100)),
)


def walked(schedule, horizons, limit):
    parts = []
    for horizon in horizons:
        while len(times := schedule.take(horizon, limit)):
            parts.append(times)
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


@given(PACES, st.integers(1, 2_000), st.lists(st.integers(1, 300), min_size=1, max_size=30), st.integers(1, 500))
def test_a_schedule_hands_out_every_event_once_however_it_is_asked(pace, total, steps, limit):
    end = int(np.sum(steps))
    in_steps = walked(Schedule(pace, total), np.cumsum(steps), limit)
    at_once = walked(Schedule(pace, total), [end], total)
    assert np.array_equal(in_steps, at_once)
    assert len(at_once) == min(total, int(pace.due_by(np.array([end - 1]))[0]))


@given(PACES, st.integers(1, 1_000))
def test_no_event_is_early_or_more_than_a_millisecond_late(pace, total):
    times = walked(Schedule(pace, total), [2_000], total)
    numbers = np.arange(len(times))
    assert (np.diff(times) >= 0).all()
    assert (pace.expected(times / 1000) + 1e-5 >= numbers).all()
    later = times > 0
    assert (pace.expected((times[later] - 1) / 1000) - 1e-5 <= numbers[later]).all()


@given(PACES, st.floats(0, 1_000), st.floats(0, 1_000))
def test_the_expected_number_never_falls(pace, one, other):
    low, high = pace.expected(np.array(sorted([one, other])))
    assert high >= low - 1e-6 * max(1.0, abs(low))


@given(RATES, RATES, st.floats(1, 100))
def test_a_whole_period_holds_the_mean_rate(rate, peak, period):
    sine = Pace("sine", rate=rate, peak=peak, period_s=period)
    ramp = Pace("ramp", rate=rate, peak=peak, period_s=period)
    spike = Pace("spike", rate=rate, peak=peak, period_s=period, spike_s=period / 4)
    at_end = np.array([period])
    assert sine.expected(at_end)[0] == pytest.approx((rate + peak) / 2 * period)
    assert ramp.expected(at_end)[0] == pytest.approx((rate + peak) / 2 * period)
    assert spike.expected(at_end)[0] == pytest.approx((3 * rate + peak) / 4 * period)


def test_at_a_thousand_per_second_each_millisecond_has_its_event():
    times = walked(Schedule(Pace(rate=1000), 5_000), [10_000], 5_000)
    assert np.array_equal(times, np.arange(5_000))


def test_a_duration_holds_exactly_rate_times_duration():
    assert Pace(rate=500).total(3) == 1500
    assert Pace(rate=1000).total(60) == 60_000


@pytest.mark.parametrize(
    "options",
    [
        {"profile": "zigzag"},
        {"rate": -1},
        {"rate": float("nan")},
        {"profile": "ramp", "rate": 1},
        {"profile": "sine", "rate": 1, "peak": 2, "period_s": 0},
        {"profile": "spike", "rate": 1, "peak": 2, "period_s": 5, "spike_s": 6},
    ],
)
def test_an_impossible_pace_is_refused(options):
    with pytest.raises(BadOption):
        Pace(**options)
