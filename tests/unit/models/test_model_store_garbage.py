"""Removing old versions: what anybody may still want stays."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_pages import first, of_every_strategy, order

from app.models import rollout_changes as changes
from app.models.garbage import GarbagePolicy, garbage, kept
from app.models.model_store import StoredVersion

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OLD = NOW - timedelta(days=30)


def stored(*versions, complete=True, at=OLD):
    return [StoredVersion(version, complete, at) for version in versions]


@pytest.mark.parametrize("strategy", ["stable", "blue_green", "canary", "ab", "shadow"])
def test_what_a_rollout_refers_to_stays(strategy):
    page = of_every_strategy()[strategy]
    policy = GarbagePolicy(keep_newest=1, keep_lines=0)
    removed = garbage(stored(*"123456789"), page, policy, NOW)
    assert set(removed) == set("12345678") - page.named


def test_what_the_last_lines_of_history_speak_of_stays_candidates_too():
    page = changes.stop(changes.start_canary(first(), "2", [(5, 1)], order()), order())
    page = changes.promote(page, "3", order())
    policy = GarbagePolicy(keep_newest=1, keep_lines=3)
    assert garbage(stored(*"123456"), page, policy, NOW) == ["4", "5"]
    assert garbage(stored(*"123456"), page, GarbagePolicy(keep_newest=1, keep_lines=1), NOW) == ["2", "4", "5"]


def test_the_newest_stay_and_ten_is_newer_than_nine():
    versions = [str(number) for number in range(1, 13)]
    removed = garbage(stored(*versions), first(), GarbagePolicy(keep_newest=3), NOW)
    assert removed == [str(number) for number in range(2, 10)]


def test_a_half_written_version_goes_only_when_it_is_old():
    young = stored("3", complete=False, at=NOW - timedelta(hours=1))
    old = stored("2", complete=False)
    assert garbage([*stored("1"), *old, *young], first(), GarbagePolicy(), NOW) == ["2"]


def test_without_a_rollout_only_half_written_versions_go():
    everything = [*stored(*"1234567"), *stored("8", complete=False)]
    assert garbage(everything, None, GarbagePolicy(keep_newest=1), NOW) == ["8"]


@given(
    complete=st.lists(st.booleans(), max_size=12),
    keep=st.integers(-2, 15),
    lines=st.integers(0, 10),
    strategy=st.sampled_from(["stable", "blue_green", "canary", "ab", "shadow"]),
)
def test_the_newest_and_what_is_referred_to_never_go(complete, keep, lines, strategy):
    page = of_every_strategy()[strategy]
    versions = [StoredVersion(str(number), whole, OLD) for number, whole in enumerate(complete, start=1)]
    policy = GarbagePolicy(keep_newest=keep, keep_lines=lines)
    removed = set(garbage(versions, page, policy, NOW))
    whole = [one.version for one in versions if one.complete]
    assert not removed & kept(page, policy) & set(whole)
    assert not removed & set(whole[-max(1, keep) :])
