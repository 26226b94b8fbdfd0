"""What rows add up to is what a loop over them counts, and sums of parts are sums of the whole."""

import math

import numpy as np
import pyarrow as pa
import pytest
from fakes import FakeModel
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pipeline.features.plan import FeaturePlan
from app.pipeline.summary.bins import LATENCIES_S, SHARES, VALUES, Bins
from app.pipeline.summary.looked_at import LookedAt
from app.pipeline.summary.plan import SummaryPlan, SummedRows
from app.records import Columns
from app.specs import (
    Impute,
    InputSpec,
    NumberFeature,
    OneHotFeature,
    OrdinalFeature,
    ProbabilitiesOutput,
    TensorFeature,
    ValueOutput,
)

PLANS, SIZES = ("basic", "standard", "premium"), ("s", "m")
INPUTS = (
    InputSpec(
        name="X",
        features=(
            NumberFeature(field="age", min=18, max=120),
            NumberFeature(field="total", missing=Impute(impute=1800.0)),
            OneHotFeature(field="plan", categories=PLANS, unknown="ignore", missing="ignore"),
            OrdinalFeature(field="size", categories=SIZES),
        ),
    ),
    InputSpec(name="W", dtype="int64", features=(NumberFeature(field="visits"), NumberFeature(field="age"))),
    InputSpec(name="P", shape=(2, 1), features=(TensorFeature(field="pixels", length=2),)),
)
TABLE = pa.schema(
    {
        "age": pa.int32(),
        "total": pa.float64(),
        "plan": pa.string(),
        "size": pa.dictionary(pa.int32(), pa.string()),
        "visits": pa.int64(),
        "pixels": pa.list_(pa.float32()),
    }
)
BINARY = ProbabilitiesOutput(
    name="out", classes=(0, 1), fields={"label": "class", "p": "probability", "sure": "confidence"}
)
THREE = ProbabilitiesOutput(name="out", classes=("a", "b", "c"), fields={"label": "class", "sure": "confidence"})
EDGES = {"age": (20.0, 30.0, 40.0), "total": (0.1, 0.7, 70.35, 1800.0), "pixels": (0.0, 8.0)}
NUMBERS = ("age", "total", "visits", "pixels")
LOW = 0.6


def model_with(output, inputs=INPUTS):
    return FakeModel(inputs, (output,), lambda _: {})


def plan_of(output=BINARY, **more):
    return SummaryPlan("churn", model_with(output), EDGES, LOW, **more)


# -- rows ----------------------------------------------------------------------------------------------------------

numbers = st.floats(-1e6, 1e6, width=32)
events = st.fixed_dictionaries(
    {
        "age": st.one_of(st.none(), st.integers(10, 130), st.sampled_from([20, 30, 40])),
        "total": st.one_of(st.none(), numbers, st.sampled_from([0.1, 0.7, 70.35, 1800.0])),
        "plan": st.sampled_from([None, *PLANS, "gold", "basic "]),
        "size": st.sampled_from([None, *SIZES, "xl"]),
        "visits": st.integers(-(2**40), 2**40),
        "pixels": st.one_of(st.none(), st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=3)),
    }
)
answers = st.tuples(st.floats(0, 1, width=32), st.booleans(), st.integers(-5_000, 2_000_000))
batches = st.lists(st.tuples(events, answers), max_size=12)


