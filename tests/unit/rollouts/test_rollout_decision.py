"""One decision of a page and counts: worse is shown or not, and the reason has the figures."""

from datetime import UTC, datetime, timedelta
from math import inf

import numpy as np
import pytest

from app.models.guards import Guards
from app.models.rollout import first_rollout
from app.models.rollout_changes import (
    Order,
    advance,
    guard,
    hold,
    start_ab,
    start_blue_green,
    start_canary,
    start_shadow,
)
from app.rollouts.decision import NOTHING, Evidence, decide
from app.rollouts.measurements import Counts

SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ORDER = Order(SINCE, "test", "because")
BOUNDS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, inf)
GUARDS = 4


def first(**guards):
    page = first_rollout("churn", "1", at=SINCE, who="test")
    return guard(page, guards, ORDER) if guards else page


def canary(steps=((50, 0), (100, 0)), **guards):
    return start_canary(first(**guards), "2", steps, ORDER)


def did(rows=100_000, errors=0, batch_s=0.001, batches=None, **rest):
    """A version's counts; each of its batches took `batch_s`."""
    batches = rows // 100 if batches is None else batches
    within = {bound: batches if batch_s <= bound else 0 for bound in BOUNDS}
    return Counts(answered=rows - errors, failed=errors, seconds=batches * batch_s, within=within, **rest)


def decided(page, *, stable=None, candidate=None, before=NOTHING, measured_s=1e6, missing=(), after_s=100.0):
    evidence = Evidence({"1": stable or did(), "2": candidate or did()}, before, measured_s, missing)
    return decide(page, evidence, SINCE + timedelta(seconds=after_s))


def test_what_is_shown_to_be_within_the_guards_is_promoted_with_all_figures_in_the_reason():
    decision = decided(canary(), candidate=did(rows=5000, errors=5), stable=did(errors=100))
    assert decision.verdict == "promote"
    assert decision.reason == (
        "errors: 5/5,000 (0.1 %) of canary 2, 100/100,000 (0.1 %) of stable 1; at most 0.44 points more, "
        "allowed 1 points; latency: 1 ms a batch of canary 2, 1 ms of stable 1; allowed 2 times"
    )


def test_errors_shown_to_be_above_the_allowance_roll_back():
    decision = decided(canary(), candidate=did(rows=2000, errors=100), stable=did(errors=100))
    assert decision.verdict == "roll_back"
    assert decision.reason.startswith(
        "errors: 100/2,000 (5 %) of canary 2, 100/100,000 (0.1 %) of stable 1; at least 2."
    )


def test_rolling_back_needs_no_least_number_of_rows_if_it_is_plain():
    assert decided(canary(), candidate=did(rows=20, errors=15, batches=1)).verdict == "roll_back"


def test_bad_outputs_are_errors():
    assert decided(canary(), candidate=Counts(answered=1900, bad_output=100)).verdict == "roll_back"


def test_more_errors_of_stable_are_no_fault_of_the_canary():
    assert decided(canary(), stable=did(errors=4000), candidate=did(errors=4000)).verdict == "promote"


def test_what_is_not_shown_either_way_is_held():
    decision = decided(canary(), candidate=did(rows=1500, errors=20, batches=100))
    assert decision.verdict == "hold"
    assert decision.reason.startswith("errors: 20/1,500 (1.33 %) of canary 2, 0/100,000 (0 %) of stable 1; perhaps ")


def test_a_slow_model_rolls_back_and_a_bound_of_the_histogram_decides():
    assert decided(canary(), candidate=did(batch_s=0.0022)).verdict == "hold"  # no bound lies between
    decision = decided(canary(), candidate=did(batch_s=0.01))
    assert decision.verdict == "roll_back"
    assert decision.reason == (
        "latency: 10 ms a batch of canary 2, 1 ms of stable 1; median above 5 ms, stable's below 1 ms, allowed 2 times"
    )


def test_a_slow_tail_rolls_back_as_well_and_a_noisy_one_of_both_does_not():
    tail = (
        dict.fromkeys(BOUNDS, 1000) | {bound: 900 for bound in BOUNDS if 0.001 <= bound < 0.05} | {0.0001: 0, 0.0005: 0}
    )
    noisy = Counts(answered=100_000, seconds=6.0, within=tail)
    decision = decided(canary(), candidate=noisy)
    assert (decision.verdict, "95th percentile above 25 ms, stable's below 1 ms" in decision.reason) == (
        "roll_back",
        True,
    )
    assert decided(canary(), stable=noisy, candidate=noisy).verdict == "promote"
    slow = did(batch_s=0.03, batches=1000)
    assert "median above 25 ms, stable's below 1 ms" in decided(canary(), stable=noisy, candidate=slow).reason


def test_below_a_millisecond_all_models_are_alike():
    stable, candidate = did(batch_s=0.0001), did(batch_s=0.0008)
    assert decided(canary(), stable=stable, candidate=candidate).verdict == "promote"


