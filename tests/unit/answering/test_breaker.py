"""A version that failed is left alone for a while, then asked once."""

from itertools import pairwise

import pytest
from fakes import ManualClock
from hypothesis import given
from hypothesis import strategies as st

from app.answering.breaker import Breaker

RETRY_S = 10.0


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def breaker(clock):
    return Breaker(RETRY_S, clock)


def test_who_never_failed_is_always_asked(breaker, clock):
    for _ in range(3):
        assert breaker.allows()
        assert not breaker.answered()
        clock.advance(RETRY_S)


def test_who_failed_is_not_asked_until_the_time_is_over(breaker, clock):
    assert breaker.failed("because")
    clock.advance(RETRY_S - 0.01)
    assert not breaker.allows()
    assert breaker.why == "because"


def test_one_probe_goes_through_and_nobody_else_while_it_is_under_way(breaker, clock):
    breaker.failed("first")
    clock.advance(RETRY_S)
    assert breaker.allows()
    assert not breaker.allows()
    assert not breaker.failed("again"), "a second failure is no news"
    clock.advance(RETRY_S / 2)
    assert not breaker.allows()


def test_a_probe_that_is_answered_closes_it(breaker, clock):
    breaker.failed("first")
    clock.advance(RETRY_S)
    assert breaker.allows()
    assert breaker.answered(), "that is news"
    assert breaker.allows()
    assert breaker.allows()


def test_a_probe_that_never_comes_back_does_not_shut_it_for_ever(breaker, clock):
    breaker.failed("first")
    clock.advance(RETRY_S)
    assert breaker.allows()
    clock.advance(RETRY_S)
    assert breaker.allows()


@given(st.lists(st.floats(0.001, 2 * RETRY_S), max_size=60))
def test_a_version_that_always_fails_is_asked_at_most_once_in_that_time(waits):
    clock = ManualClock()
    breaker = Breaker(RETRY_S, clock)
    asked = []
    for wait_s in waits:
        clock.advance(wait_s)
        if breaker.allows():
            asked.append(clock.monotonic())
            breaker.failed("as ever")
    assert all(later - earlier >= RETRY_S - 1e-9 for earlier, later in pairwise(asked))