def summed(batch, plan, at_ms=1_760_000_000_000):
    """A batch as the worker adds it up; `answers` are (probability, whether a later step refused it, age in ms)."""
    table = pa.RecordBatch.from_pylist([event for event, _ in batch], schema=TABLE)
    rows = np.arange(len(batch)) * 2 + 1  # others of the batch were not decoded
    columns = Columns(table, rows)
    features = FeaturePlan(INPUTS, TABLE).apply(columns)
    kept = np.array([not batch[row // 2][1][1] for row in features.rows.tolist()], bool)
    predicted = features.rows[kept]
    p = np.array([batch[row // 2][1][0] for row in predicted.tolist()], np.float32)
    winner = (p >= 0.5).astype(np.intp)
    return SummedRows(
        plan, at_ms, predicted,
        np.array([at_ms - batch[row // 2][1][2] for row in predicted.tolist()], np.int64),
        {"label": winner, "p": p, "sure": np.where(winner == 1, p, 1 - p)} if len(p) else {},
        (0, 1) if len(p) else (), winner if len(p) else None, np.where(winner == 1, p, 1 - p) if len(p) else None,
        LookedAt(columns, features.tensors, features.rows),
    )  # fmt: skip


def counted(values, edges):
    """By hand, one value after the other."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        above = sum(value >= edge for edge in edges)
        counts[above - (len(edges) > 0 and value == edges[-1])] += 1
    return counts


def predicted_events(batch):
    """Those events that were predicted."""

    def fits(event):
        whole = event["age"] is not None and 18 <= event["age"] <= 120 and event["size"] in SIZES
        return whole and event["pixels"] is not None and len(event["pixels"]) == 2

    return [(event, answer) for event, answer in batch if fits(event) and not answer[1]]


# -- laws ----------------------------------------------------------------------------------------------------------


@given(st.lists(numbers), st.lists(numbers, unique=True).map(sorted))
def test_a_value_is_in_the_bin_that_a_loop_over_the_edges_finds(values, edges):
    assert Bins(edges).count(np.sort(np.array(values))).tolist() == counted(values, edges)


@given(st.lists(st.floats(-1e300, 1e300)), st.lists(st.floats(-1e300, 1e300), unique=True).map(sorted))
def test_every_value_is_in_one_bin_whatever_the_edges_round_to(values, edges):
    with np.errstate(over="ignore"):
        narrow = np.sort(np.array(values, np.float32))
    counts = Bins(edges, np.float32).count(narrow)
    assert counts.sum() == len(values)
    assert counts.min(initial=0) >= 0
    assert len(counts) == len(edges) + 1


@settings(deadline=None)
@given(st.lists(batches, min_size=1, max_size=3))
def test_rows_add_up_to_what_a_loop_over_them_counts(several):
    plan = plan_of()
    record = plan.record(plan.fold([summed(batch, plan) for batch in several]), 0)
    everything = [pair for batch in several for pair in batch]
    rows = [pair for batch in several for pair in predicted_events(batch)]
    scores = [answer[0] for _, answer in rows]
    # as the worker has it: what is not the second class's share is the first one's, in float32
    sure = [float(np.float32(p) if p >= 0.5 else 1 - np.float32(p)) for p in scores]
    ages_s = [max(answer[2], 0) / 1000 for _, answer in rows]

    assert record["records"] == len(rows)
    labels = [{"label": str(label), "count": [p >= 0.5 for p in scores].count(bool(label))} for label in (0, 1)]
    assert record["classes"] == labels
    assert record["score"]["counts"] == counted(scores, SHARES)
    assert record["score_sum"] == pytest.approx(math.fsum(scores))
    assert record["score_sum_squares"] == pytest.approx(math.fsum(p * p for p in scores))
    assert record["confidence"]["counts"] == counted(sure, SHARES)
    assert record["low_confidence"] == sum(share < LOW for share in sure)
    assert record["latency"]["counts"] == counted(ages_s, LATENCIES_S)
    assert record["latency_sum"] == pytest.approx(math.fsum(ages_s))

    features = {feature["name"]: feature for feature in record["features"]}
    assert list(features) == ["age", "total", "plan", "size", "visits", "pixels"]
    for name, feature in features.items():
        assert feature["count"] == len(everything)
        assert feature["missing"] == sum(event[name] is None for event, _ in everything)
        values = [event[name] for event, _ in rows if event[name] is not None]
        if name in NUMBERS:
            flat = [float(x) for x in (np.concatenate(values or [[]]) if name == "pixels" else values)]
            assert sum(feature["counts"]) == len(flat)
            assert feature["sum"] == pytest.approx(math.fsum(flat), rel=1e-5, abs=1e-2)
            assert feature["min"] == pytest.approx(min(flat, default=math.inf))
            assert feature["max"] == pytest.approx(max(flat, default=-math.inf))
            assert feature["unknown"] == 0
            edges = [float(np.float32(edge)) for edge in EDGES.get(name, ())]
            rounded = [float(np.float32(x)) for x in flat] if name != "visits" else flat
            assert feature["counts"] == counted(rounded, edges)
        else:
            known = PLANS if name == "plan" else SIZES
            assert feature["counts"] == [values.count(category) for category in known]
            others = [event[name] for event, _ in everything if event[name] not in (None, *known)]
            assert feature["unknown"] == len(others)


@settings(deadline=None)
@given(batches, batches)
def test_the_sum_of_two_summaries_is_the_summary_of_both(first, second):
    plan = plan_of()
    one, other = summed(first, plan, 1_000_000_000_000), summed(second, plan, 1_000_000_000_007)
    both, parts = plan.fold([one, other]), plan.fold([one]).plus(plan.fold([other]))
    assert (both.first_ms, both.last_ms) == (parts.first_ms, parts.last_ms) == (1_000_000_000_000, 1_000_000_000_007)
    assert both.counts.tolist() == parts.counts.tolist()
    assert both.sums == pytest.approx(parts.sums)
    assert both.lows.tolist() == parts.lows.tolist()
    assert both.highs.tolist() == parts.highs.tolist()
    swapped = plan.fold([other]).plus(plan.fold([one]))
    assert swapped.counts.tolist() == parts.counts.tolist()


# -- cases ---------------------------------------------------------------------------------------------------------

EVENT = {"age": 30, "total": 70.35, "plan": "basic", "size": "m", "visits": 3, "pixels": [0.0, 16.0]}


def answered(plan, *, fields, classes=(), winner=None, confidence=None, looked_at=None, at_ms=5_000):
    count = len(next(iter(fields.values())))
    stamps = np.full(count, 4_000)
    return SummedRows(plan, at_ms, np.arange(count), stamps, fields, classes, winner, confidence, looked_at)


def test_a_value_that_is_an_edge_of_the_training_data_is_in_the_bin_it_was_in_then():
    plan = plan_of()
    features = {f["name"]: f for f in plan.record(plan.fold([summed([(EVENT, (0.5, False, 0))], plan)]), 0)["features"]}
    assert float(np.float32(70.35)) < 70.35
    assert features["total"]["counts"] == [0, 0, 0, 1, 0]  # from 70.35 to 1800


def test_a_feature_that_was_the_same_in_all_of_training_has_one_bin_of_its_own():
    constant = Bins((5.0, math.nextafter(5.0, math.inf)), np.float32)
    assert constant.count(np.array([4.0, 5.0, 5.0, 6.0], np.float32)).tolist() == [1, 2, 1]


def test_more_than_two_classes_have_no_score():
    plan = plan_of(THREE)
    winner, sure = np.array([2, 2, 0]), np.array([0.5, 0.9, 0.7], np.float32)
    rows = answered(plan, fields={"label": winner, "sure": sure}, classes=THREE.classes, winner=winner, confidence=sure)
    record = plan.record(plan.fold([rows]), 0)
    assert record["classes"] == [{"label": "a", "count": 1}, {"label": "b", "count": 0}, {"label": "c", "count": 2}]
    assert record["score"] == {"edges": (), "counts": [0]}
    assert record["low_confidence"] == 1


@pytest.mark.parametrize(
    ("spec", "edges"),
    [
        (ValueOutput(name="out"), VALUES),
        (ValueOutput(name="out", min=0), VALUES),
        (ValueOutput(name="out", min=0, max=100), tuple(range(0, 101, 5))),
        (ValueOutput(name="out", min=7, max=7), VALUES),
    ],
)
def test_a_regression_has_its_values_for_scores_and_no_classes(spec, edges):
    plan = plan_of(spec)
    rows = answered(plan, fields={"value": np.array([7.0, -1e30, 1e30])})
    record = plan.record(plan.fold([rows]), 0)
    assert record["score"]["edges"] == edges
    assert record["score"]["counts"] == counted([7.0, -1e30, 1e30], edges)
    assert record["classes"] == []
    assert record["confidence"]["counts"] == [0] * (len(SHARES) + 1)
    assert record["low_confidence"] == 0


@pytest.mark.parametrize(
    "fields",
    [{"label": "class"}, {"label": "class", "all": "probabilities"}, {"label": "class", "p": "probability"}],
    ids=lambda fields: list(fields.values())[-1],
)
def test_the_second_class_has_the_same_score_whatever_the_predictions_say(fields):
    plan = plan_of(ProbabilitiesOutput(name="out", classes=(0, 1), fields=fields))
    p, winner = np.array([0.25, 0.75]), np.array([0, 1])
    given = {"label": winner, "all": np.stack([1 - p, p], axis=1), "p": p}
    rows = answered(
        plan, fields={name: given[name] for name in fields}, classes=(0, 1), winner=winner,
        confidence=np.array([0.75, 0.75]),
    )  # fmt: skip
    assert plan.record(plan.fold([rows]), 0)["score"]["counts"] == counted(p.tolist(), SHARES)


def test_a_handlers_prediction_that_says_only_the_class_has_no_score():
    plan = plan_of(ProbabilitiesOutput(name="out", classes=(0, 1), fields={"label": "class"}))
    rows = answered(plan, fields={"label": np.array([1, 1])}, classes=(0, 1), winner=np.array([1, 1]))
    record = plan.record(plan.fold([rows]), 0)
    assert record["records"] == 2
    assert sum(record["score"]["counts"]) == sum(record["confidence"]["counts"]) == 0


def test_a_constant_answer_counts_for_its_class():
    plan = plan_of(THREE)
    rows = answered(plan, fields={"label": np.array(["c", "c"])}, classes=("c",), winner=np.zeros(2, int))
    assert [item["count"] for item in plan.record(plan.fold([rows]), 0)["classes"]] == [0, 0, 2]


def test_the_inputs_that_a_handler_makes_are_not_told_of():
    plan = plan_of(with_features=False)
    assert plan.record(plan.nothing(), 0)["features"] == []


def test_answers_of_a_version_whose_features_were_not_made_leave_its_features_alone():
    plan = plan_of()
    rows = answered(plan, fields={"p": np.array([0.5])}, classes=(0, 1), winner=np.array([1]))
    record = plan.record(plan.fold([rows]), 0)
    assert record["records"] == 1
    assert {feature["count"] for feature in record["features"]} == {0}


def test_a_field_of_two_inputs_is_told_of_once():
    names = [feature["name"] for feature in plan_of().record(plan_of().nothing(), 0)["features"]]
    assert names.count("age") == 1


def test_numbers_as_large_as_there_are_end_in_infinity_not_in_an_error():
    inputs = (InputSpec(name="X", dtype="float64", features=(NumberFeature(field="total"),)),)
    plan = SummaryPlan("churn", model_with(ValueOutput(name="out"), inputs), {}, LOW)
    table = pa.RecordBatch.from_pylist([{"total": 1.7e308}, {"total": 1.7e308}], pa.schema({"total": pa.float64()}))
    columns = Columns(table, np.arange(2))
    features = FeaturePlan(inputs, table.schema).apply(columns)
    looked_at = LookedAt(columns, features.tensors, features.rows)
    [feature] = plan.record(
        plan.fold([answered(plan, fields={"value": np.array([1.7e308, -1.7e308])}, looked_at=looked_at)]), 0
    )["features"]
    assert feature["sum"] == feature["sum_squares"] == math.inf
    assert feature["counts"] == [2]


def test_columns_of_both_types_an_enum_comes_in_are_added_up_together():
    plan = plan_of()
    first, second = (summed([(EVENT | {"size": size}, (0.5, False, 0))], plan) for size in SIZES)
    table = second.looked_at.columns.table
    plain = table.set_column(3, "size", table.column("size").cast(pa.string()))
    columns = Columns(plain, second.looked_at.columns.rows)
    as_text = SummedRows(
        plan, second.at_ms, second.rows, second.timestamps_ms, second.fields, second.classes, second.winner,
        second.confidence, LookedAt(columns, second.looked_at.tensors, second.looked_at.rows),
    )  # fmt: skip
    features = {f["name"]: f for f in plan.record(plan.fold([first, as_text, first]), 0)["features"]}
    assert features["size"]["counts"] == [2, 1]
    assert features["size"]["unknown"] == 0
