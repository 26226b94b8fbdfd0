from math import inf, nan

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DecodeFailed
from app.monitor.summaries import LARGEST, MAX_CLASSES, MAX_COUNT, Histogram
from app.monitor.summary_reading import summary_of
from tests.made_summaries import category, number, summary

EDGES = (0.0, 1.0, 2.0)
scores = st.lists(st.floats(0, 1), max_size=20)


@st.composite
def summaries(draw):
    values = draw(st.lists(st.integers(-5, 5).map(float), max_size=10))
    features = [
        number("age", values, EDGES, missing=draw(st.integers(0, 3))),
        category("plan", draw(st.lists(st.integers(0, 9), min_size=3, max_size=3)), unknown=draw(st.integers(0, 2))),
    ]
    return summary_of(summary(draw(scores), features=features, latencies=draw(st.lists(st.floats(0, 9), max_size=5))))


def counted(one):
    return (
        one.records,
        dict(one.classes),
        one.confidence.counts,
        one.latency.counts,
        {name: (f.rows, f.missing, f.unknown, f.sum, f.low, f.high, f.counts) for name, f in one.features.items()},
    )


@given(summaries(), summaries(), summaries())
def test_in_whatever_order_summaries_are_added_the_counts_are_the_same(a, b, c):
    assert counted(a.merged(b).merged(c)) == counted(c.merged(a.merged(b))) == counted(b.merged(c).merged(a))


@given(summaries(), summaries())
def test_what_is_kept_of_a_summary_comes_back_as_it_was(a, b):
    merged = a.merged(b)
    assert summary_of(merged.record()) == merged


def test_the_sum_of_summaries_is_the_summary_of_all_rows():
    parts = [summary_of(summary(rows)) for rows in ([0.1, 0.9], [0.4], [0.55, 0.2, 0.99])]
    together = summary_of(summary([0.1, 0.9, 0.4, 0.55, 0.2, 0.99]))
    merged = parts[0].merged(parts[1]).merged(parts[2])
    assert counted(merged) == counted(together)
    assert merged.confidence_sum == pytest.approx(together.confidence_sum, rel=1e-12)


def test_the_digest_is_that_of_the_newest_prediction():
    old, new = summary([0.5]) | {"digest": "old"}, summary([0.5]) | {"digest": "new", "to_ms": 1_900_000_000_000}
    assert summary_of(new).merged(summary_of(old)).digest == "new"
    assert summary_of(old).merged(summary_of(new)).digest == "new"


def test_a_quantile_is_the_upper_edge_of_its_bin():
    latency = Histogram((0.01, 0.1, 1.0), (0, 90, 9, 1))
    assert [latency.quantile(share) for share in (0.5, 0.9, 0.95, 0.99, 1.0)] == [0.1, 0.1, 1.0, 1.0, 1.0]
    assert Histogram((0.01,), (0, 0)).quantile(0.5) is None
    assert Histogram().quantile(0.5) is None


def test_histograms_with_other_edges_do_not_add_up():
    with pytest.raises(DecodeFailed, match="edges"):
        Histogram((1.0,), (1, 1)).merged(Histogram((2.0,), (1, 1)))


def test_a_histogram_of_nothing_takes_any_other():
    assert Histogram().merged(Histogram((2.0,), (1, 1))) == Histogram((2.0,), (1, 1))


def changed(**fields):
    return summary([0.2, 0.7], features=[number("age", [1.0], EDGES)]) | fields


