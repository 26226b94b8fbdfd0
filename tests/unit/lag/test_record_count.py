"""Counting equals looking at every offset, however it was cut into looks; what was not looked at is bounded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lag import record_count
from app.lag.record_count import RecordCount, shares

PLACES = st.sets(st.integers(0, 60))


def read(count, places, to):
    """As a reader would from where the count is, up to this offset."""
    found = [place for place in sorted(places) if count.next_offset <= place < to]
    count.seen(np.array(found, np.int64), to)


@given(places=PLACES, begin=st.integers(0, 60), cuts=st.lists(st.integers(1, 20), max_size=8), end=st.integers(0, 80))
def test_the_count_is_exact_where_it_was_looked_and_never_too_small_beyond(places, begin, cuts, end):
    count = RecordCount()
    count.begin_at(begin)
    for cut in cuts:
        read(count, places, count.next_offset + cut)
    really = sum(begin <= place < end for place in places)
    records, uncounted = count.up_to(end)
    assert really <= records <= really + uncounted
    assert uncounted == max(0, end - max(begin, count.next_offset))


@given(places=PLACES, steps=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 15)), max_size=10))
def test_a_group_may_go_anywhere_between_looks(places, steps):
    count = RecordCount()
    for begin, ahead in steps:
        count.begin_at(begin)
        end = begin + ahead
        if count.next_offset < end:
            read(count, places, end)
        assert count.up_to(end) == (sum(begin <= place < end for place in places), 0)


def test_what_was_counted_is_kept_while_the_group_moves_within_it():
    count = RecordCount()
    read(count, {0, 1, 5, 6, 7}, 10)
    count.begin_at(6)
    assert (count.next_offset, count.counted, count.up_to(10)) == (10, 4, (2, 0))


def test_a_gap_of_a_billion_offsets_takes_no_room():
    count = RecordCount()
    count.seen(np.array([0, 10**9], np.int64), 10**9 + 5)
    assert count.up_to(10**9 + 5) == (2, 0)
    count.begin_at(17)
    assert count.up_to(10**9 + 5) == (1, 0)


def test_a_backlog_of_too_many_gaps_is_counted_no_further(monkeypatch):
    monkeypatch.setattr(record_count, "MOST_GAPS", 3)
    count = RecordCount()
    read(count, {0, 2}, 3)
    assert count.has_room
    read(count, {4, 6}, 8)
    assert not count.has_room
    count.begin_at(7)
    assert count.has_room


@given(wanted=st.dictionaries(st.integers(), st.integers(1, 1000), max_size=20), budget=st.integers(0, 5000))
def test_a_budget_is_shared_so_that_small_wishes_are_granted_whole(wanted, budget):
    given_out = shares(wanted, budget)
    assert given_out.keys() == wanted.keys()
    assert all(1 <= given_out[key] <= wanted[key] for key in wanted)
    assert sum(given_out.values()) <= max(budget, len(wanted))
    if sum(wanted.values()) <= budget:
        assert given_out == wanted
    short = [key for key in wanted if given_out[key] < wanted[key]]
    assert all(wanted[other] <= given_out[key] + 1 for key in short for other in wanted if other not in short)


@pytest.mark.parametrize(("budget", "expected"), [(0, [1, 1, 1]), (30, [2, 14, 14]), (10_000, [2, 500, 900])])
def test_what_is_left_by_the_small_goes_to_the_large_alike(budget, expected):
    assert list(shares({"a": 2, "b": 500, "c": 900}, budget).values()) == expected
