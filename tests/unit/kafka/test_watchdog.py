"""Which call outlived its deadline, also after the whole process stood still."""

import pytest
from fakes import ManualClock

from app.kafka.watchdog import SEEN_S, Watchdog


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def watchdog(clock):
    return Watchdog(clock)


def test_a_call_is_overdue_once_it_was_seen_so_for_a_while(clock, watchdog):
    with watchdog.expecting("close", 5.0):
        clock.advance(4.9)
        assert watchdog.overdue() is None
        clock.advance(0.1)
        assert watchdog.overdue() is None, "just seen"
        clock.advance(SEEN_S)
        call = watchdog.overdue()
        assert (call.name, call.since_s) == ("close", 5.0 + SEEN_S)
    assert watchdog.overdue() is None


def test_a_call_that_returns_after_the_process_was_frozen_is_not(clock, watchdog):
    with watchdog.expecting("close", 5.0):
        clock.advance(60)
        assert watchdog.overdue() is None
    with watchdog.expecting("close", 5.0):
        clock.advance(5)
        assert watchdog.overdue() is None, "another call, just seen"