def test_a_few_slow_batches_after_loading_decide_nothing():
    decision = decided(canary(), candidate=did(rows=4000, batch_s=0.1, batches=49))
    assert decision.verdict == "hold"
    assert "latency: 49 of 50 batches of canary 2" in decision.reason


def test_larger_batches_may_take_longer_and_smaller_ones_gain_nothing():
    tenfold = did(rows=100_000, batches=100, batch_s=0.01)
    assert decided(canary(), candidate=tenfold).verdict == "promote"
    assert "allowed 20 times for 10 times the rows" in decided(canary(), candidate=tenfold).reason
    small = did(rows=10_000, batches=1000, batch_s=0.01)
    assert decided(canary(), candidate=small).verdict == "roll_back"


def test_predicted_classes_that_differ_in_share_are_disagreement():
    same = did(classes={"0": 70_000, "1": 30_000})
    other = did(rows=5000, classes={"0": 2500, "1": 2500})
    assert decided(canary(), stable=same, candidate=did(rows=5000, classes={"0": 3450, "1": 1550})).verdict == "promote"
    decision = decided(canary(), stable=same, candidate=other)
    assert decision.verdict == "roll_back"
    assert decision.reason.startswith("disagreement: by the predicted classes of canary 2 and stable 1, at least 1")


def test_a_class_that_only_one_version_predicts_counts():
    assert (
        decided(canary(), stable=did(classes={"0": 10}), candidate=did(classes={"0": 5, "2": 5})).verdict == "promote"
    )
    stable, candidate = did(classes={"0": 100_000}), did(classes={"0": 60_000, "2": 40_000})
    assert decided(canary(), stable=stable, candidate=candidate).verdict == "roll_back"


def test_rows_that_both_answered_are_counted_one_by_one():
    shadow = start_shadow(first(), "2", ORDER)
    assert decided(shadow, candidate=did(compared=5000, differing=1000)).verdict == "roll_back"
    suspicious = decided(shadow, candidate=did(compared=100, differing=12))
    assert suspicious.verdict == "hold"
    assert "disagreement: 12/100 (12 %) of shadow 2, allowed 10 %" in suspicious.reason
    assert decided(shadow, candidate=did(compared=5000, differing=100)).verdict == "hold"


def test_accuracy_counts_once_outcomes_are_known_of_both():
    def judged(right):
        return did(judged=10_000, right=right)

    assert decided(canary(), stable=judged(9000), candidate=judged(8000)).verdict == "roll_back"
    assert decided(canary(), stable=judged(9000), candidate=judged(8900)).verdict == "promote"
    assert decided(canary(), stable=judged(9000), candidate=did()).verdict == "promote"
    thin = decided(canary(), stable=judged(9000), candidate=did(judged=10, right=6))
    assert thin.verdict == "hold"
    assert "accuracy: 6/10 (60 %) of canary 2, 9,000/10,000 (90 %) of stable 1; allowed 2 points less" in thin.reason


@pytest.mark.parametrize(
    ("guards", "candidate", "verdict"),
    [
        ({"error_rate_increase": 0.2}, did(errors=10_000), "promote"),
        ({"error_rate_increase": 0.001}, did(errors=1000), "roll_back"),
        ({"latency_ratio": 50}, did(batch_s=0.01), "promote"),
        ({"min_rows": 10**6}, did(), "hold"),
        ({"disagreement": 0.5}, did(classes={"0": 60_000, "1": 40_000}), "promote"),
        ({"accuracy_drop": 0.5}, did(judged=10_000, right=6000), "promote"),
        ({"min_outcomes": 5000}, did(), "hold"),
        ({"min_outcomes": 5000}, did(judged=4999, right=4500), "hold"),
        ({"min_outcomes": 5000}, did(judged=10_000, right=9000), "promote"),
    ],
)
def test_the_guards_of_the_page_are_what_counts(guards, candidate, verdict):
    stable = did(classes={"0": 90_000, "1": 10_000}, judged=10_000, right=9000)
    assert decided(canary(**guards), stable=stable, candidate=candidate).verdict == verdict


def test_guards_stay_from_page_to_page():
    page = canary(min_rows=7)
    assert page.guards == Guards(min_rows=7)
    assert advance(page, ORDER).guards == page.guards
    assert advance(advance(page, ORDER), ORDER).guards == page.guards
    assert hold(page, ORDER).guards == page.guards
    assert guard(hold(page, ORDER), {"alpha": 0.2}, ORDER).held


def test_it_takes_time_and_figures_of_every_worker():
    assert decided(canary(steps=((50, 60), (100, 0))), measured_s=59).reason == "measured for 59 of 60 s"
    decision = decided(canary(), missing=("no measurements from 2 of 3 workers",))
    assert (decision.verdict, decision.reason) == ("hold", "no measurements from 2 of 3 workers")
    worse = decided(canary(), candidate=did(errors=50_000), missing=("no measurements from 2 of 3 workers",))
    assert worse.verdict == "roll_back"


def test_too_few_rows_of_either_are_named():
    decision = decided(canary(), stable=did(rows=999), candidate=did(rows=10))
    assert decision.reason.startswith("10 of 1,000 rows of canary 2; 999 of 1,000 rows of stable 1; ")
    assert decided(canary(), stable=NOTHING, candidate=NOTHING).verdict == "hold"


