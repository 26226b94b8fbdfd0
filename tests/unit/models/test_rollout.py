"""Who answers a record: a function of its key and the page alone, and a page that is not right is refused."""

import json
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rollout_pages import NOW, first, of_every_strategy, order

from app.errors import RolloutRefused
from app.models import rollout_changes as changes
from app.models.rollout import ROLLOUT, SLICES
from loadgen.model_store import ModelStore as LoadgenStore

STRATEGIES = ["stable", "blue_green", "canary", "ab", "shadow"]
KEYS = [f"customer-{number}".encode() for number in range(50_000)]
KEY = st.none() | st.binary(max_size=40)
PERCENT = st.integers(1, SLICES).map(lambda slices: slices * 100 / SLICES)


def canary(percent, salt="salt"):
    return changes.start_canary(first(), "2", [(percent, 60)], order(), salt=salt)


def share(page, keys=KEYS, arm=1):
    return float((page.choose(keys) == arm).mean())


def within_99_percent(share, expected, rows):
    return abs(share - expected) <= 2.576 * np.sqrt(expected * (1 - expected) / rows) + 1 / SLICES


@pytest.mark.parametrize("percent", [0.01, 1, 5, 25, 50, 99, 100])
def test_a_canary_answers_its_share_of_the_keys(percent):
    assert within_99_percent(share(canary(percent)), percent / 100, len(KEYS))


@given(PERCENT)
def test_every_share_that_can_be_stated_is_an_exact_number_of_slices(percent):
    assert canary(percent)._bounds().tolist() == [SLICES - round(percent * 100)]


@pytest.mark.parametrize("percent", [0.004, 0.0099, 0.015, 12.345, 99.996, 99.9999, 100.004])
def test_a_share_that_is_no_number_of_slices_is_refused(percent):
    with pytest.raises(RolloutRefused, match=r"steps\.0\.percent"):
        canary(percent)


def test_a_canary_of_everything_leaves_nothing_to_stable_but_what_has_no_key():
    page = canary(100)
    assert set(page.choose(KEYS)) == {1}
    assert list(page.choose([b"a", None, b"", b"b"])) == [1, 0, 1, 1]


@given(st.lists(KEY, max_size=30), st.lists(PERCENT, min_size=2, max_size=5, unique=True))
def test_a_key_that_came_to_a_canary_stays_when_its_share_grows(keys, percents):
    pages = [canary(percent) for percent in sorted(percents)]
    for smaller, larger in pairwise(pages):
        taken = smaller.choose(keys) == 1
        assert (larger.choose(keys)[taken] == 1).all()


@pytest.mark.parametrize("strategy", ["canary", "ab", "shadow"])
@given(keys=st.lists(KEY, max_size=20), data=st.data())
def test_a_choice_depends_on_the_key_and_the_page_alone(strategy, keys, data):
    page = of_every_strategy()[strategy]
    choose = page.shadowed if strategy == "shadow" else page.choose
    chosen = dict(zip(keys, choose(keys), strict=True))
    again = ROLLOUT.validate_json(page.model_dump_json())  # as another worker, or the same one later, reads it
    choose_again = again.shadowed if strategy == "shadow" else again.choose
    others = data.draw(st.permutations(keys))
    assert dict(zip(others, choose_again(others), strict=True)) == chosen


def test_the_choice_is_the_same_for_ever():
    """What is written here was chosen when the function was; a change would move every customer to another arm."""
    page = canary(50, salt="a salt")
    assert list(page.choose([b"customer-1", b"customer-2", b"customer-3", b"\x00", b"", None])) == CHOSEN


CHOSEN = [1, 1, 0, 1, 0, 0]


def test_experiments_with_other_salts_choose_independently():
    one, other = canary(50, "one").choose(KEYS), canary(50, "other").choose(KEYS)
    assert within_99_percent(float((one & other).mean()), 0.25, len(KEYS))


