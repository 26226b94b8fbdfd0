"""Counters of workers that are started again, come and go: nothing negative, nothing twice."""

from hypothesis import given
from hypothesis import strategies as st

from app.facts import MetricsLook
from app.observe.metrics import TABLE
from app.rollouts.measurements import (
    COMPARED,
    GIVEN_UP,
    JUDGED,
    PREDICTIONS,
    REVISION,
    ROWS,
    SECONDS_BUCKET,
    SECONDS_SUM,
    SHADOW_ERRORS,
    SHADOW_SECONDS_BUCKET,
    SHADOW_SECONDS_SUM,
    UNUSABLE,
    Counts,
    Tally,
    Unusable,
    revisions,
)


def rows(count, version="1", outcome="answered", **more):
    labels = {"model": "churn", "version": version, "outcome": outcome} | more
    return (ROWS, tuple(labels.items()), float(count))


def look(**workers):
    return MetricsLook(workers)


def tallied(*looks):
    tally = Tally()
    for one in looks:
        tally.add(one)
    return tally


def answered(tally, version="1"):
    return tally.counts().get(version, Counts()).answered


def test_what_a_worker_had_counted_before_it_was_first_seen_is_not_ours():
    tally = tallied(look(a=[rows(100)]), look(a=[rows(130)]))
    assert answered(tally) == 30
    assert tally.earlier()["1"].answered == 100


def test_a_series_that_appears_later_was_counted_since():
    tally = tallied(look(a=[rows(100)]), look(a=[rows(100), rows(7, outcome="failed")]))
    assert tally.counts()["1"] == Counts(answered=0, failed=7)


def test_a_worker_that_was_started_again_counts_from_zero():
    tally = tallied(look(a=[rows(100)]), look(a=[rows(130)]), look(a=[rows(5)]), look(a=[rows(9)]))
    assert answered(tally) == 30 + 9


def test_one_counter_that_fell_says_that_all_of_the_worker_started_again():
    before = [rows(100), rows(1, outcome="failed")]
    after = [rows(40), rows(3, outcome="failed")]
    assert tallied(look(a=before), look(a=after)).counts()["1"] == Counts(answered=40, failed=3)


def test_a_worker_that_goes_keeps_what_it_did_and_one_that_comes_back_is_the_same():
    tally = tallied(look(a=[rows(0)], b=[rows(50)]), look(a=[rows(10)]), look(a=[rows(20)], b=[rows(80)]))
    assert answered(tally) == 20 + 30


def test_a_series_that_is_missing_for_a_while_is_not_counted_twice_as_a_whole():
    both = [rows(100), rows(10, version="2")]
    tally = tallied(look(a=both), look(a=[rows(110)]), look(a=[rows(120), rows(3, version="2")]))
    assert (answered(tally), answered(tally, "2")) == (20, 3)


def test_pipelines_and_workers_are_added_up():
    first = look(a=[rows(0), rows(0, pipeline="q")], b=[rows(0)])
    assert answered(tallied(first, look(a=[rows(1), rows(2, pipeline="q")], b=[rows(4)]))) == 7


def test_each_series_has_its_meaning():
    def of(name, count, **labels):
        return (name, (("model", "churn"), ("version", "2"), *labels.items()), float(count))

    shown = [
        rows(90, "2"),
        rows(6, "2", "failed"),
        rows(4, "2", "bad_output"),
        of(SECONDS_SUM, 1.5),
        *(of(SECONDS_BUCKET, count, le=le) for le, count in (("0.1", 3), ("0.5", 5), ("+Inf", 6))),
        of(PREDICTIONS, 60, result="0", pipeline="p"),
        of(PREDICTIONS, 30, result="1", pipeline="p"),
        of(JUDGED, 8, result="right"),
        of(JUDGED, 1, result="wrong"),
        ("inference_something_else_total", (("model", "churn"), ("version", "2")), 9.0),
    ]
    counts = tallied(look(a=[rows(0, "2")]), look(a=shown)).counts()["2"]
    assert counts == Counts(
        answered=90,
        failed=6,
        bad_output=4,
        seconds=1.5,
        within={0.1: 3, 0.5: 5, float("inf"): 6},
        classes={"0": 60, "1": 30},
        judged=9,
        right=8,
    )
    assert (counts.rows, counts.batches, counts.predictions) == (100, 6, 90)
    assert (counts.errors.events, counts.errors.trials) == (10, 100)


def test_a_series_that_was_missing_for_a_while_goes_on_where_it_was():
    both = [rows(100), rows(150, version="2")]
    tally = tallied(look(a=both), look(a=[rows(110)]), look(a=[rows(120), rows(210, version="2")]))
    assert (answered(tally), answered(tally, "2")) == (20, 60)


def shadow(name, count, **labels):
    return (name, (("pipeline", "p"), ("model", "churn"), ("version", "2"), *labels.items()), float(count))