def test_with_all_keys_the_canary_is_compared_with_stable_before():
    page = canary(steps=((100, 0),))
    assert decided(page, stable=NOTHING).verdict == "hold"
    assert decided(page, stable=NOTHING, before=did()).verdict == "promote"
    worse = decided(page, stable=NOTHING, before=did(), candidate=did(errors=5000))
    assert (worse.verdict, "stable 1 before this step" in worse.reason) == ("roll_back", True)
    classes = {"before": did(classes={"0": 90_000}), "candidate": did(classes={"1": 90_000})}
    assert decided(page, stable=NOTHING, **classes).verdict == "promote"  # other traffic may have other classes


def test_a_step_that_should_have_been_decided_long_ago_is_overdue():
    decision = decided(canary(), candidate=did(rows=10), after_s=90_000)
    assert decision.overdue
    assert decision.reason.startswith("not decided 25.0 h after the step began: 10 of 1,000 rows")
    slow = canary(steps=((50, 100_000), (100, 0)))
    assert not decided(slow, measured_s=90_000, after_s=90_000).overdue


def test_what_a_person_holds_is_held_with_what_would_be_done():
    held = hold(canary(), Order(SINCE, "Ada", "mine"))
    decision = decided(held, candidate=did(errors=50_000))
    assert decision.verdict == "hold"
    assert decision.reason.startswith("Ada has taken over at revision 3; otherwise roll back: errors: 50,000/100,000")


@pytest.mark.parametrize("page", [first(), start_blue_green(first(), "2", ORDER)])
def test_where_nothing_is_tried_out_nothing_is_decided(page):
    assert decided(page, candidate=did(errors=50_000)).verdict == "nothing"


def test_an_experiment_is_compared_with_its_arm_of_the_stable_version():
    def arms(*arms):
        return start_ab(first(), [(name, version, 1) for name, version in arms], ORDER)

    worse = {"candidate": did(errors=50_000)}
    assert decided(arms(("old", "1"), ("new", "2")), **worse).verdict == "roll_back"
    assert decided(arms(("old", "1"), ("same", "1"))).verdict == "hold"
    assert decided(arms(("one", "2"), ("other", "3")), **worse).reason == (
        "no arm has the stable version 1: there is nothing to compare with"
    )


RUNS = 150
LOOK_AT = np.unique(np.geomspace(200, 30_000, 25).astype(int))


def simulated(rng, rows, errors, yes, slow):
    failed, right = int(rng.binomial(rows, errors)), int(rng.binomial(rows, 0.9))
    ones, batches = int(rng.binomial(rows - failed, yes)), rows // 20
    quick = int(rng.binomial(batches, 1 - slow))
    return Counts(
        answered=rows - failed, failed=failed, seconds=batches * 0.001, judged=rows, right=right,
        within={0.001: quick, 0.0025: batches, inf: batches}, classes={"1": ones, "0": rows - failed - ones},
    )  # fmt: skip


def added(one, other):
    def both(name):
        mine, its = getattr(one, name), getattr(other, name)
        if isinstance(mine, dict):
            return {key: mine.get(key, 0) + its.get(key, 0) for key in mine.keys() | its.keys()}
        return mine + its

    return Counts(**{name: both(name) for name in Counts.__slots__})


def first_roll_back(rng, page, candidate_errors, share=0.5):
    """Rows of the candidate when it is rolled back; None if it is not at any look."""
    stable = candidate = NOTHING
    for more in np.diff(LOOK_AT, prepend=0).tolist():
        stable = added(stable, simulated(rng, round(more * (1 - share) / share), 0.001, 0.3, 0.05))
        candidate = added(candidate, simulated(rng, more, candidate_errors, 0.3, 0.05))
        if decided(page, stable=stable, candidate=candidate).verdict == "roll_back":
            return candidate.rows
    return None


def test_a_canary_that_is_no_worse_is_seldom_rolled_back_however_often_it_is_looked_at():
    """Nothing at all is allowed beyond stable, and all four guards look: the hardest case for a false alarm."""
    rng = np.random.default_rng(11)
    strict = {"error_rate_increase": 1e-9, "latency_ratio": 1, "disagreement": 0, "accuracy_drop": 0, "alpha": 0.1}
    page = canary(steps=((50, 0),), **strict)
    alarms = sum(first_roll_back(rng, page, 0.001) is not None for _ in range(RUNS))
    assert alarms <= 0.1 * RUNS


def test_five_per_cent_of_errors_against_one_in_a_thousand_are_rolled_back_within_a_thousand_rows():
    rng = np.random.default_rng(12)
    page = canary(steps=((5, 0), (25, 0), (50, 0), (100, 0)))
    rows = sorted(first_roll_back(rng, page, 0.05, share=0.05) or 10**9 for _ in range(RUNS))
    assert rows[len(rows) // 2] <= 500
    assert rows[int(0.95 * len(rows))] <= 1000