def test_arms_share_by_weight_and_what_has_no_key_is_stables():
    page = changes.start_ab(first(), [("a", "1", 1), ("b", "2", 2), ("c", "3", 5)], order())
    for index, weight in enumerate([1, 2, 5], start=1):
        assert within_99_percent(share(page, arm=index), weight / 8, len(KEYS))
    assert share(page, arm=0) == 0
    assert list(page.choose([None])) == [0]
    assert [arm.name for arm in page.arms] == ["stable", "a", "b", "c"]


def test_a_shadow_sees_its_share_and_answers_nothing():
    page = changes.start_shadow(first(), "2", order(), percent=10)
    assert page.choose(KEYS) is None
    assert page.versions == ("1",)
    assert within_99_percent(float(page.shadowed(KEYS).mean()), 0.1, len(KEYS))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_arms_and_versions_begin_with_stable(strategy):
    page = of_every_strategy()[strategy]
    assert page.arms[0].name == "stable"
    assert page.arms[0].version == page.versions[0] == page.stable
    assert {arm.version for arm in page.arms} <= set(page.versions)


def test_both_colours_are_loaded_and_one_answers():
    page = of_every_strategy()["blue_green"]
    assert page.versions == ("2", "3")
    assert page.choose(KEYS[:10]) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_page_reads_as_it_was_written(strategy):
    page = of_every_strategy()[strategy]
    assert ROLLOUT.validate_json(page.model_dump_json()) == page


@pytest.mark.parametrize(
    ("strategy", "change"),
    [
        ("stable", {"strategy": "guess"}),
        ("stable", {"strategy": None}),
        ("stable", {"stable": "0"}),
        ("stable", {"stable": 2}),
        ("stable", {"format": 2}),
        ("stable", {"revision": 0}),
        ("stable", {"history": []}),
        ("stable", {"model": "../etc"}),
        ("stable", {"candidate": "3"}),
        ("stable", {"surprise": 1}),
        ("blue_green", {"standby": "2"}),
        ("canary", {"candidate": "2"}),
        ("canary", {"step": 3}),
        ("canary", {"step": -1}),
        ("canary", {"steps": []}),
        ("canary", {"steps": [{"percent": 5, "hold_s": 0}] * 2, "step": 0}),
        ("canary", {"steps": [{"percent": "NaN", "hold_s": 0}]}),
        ("canary", {"since": "2026-01-01T00:00:00"}),  # of which time zone?
        ("canary", {"salt": ""}),
        ("canary", {"salt": "x" * 65}),
        ("ab", {"variants": [{"name": "a", "version": "1", "weight": 1}]}),
        ("ab", {"variants": [{"name": "a", "version": "1", "weight": 1e99}] * 2}),
        ("shadow", {"candidate": "2"}),
        ("shadow", {"budget_s": 0}),
        ("shadow", {"percent": 100.1}),
    ],
    ids=str,
)
def test_a_page_that_is_not_as_it_should_be_is_refused(strategy, change):
    page = json.loads(of_every_strategy()[strategy].model_dump_json())
    with pytest.raises(ValidationError):
        ROLLOUT.validate_json(json.dumps(page | change))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_judge_who_knows_only_files_reads_versions_whatever_the_rollout(store, make_card, make_graph, strategy):
    for _ in range(3):
        manifest = store.publish("hand", make_card(), {"model.onnx": make_graph()}, at=NOW, who="a test")
    page = of_every_strategy()[strategy]
    store.change_rollout("hand", lambda now: page.model_copy(update={"revision": now.revision + 1}), order())
    read = LoadgenStore.at(store.url).load("hand", manifest.version)
    assert read is not None
    assert (read.digest, read.manifest["version"]) == (manifest.model_digest, "3")


def test_a_page_of_before_these_fields_were_thought_of_still_reads():
    line = {"revision": 1, "at": NOW.isoformat(), "who": "me", "why": "first", "strategy": "stable", "stable": "1"}
    page = {"model": "hand", "revision": 1, "strategy": "stable", "stable": "1", "history": [line]}
    assert ROLLOUT.validate_json(json.dumps(page)).named == {"1"}
    assert changes.promote(ROLLOUT.validate_python(page), "2", order()).history[0].at - NOW == timedelta(0)
