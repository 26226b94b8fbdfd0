"""Time that something beside the work may take accrues, is spent, and is never hoarded."""

import pytest
from fakes import ManualClock
from hypothesis import given
from hypothesis import strategies as st

from app.worker.allowance import Allowance

MOMENTS = st.floats(0, 1000)


def granted(a_second_s):
    """(clock, allowance)"""
    clock = ManualClock()
    allowance = Allowance(clock)
    allowance.grant(a_second_s)
    return clock, allowance


def test_the_first_second_has_it_at_once():
    _, allowance = granted(0.1)
    assert (allowance.accrue(), allowance.due_in()) == (True, 0.0)


def test_nothing_is_there_before_anything_is_granted():
    clock, allowance = granted(0.0)
    clock.advance(100)
    assert (allowance.accrue(), allowance.due_in()) == (False, float("inf"))


def test_what_was_overdrawn_has_to_come_back_first():
    clock, allowance = granted(0.1)
    allowance.spend(0.3)
    assert not allowance.accrue()
    assert allowance.due_in() == pytest.approx(2.0, abs=0.01)
    clock.advance(allowance.due_in())
    assert allowance.accrue()


def test_a_new_grant_forgets_what_was_overdrawn():
    _, allowance = granted(0.1)
    allowance.spend(5.0)
    allowance.grant(0.1)
    assert allowance.accrue()


@given(share=st.floats(0.001, 1.0), idle_s=MOMENTS)
def test_no_more_than_a_second_s_is_ever_saved(share, idle_s):
    clock, allowance = granted(share)
    clock.advance(idle_s)
    allowance.accrue()
    allowance.spend(share)
    assert not allowance.accrue()


@given(share=st.floats(0.001, 1.0), turns=st.lists(st.tuples(MOMENTS, st.floats(0.0, 0.5)), max_size=30))
def test_in_the_long_run_no_more_is_spent_than_was_granted(share, turns):
    clock, allowance = granted(share)
    elapsed_s, spent_s, largest_s = 0.0, 0.0, 0.0
    for pause_s, cost_s in turns:
        clock.advance(pause_s)
        elapsed_s += pause_s
        if allowance.accrue():
            allowance.spend(cost_s)
            spent_s, largest_s = spent_s + cost_s, max(largest_s, cost_s)
    assert spent_s <= share * (elapsed_s + 1) + largest_s + 1e-6
