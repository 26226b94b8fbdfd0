"""Load runs in virtual time: what is asked when, and what counts as latency."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_world import ServerOfTimes, VirtualClock

from loadgen.errors import BadOption, ServerFailed
from loadgen.online.load_plan import LoadPlan
from loadgen.online.load_report import Allowed, judge, load_line, load_page, load_sections
from loadgen.online.load_run import run_load
from loadgen.online.target import ANSWERED, NOT_SENT, TIMEOUT
from loadgen.pacing import Pace, Schedule
from loadgen.producing import Extent


def ran(plan, takes_ms=lambda number: 1.0, **server):
    async def run():
        clock = VirtualClock()
        target = ServerOfTimes(clock, takes_ms, **server)
        outcomes = await run_load(plan, target, clock, lambda ended: None)
        return target, outcomes

    return asyncio.run(run())


def plan_of(rate, requests=None, duration=None, **options):
    return LoadPlan(Pace(rate=rate), Extent(requests, duration), **options)


@given(
    st.floats(5, 3_000),
    st.integers(1, 120),
    st.lists(st.floats(0, 400), min_size=1, max_size=10),
)
def test_an_open_loop_asks_everything_once_at_its_time_however_slow_the_answers(rate, requests, takes):
    plan = plan_of(rate, requests)
    target, outcomes = ran(plan, lambda number: takes[number % len(takes)])

    due = Schedule(plan.pace, requests).take(int(requests / rate * 1000) + 2, requests)
    assert [number for number, _ in target.asked] == list(range(requests))
    assert np.allclose([at for _, at in target.asked], due)
    assert np.allclose(np.sort(outcomes.intended_ms), due)
    assert not target.is_open


def test_a_stall_counts_against_every_request_that_was_due_during_it():
    def stalled(number):  # the server answers nothing between 100 and 300 ms
        return max(300.0 - number, 1.0) if 100 <= number < 300 else 1.0

    plan = plan_of(1_000, 1_000)
    target, outcomes = ran(plan, stalled)
    result = judge(plan, target, outcomes, Allowed())

    assert result.latency.max == pytest.approx(200.0, rel=0.01)
    assert result.latency.p90 == pytest.approx(100.0, rel=0.03)  # 200 of 1,000 waited, 1 to 200 ms
    assert result.behind_max_ms == 0.0


def test_what_is_due_while_too_many_are_in_flight_fails_and_later_ones_are_asked():
    plan = plan_of(100, 100, max_in_flight=10)
    target, outcomes = ran(plan, lambda number: 500.0)

    assert target.at_once == 10
    assert outcomes.is_word(NOT_SENT).sum() == 80
    assert sorted(number for number, _ in target.asked) == [*range(10), *range(50, 60)]


@given(st.integers(1, 8), st.integers(1, 100), st.lists(st.floats(0.5, 50), min_size=1, max_size=5))
def test_a_closed_loop_keeps_each_caller_busy_and_asks_each_request_once(callers, requests, takes):
    plan = plan_of(0, requests, callers=callers)
    target, outcomes = ran(plan, lambda number: takes[number % len(takes)])

    assert sorted(number for number, _ in target.asked) == list(range(requests))
    assert target.at_once == min(callers, requests)
    assert np.allclose(outcomes.intended_ms, outcomes.sent_ms)


def test_a_closed_loop_without_a_count_ends_with_its_time():
    plan = plan_of(0, duration=1.0, callers=2)
    target, _ = ran(plan, lambda number: 10.0)
    assert len(target.asked) == 200


def test_what_was_due_in_the_warm_up_is_asked_and_left_out():
    plan = plan_of(100, duration=2.0, warmup_s=0.5)
    target, outcomes = ran(plan)
    assert len(target.asked) == 200
    assert len(outcomes.ended_ms) == 150
    assert outcomes.intended_ms.min() == 500


def test_failed_requests_are_counted_by_what_became_of_them_and_have_no_latency():
    words = {1: TIMEOUT, 2: "503"}
    plan = plan_of(100, 100)
    target, outcomes = ran(plan, outcome=lambda number: words.get(number % 10, ANSWERED))
    result = judge(plan, target, outcomes, Allowed())

    assert result.failed == {"503": 10, TIMEOUT: 10}
    assert result.answered == result.latency.count == 80
    assert result.complaints == ("20 of 100 requests failed, allowed is a share of 0",)
    assert judge(plan, target, outcomes, Allowed(failed=0.2)).passed


def test_a_percentile_above_the_allowed_one_fails_the_run():
    plan = plan_of(100, 100)
    target, outcomes = ran(plan, lambda number: 30.0)
    assert judge(plan, target, outcomes, Allowed(p99_ms=31)).passed
    assert judge(plan, target, outcomes, Allowed(p99_ms=29)).complaints == ("p99 is 30 ms, allowed are 29 ms",)


def test_a_run_that_measured_nothing_does_not_pass():
    plan = plan_of(100, 10, warmup_s=5)
    target, outcomes = ran(plan)
    result = judge(plan, target, outcomes, Allowed())
    assert result.complaints == ("nothing was measured: the run ended before the warm-up did",)
    assert load_sections(load_page("rest", "now", result)["load"])


def test_the_table_has_what_the_page_has():
    plan = plan_of(1_000, 1_000)
    target, outcomes = ran(plan)
    page = load_page("rest", "2026-01-01", judge(plan, target, outcomes, Allowed()))
    rows = dict(row for _, rows in load_sections(page["load"]) for row in rows)

    assert rows["answered"] == "1,000"
    assert rows["by version 1"] == "1,000"
    assert rows["p99"] == "1.00 ms"
    assert load_line(page["load"]) == "passed: 1,000 of 1,000 requests answered"


def test_a_server_that_does_not_answer_at_first_is_not_measured():
    class Absent(ServerOfTimes):
        async def open(self):
            raise ServerFailed("connection refused")

    async def run():
        clock = VirtualClock()
        await run_load(plan_of(1, 1), Absent(clock, lambda number: 0.0), clock, lambda ended: None)

    with pytest.raises(ServerFailed):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"callers": 0}, "--callers"),
        ({"max_in_flight": 0}, "--max-in-flight"),
        ({"warmup_s": -1}, "--warmup"),
        ({"warmup_s": float("nan")}, "--warmup"),
        ({"duration": 5.0, "warmup_s": 5.0}, "--warmup"),
    ],
)
def test_an_impossible_plan_is_refused_by_the_name_of_its_option(options, named):
    with pytest.raises(BadOption, match=named):
        plan_of(10, **options) if "duration" in options else plan_of(10, 10, **options)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"failed": -0.1}, "--allow-failed"), ({"failed": 2.0}, "--allow-failed"), ({"p99_ms": 0.0}, "--max-p99")],
)
def test_what_cannot_be_allowed_is_refused(options, named):
    with pytest.raises(BadOption, match=named):
        Allowed(**options)