def test_what_a_shadow_did_is_apart_from_what_it_was_to_answer():
    shown = [
        shadow(COMPARED, 40, result="agreed"),
        shadow(COMPARED, 2, result="disagreed"),
        shadow(COMPARED, 8, result="failed"),
        shadow(COMPARED, 1000, result="dropped"),
        shadow(SHADOW_SECONDS_SUM, 0.5),
        *(shadow(SHADOW_SECONDS_BUCKET, count, le=le) for le, count in (("0.1", 3), ("+Inf", 5))),
    ]
    tally = tallied(look(a=[rows(0)]), look(a=[rows(0), *shown]))
    assert tally.counts()["2"] == Counts()
    found = tally.shadows()["2"]
    assert found == Counts(
        answered=42, failed=8, seconds=0.5, within={0.1: 3, float("inf"): 5}, compared=42, differing=2
    )
    assert (found.rows, found.errors.events, found.batches) == (50, 8, 5)


def trouble(version, error, looks):
    return (UNUSABLE, (("model", "churn"), ("version", version), ("error", error)), float(looks))


def test_the_worker_with_most_trouble_is_named_and_one_that_had_it_before_is_not():
    before = look(a=[rows(0)], b=[rows(0)], c=[trouble("2", "ModelInvalid", 90)])
    after = look(
        a=[rows(0), trouble("2", "NotReachable", 2)],
        b=[rows(0), trouble("2", "NotReachable", 3), trouble("2", "ModelInvalid", 1), trouble("", "NotReachable", 9)],
        c=[trouble("2", "ModelInvalid", 90)],
    )
    later = look(a=after.workers["a"], b=[*after.workers["b"][:2], trouble("2", "ModelInvalid", 30)])
    assert tallied(before, after, later, later).unusable() == {
        "": Unusable("b", "NotReachable", 1),
        "2": Unusable("b", "ModelInvalid and NotReachable", 2),
    }


def test_a_worker_that_gave_a_shadow_up_is_named_before_one_that_loses_it_again_and_again():
    lost = [look(a=[rows(0), shadow(SHADOW_ERRORS, n, error="ShadowCrashed")], b=[rows(0)]) for n in range(4)]
    assert tallied(*lost).unusable() == {}
    given_up = [rows(0), shadow(SHADOW_ERRORS, 1, error=GIVEN_UP), shadow(SHADOW_ERRORS, 4, error="ModelInvalid")]
    assert tallied(*lost, look(b=given_up)).unusable() == {"2": Unusable("b", "ModelInvalid", 1, given_up=True)}


def test_the_oldest_page_of_a_workers_pipelines_is_its_revision():
    def serving(revision, pipeline):
        return (REVISION, (("pipeline", pipeline), ("model", "churn")), float(revision))

    shown = look(a=[serving(4, "p"), serving(3, "q")], b=[serving(4, "p")], c=[rows(1)])
    assert revisions(shown) == {"a": 3, "b": 4}


OUTCOMES = ("answered", "failed")
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("a", "b")),
        st.sampled_from(("counts", "restarts", "looked_at", "hides", "shows")),
        st.sampled_from(OUTCOMES),
        st.integers(1, 50),
    ),
    max_size=60,
)


@given(EVENTS)
def test_whatever_workers_do_nothing_is_negative_and_nothing_is_counted_twice(events):
    tally = Tally()
    shown = {"a": {}, "b": {}}  # what each process has counted since it was started
    hidden, seen = set(), set()
    true = dict.fromkeys(OUTCOMES, 0)
    restarted = False
    for worker, event, outcome, count in events:
        if event == "counts":
            shown[worker][outcome] = shown[worker].get(outcome, 0) + count
            true[outcome] += count if worker in seen else 0
        elif event == "restarts":
            shown[worker] = {}
            restarted = True
        elif event == "hides":
            hidden.add(worker)
        elif event == "shows":
            hidden.discard(worker)
        else:
            visible = {name: figures for name, figures in shown.items() if name not in hidden}
            tally.add(look(**{name: [rows(n, outcome=o) for o, n in of.items()] for name, of in visible.items()}))
            seen |= visible.keys()
    visible = {name: figures for name, figures in shown.items() if name in seen}
    tally.add(look(**{name: [rows(n, outcome=o) for o, n in of.items()] for name, of in visible.items()}))
    counts = tally.counts().get("1", Counts())
    found = {"answered": counts.answered, "failed": counts.failed}
    assert all(0 <= found[outcome] <= true[outcome] for outcome in OUTCOMES)
    if not restarted:
        assert found == true


def test_what_is_read_of_workers_is_what_workers_show():
    table = {spec.name: spec.labels for spec in TABLE}
    assert {"model", "version", "outcome"} == set(table[ROWS])
    assert {"model", "version"} == set(table[SECONDS_SUM.removesuffix("_sum")])
    assert {"pipeline", "model", "version", "result"} == set(table[PREDICTIONS])
    assert {"pipeline", "model", "version", "result"} == set(table[COMPARED])
    assert {"pipeline", "model", "version"} == set(table[SHADOW_SECONDS_SUM.removesuffix("_sum")])
    assert {"pipeline", "model", "version", "error"} == set(table[SHADOW_ERRORS])
    assert {"model", "version", "error"} == set(table[UNUSABLE])
    assert {"pipeline", "model"} == set(table[REVISION])
