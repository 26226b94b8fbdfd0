"""Changes of a rollout: one revision and one line each, and always a way back."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_pages import NOW, first, of_every_strategy, order

from app.errors import RolloutRefused
from app.models import rollout_changes as changes
from app.models.rollout import ROLLOUT

STRATEGIES = ["stable", "blue_green", "canary", "ab", "shadow"]
BESIDE = STRATEGIES[1:]


def test_a_line_of_history_says_who_when_why_and_from_what():
    page = changes.promote(first(), "2", order("  two\nweeks as a canary ", who="ann@laptop"))
    line = page.history[-1]
    assert (line.revision, line.who, line.why, line.before) == (2, "ann@laptop", "two weeks as a canary", "stable 1")
    assert line.at == NOW + timedelta(minutes=1)
    assert (line.strategy, line.stable, line.previous, line.versions) == ("stable", "2", "1", ("1", "2"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_version_can_be_promoted_from_any_strategy(strategy):
    page = of_every_strategy()[strategy]
    after = changes.promote(page, "7", order())
    assert (after.strategy, after.stable, after.previous) == ("stable", "7", page.stable)


@pytest.mark.parametrize("strategy", ["blue_green", "canary", "shadow"])
def test_without_a_version_what_was_tried_is_promoted(strategy):
    after = changes.promote(of_every_strategy()[strategy], None, order())
    assert (after.strategy, after.stable, after.previous) == ("stable", "3", "2")


@pytest.mark.parametrize("strategy", ["stable", "ab"])
def test_where_nothing_single_was_tried_a_version_has_to_be_named(strategy):
    with pytest.raises(RolloutRefused, match="say which version; in force is"):
        changes.promote(of_every_strategy()[strategy], None, order())


@pytest.mark.parametrize("strategy", ["canary", "ab", "shadow"])
def test_a_rollback_of_something_tried_lets_stable_answer_everything(strategy):
    after = changes.roll_back(of_every_strategy()[strategy], order())
    assert (after.strategy, after.stable, after.previous) == ("stable", "2", "1")


def test_a_rollback_of_a_promotion_goes_back_step_by_step():
    page = first()
    for version in ("2", "3"):
        page = changes.promote(page, version, order())
    back = changes.roll_back(page, order())
    assert (back.stable, back.previous) == ("2", "1")
    back = changes.roll_back(back, order())
    assert (back.stable, back.previous) == ("1", None)
    with pytest.raises(RolloutRefused, match="nothing came before version 1"):
        changes.roll_back(back, order())


def test_switches_and_rollbacks_keep_both_versions_loaded():
    page = of_every_strategy()["blue_green"]
    for _ in range(5):
        switched = changes.switch(page, order())
        assert (switched.strategy, switched.stable, switched.standby, switched.previous) == (
            "blue_green",
            "3",
            "2",
            "2",
        )
        page = changes.roll_back(switched, order())
        assert (page.strategy, page.stable, page.standby, page.previous) == ("blue_green", "2", "3", "1")


def test_a_rollback_before_the_switch_goes_to_the_previous_version():
    after = changes.roll_back(of_every_strategy()["blue_green"], order())
    assert (after.strategy, after.stable, after.previous) == ("stable", "1", None)


def test_a_canary_walks_through_its_steps_and_becomes_stable():
    page = of_every_strategy()["canary"]
    percents = [page.percent]
    while page.strategy == "canary":
        later = order(minutes=10 * page.revision, automatic=True)
        page = changes.advance(page, later)
        if page.strategy == "canary":
            assert page.since == later.at
            percents.append(page.percent)
    assert percents == [5, 50, 100]
    assert (page.stable, page.previous) == ("3", "2")


def test_a_canary_keeps_its_salt_and_so_its_keys():
    page = of_every_strategy()["canary"]
    assert changes.advance(page, order()).salt == page.salt


def test_two_experiments_choose_different_keys():
    page = of_every_strategy()["canary"]
    again = changes.start_canary(changes.stop(page, order()), "3", [(5, 60)], order())
    assert again.salt != page.salt


@pytest.mark.parametrize("strategy", BESIDE)
def test_nothing_is_started_beside_something_that_runs(strategy):
    page = of_every_strategy()[strategy]
    for start in (
        lambda: changes.start_canary(page, "4", [(5, 60)], order()),
        lambda: changes.start_ab(page, [("a", "2", 1), ("b", "4", 1)], order()),
        lambda: changes.start_blue_green(page, "4", order()),
        lambda: changes.start_shadow(page, "4", order()),
    ):
        with pytest.raises(RolloutRefused, match=r"in force is .*; stop it or promote a version first"):
            start()


@pytest.mark.parametrize("strategy", BESIDE)
def test_stop_ends_what_runs(strategy):
    page = of_every_strategy()[strategy]
    after = changes.stop(page, order())
    assert (after.strategy, after.stable, after.previous) == ("stable", page.stable, page.previous)
    with pytest.raises(RolloutRefused, match="nothing runs beside version 2"):
        changes.stop(after, order())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda page: changes.promote(page, "2", order()), "version 2 is stable already"),
        (lambda page: changes.advance(page, order()), "there is no canary; in force is stable 2"),
        (lambda page: changes.switch(page, order()), "there is no standby"),
        (lambda page: changes.resume(page, order()), "it is not held"),
        (lambda page: changes.start_canary(page, "2", [(5, 60)], order()), "version 2 is the stable one"),
        (lambda page: changes.start_canary(page, "3", [], order()), "steps"),
        (
            lambda page: changes.start_canary(page, "3", [(50, 1), (5, 1)], order()),
            "larger percent than the one before",
        ),
        (lambda page: changes.start_canary(page, "3", [(0, 1)], order()), r"steps\.0\.percent"),
        (lambda page: changes.start_canary(page, "3", [(101, 1)], order()), r"steps\.0\.percent"),
        (lambda page: changes.start_canary(page, "3", [(float("nan"), 1)], order()), r"steps\.0\.percent"),
        (lambda page: changes.start_canary(page, "3", [(5, -1)], order()), r"steps\.0\.hold_s"),
        (lambda page: changes.start_canary(page, "../3", [(5, 1)], order()), "candidate"),
        (lambda page: changes.start_canary(page, "3", [(5, 1)], order(), salt="é"), "salt"),
        (lambda page: changes.start_ab(page, [("a", "2", 1)], order()), "variants"),
        (lambda page: changes.start_ab(page, [("a", "2", 1), ("a", "3", 1)], order()), "a name occurs twice"),
        (lambda page: changes.start_ab(page, [("stable", "2", 1), ("a", "3", 1)], order()), "cannot be the name"),
        (lambda page: changes.start_ab(page, [("a", "2", 0), ("b", "3", 1)], order()), r"variants\.0\.weight"),
        (lambda page: changes.start_ab(page, [("A b", "2", 1), ("b", "3", 1)], order()), r"variants\.0\.name"),
        (lambda page: changes.start_blue_green(page, "2", order()), "version 2 is the stable one"),
        (lambda page: changes.start_shadow(page, "2", order()), "version 2 is the stable one"),
        (lambda page: changes.start_shadow(page, "3", order(), budget_s=2), "budget_s"),
        (lambda page: changes.start_shadow(page, "3", order(), percent=0), "percent"),
        (lambda page: changes.promote(page, "latest", order()), "stable"),
        (lambda page: changes.promote(page, "3", order("")), "why: a few words are needed"),
        (lambda page: changes.promote(page, "3", order("\n\x1b")), "why: a few words are needed"),
        (lambda page: changes.promote(page, "3", order("x" * 501)), "why: 501 characters, allowed 500"),
        (lambda page: changes.promote(page, "3", order(who="")), "who: a few words are needed"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change, message):
    with pytest.raises(RolloutRefused, match=message):
        change(of_every_strategy()["stable"])


def test_escape_codes_do_not_reach_the_history():
    page = changes.promote(first(), "2", order("red \x1b[31m alert\u2028now"))
    assert page.history[-1].why == "red [31m alert now"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_a_person_holds_no_program_changes(strategy):
    held = changes.hold(of_every_strategy()[strategy], order(who="ann@laptop"))
    assert held.strategy == strategy
    watcher = order(who="watch", automatic=True)
    for change in (changes.advance, changes.stop, changes.roll_back, changes.resume):
        with pytest.raises(RolloutRefused, match=r"ann@laptop has taken over|there is no canary|nothing runs"):
            change(held, watcher)
    assert not changes.resume(held, order()).held


def test_a_person_who_advances_a_canary_takes_over_and_a_program_does_not():
    canary = of_every_strategy()["canary"]
    assert changes.advance(canary, order()).held
    assert not changes.advance(canary, order(automatic=True)).held


def test_holding_twice_is_refused():
    held = changes.hold(of_every_strategy()["canary"], order())
    with pytest.raises(RolloutRefused, match="held already"):
        changes.hold(held, order())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_change_that_is_withdrawn_leaves_what_was_and_two_lines(strategy):
    before = of_every_strategy()[strategy]
    after = changes.promote(before, "9", order())
    undone = changes.withdraw(after, before, order())
    left_out = {"revision", "history"}
    assert undone.model_dump(exclude=left_out) == before.model_dump(exclude=left_out)
    assert (undone.revision, len(undone.history)) == (before.revision + 2, len(before.history) + 2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_version_of_a_page_is_named(strategy):
    page = of_every_strategy()[strategy]
    expected = {"1", "2"} | ({"3"} if strategy != "stable" else set())
    assert page.named == expected
    assert set(page.history[-1].versions) == expected


def test_a_long_history_is_cut_to_its_newest_lines():
    page = first()
    for number in range(2, 2 * changes.MAX_LINES):
        page = changes.promote(page, str(number), order())
        revisions = [line.revision for line in page.history]
        assert revisions == list(range(revisions[0], page.revision + 1))
        assert len(revisions) <= changes.MAX_LINES
    assert page.revision == 2 * changes.MAX_LINES - 1


VERSIONS = st.sampled_from(["1", "2", "3", "4"])
MOVES = st.one_of(
    st.builds(lambda version: lambda page, by: changes.promote(page, version, by), VERSIONS | st.none()),
    st.builds(lambda version: lambda page, by: changes.start_canary(page, version, [(5, 1), (50, 1)], by), VERSIONS),
    st.builds(lambda version: lambda page, by: changes.start_blue_green(page, version, by), VERSIONS),
    st.builds(lambda version: lambda page, by: changes.start_shadow(page, version, by), VERSIONS),
    st.builds(lambda a, b: lambda page, by: changes.start_ab(page, [("a", a, 1), ("b", b, 2)], by), VERSIONS, VERSIONS),
    st.sampled_from([changes.roll_back, changes.advance, changes.switch, changes.stop, changes.hold, changes.resume]),
)


@given(st.lists(st.tuples(MOVES, st.booleans()), max_size=30))
def test_whatever_is_ordered_each_change_is_one_revision_and_one_line(moves):
    page = first()
    for move, automatic in moves:
        before = page.model_dump_json()
        try:
            after = move(page, order(automatic=automatic))
        except RolloutRefused:
            after = page
        else:
            assert after.revision == page.revision + 1
            assert after.history[:-1] == page.history
            assert after.history[-1].before == page.words
            assert after.history[-1].automatic == automatic
            assert not (automatic and page.held)
            if after.stable != page.stable and move is not changes.roll_back:
                assert after.previous == page.stable
        assert page.model_dump_json() == before  # the page given is never touched
        assert after.previous != after.stable
        assert ROLLOUT.validate_json(after.model_dump_json()) == after
        page = after