FEATURE = number("age", [1.0], EDGES)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({}, "pipeline"),
        (changed(records=-1), "records"),
        (changed(records=MAX_COUNT + 1), "records"),
        (changed(records=True), "records"),
        (changed(records=1.5), "records"),
        (changed(window_start=-1), "window_start"),
        (changed(window_start=2**62), "window_start"),
        (changed(confidence_sum=nan), "confidence_sum"),
        (changed(latency_sum=inf), "latency_sum"),
        (changed(pipeline="a\nb"), "pipeline"),
        (changed(version="9" * 300), "version"),
        (changed(pipeline=None), "pipeline"),
        (changed(confidence={"edges": [0.5], "counts": [1]}), "confidence"),
        (changed(confidence={"edges": [0.5, 0.5], "counts": [1, 1, 1]}), "rise"),
        (changed(confidence={"edges": [nan], "counts": [1, 1]}), "finite"),
        (changed(confidence={"edges": [0.5], "counts": [1, -1]}), "count"),
        (changed(classes=[{"label": "0", "count": 1}] * 2), "twice"),
        (changed(classes=[{"label": str(i), "count": 1} for i in range(MAX_CLASSES + 1)]), "at most"),
        (changed(features=[FEATURE, FEATURE]), "twice"),
        (changed(features=[FEATURE | {"kind": "colour"}]), "kind"),
        (changed(features=[FEATURE | {"missing": 5}]), "missing"),
        (changed(features=[FEATURE | {"min": 3.0, "max": 1.0}]), "smallest"),
        (changed(features=[FEATURE | {"max": inf}]), "finite"),
        (changed(records=MAX_COUNT) | {"classes": [{"label": str(i), "count": MAX_COUNT} for i in "01"]}, "more than"),
        (changed(version="1" * 21), "version"),
        (changed(features="age"), "list"),
    ],
)
def test_a_summary_that_cannot_be_true_is_refused_by_name(record, why):
    with pytest.raises(DecodeFailed, match=why):
        summary_of(record)


def test_a_feature_of_which_nothing_was_seen_has_no_smallest_value():
    empty = summary_of(summary([0.5], features=[number("age", [], EDGES, missing=3), category("plan", [0, 0])]))
    assert (empty.features["age"].low, empty.features["age"].high) == (inf, -inf)
    seen = summary_of(summary([0.5], features=[number("age", [1.5], EDGES), category("plan", [1, 0])]))
    assert empty.merged(seen).features["age"].low == 1.5


def test_features_with_other_bins_do_not_add_up():
    one, other = (summary_of(summary([0.5], features=[number("age", [1.0], edges)])) for edges in (EDGES, EDGES[:2]))
    with pytest.raises(DecodeFailed, match="age"):
        one.merged(other)


@pytest.mark.parametrize("beyond", [inf, nan, -inf])
def test_sums_beyond_all_floats_stay_at_the_largest_one_and_are_kept(beyond):
    one = summary_of(changed(features=[FEATURE | {"sum": beyond, "sum_squares": inf}], score_sum_squares=inf))
    assert abs(one.features["age"].sum) == one.features["age"].sum_squares == one.score_sum_squares == LARGEST
    again = one.merged(one).merged(summary_of(changed()))
    assert summary_of(orjson.loads(orjson.dumps(again.record()))) == again
    assert again.features["age"].overflowed


def test_squares_that_overflow_when_they_are_added_can_be_kept():
    one = summary_of(summary([0.5], features=[number("age", [1.2e154], EDGES)]))
    assert not one.features["age"].overflowed
    merged = one.merged(one)
    assert summary_of(orjson.loads(orjson.dumps(merged.record()))) == merged


@pytest.mark.parametrize(
    "fields",
    [
        {"records": MAX_COUNT},
        {"classes": [{"label": "a", "count": MAX_COUNT}]},
        {"latency": {"edges": [1.0], "counts": [MAX_COUNT, 0]}},
        {"features": [FEATURE | {"counts": [MAX_COUNT, 0, 0, 0]}]},
    ],
)
def test_what_would_count_to_more_than_a_summary_may_is_refused(fields):
    one = summary_of(changed(**fields))
    with pytest.raises(DecodeFailed, match="more than there can be"):
        one.merged(one)


def test_no_more_classes_are_added_than_a_summary_may_have():
    one, other = (
        summary_of(changed(classes=[{"label": f"{name}{i}", "count": 1} for i in range(MAX_CLASSES)])) for name in "ab"
    )
    with pytest.raises(DecodeFailed, match="at most"):
        one.merged(other)
