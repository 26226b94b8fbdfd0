"""The feature step: a row becomes what a plain reading of the manifest says, whoever its neighbours are."""

import math
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Reason, SchemaIncompatible, Stage
from app.pipeline.features.plan import FeaturePlan, Features, check_fields, features_of
from app.records import Columns
from app.specs import Impute, InputSpec, NumberFeature, OneHotFeature, OrdinalFeature, TensorFeature

PLANS = ("basic", "standard", "premium")
CHURN = (
    InputSpec(
        name="X",
        features=(
            NumberFeature(field="age", min=18, max=120),
            NumberFeature(field="income"),
            NumberFeature(field="total", min=0, missing=Impute(impute=1397.5)),
            OneHotFeature(field="plan", categories=PLANS),
        ),
    ),
)
CHURN_SCHEMA = pa.schema(
    {
        "age": pa.int32(),
        "income": pa.float64(),
        "total": pa.float64(),
        "plan": pa.dictionary(pa.int32(), pa.string()),
    }
)
GOOD = {"age": 40, "income": 5e4, "total": 10.0, "plan": "standard"}
PIXELS = (InputSpec(name="P", features=(TensorFeature(field="pixels", length=3, min=0, max=16),)),)


def columns_of(rows: list[dict[str, Any]], schema: pa.Schema) -> Columns:
    arrays = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
    return Columns(pa.RecordBatch.from_arrays(arrays, schema=schema), np.arange(len(rows), dtype=np.int64))


def churn(**changes: Any) -> Features:
    return features_of(columns_of([GOOD, GOOD | changes], CHURN_SCHEMA), CHURN)


def pixels(*values: Any, of: pa.DataType | None = None) -> Features:
    schema = pa.schema({"pixels": pa.list_(of or pa.float32())})
    return features_of(columns_of([{"pixels": value} for value in values], schema), PIXELS)


def test_features_stand_side_by_side_in_manifest_order():
    features = churn()
    assert features.tensors["X"].tolist() == [[40, 50000, 10, 0, 1, 0]] * 2
    assert features.tensors["X"].dtype == np.float32
    assert features.tensors["X"].flags.c_contiguous
    assert features.rejected == []


def test_a_missing_number_is_imputed_where_the_manifest_says_so():
    assert churn(total=None).tensors["X"][1, 2] == np.float32(1397.5)


def test_a_replacement_may_lie_outside_the_bounds():
    feature = NumberFeature(field="total", min=0, missing=Impute(impute=-1))
    schema = pa.schema({"total": pa.float64()})
    features = features_of(columns_of([{"total": None}], schema), (InputSpec(name="X", features=(feature,)),))
    assert features.tensors["X"].tolist() == [[-1]]


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"age": 7}, Reason.OUT_OF_RANGE, "age is 7, allowed 18 to 120"),
        ({"age": None}, Reason.MISSING_VALUE, "age is missing"),
        ({"income": math.nan}, Reason.NOT_FINITE, "income is nan, allowed are finite numbers"),
        ({"income": -math.inf}, Reason.NOT_FINITE, "income is -inf, allowed are finite numbers"),
        ({"income": 1e39}, Reason.NOT_FINITE, "income is 1e+39, more than the model's input can hold"),
        ({"total": -0.5}, Reason.OUT_OF_RANGE, "total is -0.5, allowed at least 0"),
        ({"total": math.nan}, Reason.NOT_FINITE, "total is nan, allowed are finite numbers"),
        ({"plan": "gold"}, Reason.UNKNOWN_CATEGORY, "plan is 'gold', allowed basic, standard, premium"),
        ({"plan": None}, Reason.MISSING_VALUE, "plan is missing"),
    ],
)
def test_a_rejection_names_the_field_the_value_and_what_is_allowed(changes, reason, message):
    features = churn(**changes)
    (rejection,) = features.rejected
    assert (rejection.row, rejection.stage, rejection.error) == (1, Stage.FEATURES, "BadFeatures")
    assert (rejection.reason, rejection.message) == (reason, message)
    assert features.rows.tolist() == [0]
    assert features.tensors["X"].tolist() == [[40, 50000, 10, 0, 1, 0]]


def test_the_first_failing_feature_in_manifest_order_gives_the_reason():
    (rejection,) = churn(plan="gold", income=math.inf, total=-1.0).rejected
    assert rejection.reason is Reason.NOT_FINITE


def test_rows_and_rejections_speak_of_the_batch_not_of_the_columns():
    table = columns_of([GOOD, GOOD | {"age": 1}, GOOD], CHURN_SCHEMA).table
    features = features_of(Columns(table, np.array([3, 5, 8])), CHURN)
    assert features.rows.tolist() == [3, 8]
    assert [rejection.row for rejection in features.rejected] == [5]


def test_a_number_just_below_the_overflow_is_scored_and_the_next_one_is_not():
    largest = math.nextafter(2.0**128 - 2.0**103, 0)
    assert churn(income=largest).tensors["X"][1, 1] == np.finfo(np.float32).max
    assert churn(income=math.nextafter(largest, math.inf)).rejected[0].reason is Reason.NOT_FINITE


def test_rounding_to_float32_does_not_bring_a_value_into_range():
    schema = pa.schema({"age": pa.float64()})
    inputs = (InputSpec(name="X", features=(NumberFeature(field="age", max=120),)),)
    above = math.nextafter(120.0, 121)
    (rejection,) = features_of(columns_of([{"age": above}], schema), inputs).rejected
    assert rejection.message == f"age is {above}, allowed at most 120"


@pytest.mark.parametrize("octets", [b"\x00\x00\xa0\x7f", b"\x01\x00\x80\xff"])
def test_a_signalling_nan_off_the_wire_is_not_finite_and_warns_nobody(octets):
    doubles = np.frombuffer(struct.pack("<Q", 0x7FF0_0000_0000_0001), np.float64)
    table = pa.RecordBatch.from_arrays([pa.array(doubles)], ["x"])
    inputs = (InputSpec(name="X", features=(NumberFeature(field="x"),)),)
    assert features_of(Columns(table, np.arange(1)), inputs).rejected[0].reason is Reason.NOT_FINITE
    elements = np.concatenate([np.frombuffer(octets, np.float32), np.zeros(2, np.float32)])
    lists = pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), pa.array(elements))
    narrow = pa.RecordBatch.from_arrays([lists, pa.array(elements[:1])], ["pixels", "x"])
    assert features_of(Columns(narrow, np.arange(1)), PIXELS).rejected[0].reason is Reason.NOT_FINITE
    assert features_of(Columns(narrow, np.arange(1)), inputs).rejected[0].reason is Reason.NOT_FINITE


@pytest.mark.parametrize(
    ("value", "reason", "message"),
    [
        ([1.0, 2.0], Reason.BAD_SHAPE, "pixels has length 2, allowed 3"),
        ([], Reason.BAD_SHAPE, "pixels has length 0, allowed 3"),
        (None, Reason.MISSING_VALUE, "pixels is missing"),
        ([1.0, None, math.nan], Reason.MISSING_VALUE, "pixels[1] is missing"),
        ([1.0, 17.5, math.nan], Reason.OUT_OF_RANGE, "pixels[1] is 17.5, allowed 0 to 16"),
        ([1.0, 2.0, math.nan], Reason.NOT_FINITE, "pixels[2] is nan, allowed are finite numbers"),
    ],
)
def test_a_bad_array_is_rejected_and_its_neighbours_are_scored(value, reason, message):
    features = pixels([0.0, 1.0, 16.0], value, [2.0, 2.0, 2.0])
    (rejection,) = features.rejected
    assert (rejection.row, rejection.reason, rejection.message) == (1, reason, message)
    assert features.tensors["P"].tolist() == [[0, 1, 16], [2, 2, 2]]


def test_two_wrong_lengths_that_add_up_are_both_rejected():
    assert [rejection.row for rejection in pixels([1.0] * 2, [1.0] * 4).rejected] == [0, 1]


def test_a_tensor_row_takes_the_shape_of_its_input():
    spec = InputSpec(name="P", features=(TensorFeature(field="pixels", length=4),), shape=(1, 2, 2))
    schema = pa.schema({"pixels": pa.list_(pa.float64())})
    features = features_of(columns_of([{"pixels": [1.0, 2.0, 3.0, 4.0]}] * 3, schema), (spec,))
    assert features.tensors["P"].shape == (3, 1, 2, 2)


def test_integers_keep_every_digit_in_an_integer_input():
    inputs = (InputSpec(name="id", dtype="int64", features=(NumberFeature(field="id", max=2.0**60),)),)
    schema = pa.schema({"id": pa.int64()})
    features = features_of(columns_of([{"id": 2**53 + 1}, {"id": 2**60 + 1}], schema), inputs)
    assert features.tensors["id"].tolist() == [[2**53 + 1]]
    assert features.rejected[0].reason is Reason.OUT_OF_RANGE


def test_an_integer_that_the_input_cannot_hold_is_not_wrapped_around():
    inputs = (InputSpec(name="n", dtype="int32", features=(NumberFeature(field="n"),)),)
    features = features_of(columns_of([{"n": 2**31}, {"n": -5}], pa.schema({"n": pa.int64()})), inputs)
    assert features.tensors["n"].tolist() == [[-5]]
    assert features.rejected[0].reason is Reason.OUT_OF_RANGE


def test_an_unknown_or_missing_category_may_be_ignored():
    feature = OneHotFeature(field="plan", categories=PLANS, unknown="ignore", missing="ignore")
    schema = pa.schema({"plan": pa.string()})
    rows = [{"plan": "gold"}, {"plan": None}, {"plan": "basic"}]
    features = features_of(columns_of(rows, schema), (InputSpec(name="X", features=(feature,)),))
    assert features.tensors["X"].tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_a_rejected_value_is_quoted_in_part_only():
    (rejection,) = churn(plan="x" * 1_000_000).rejected
    assert len(rejection.message) < 200


def test_an_empty_batch_gives_empty_tensors():
    features = features_of(columns_of([], CHURN_SCHEMA), CHURN)
    assert features.tensors["X"].shape == (0, 6)
    assert features.rejected == []


def test_a_plan_follows_batches_whose_categories_come_in_another_dictionary_or_as_strings():
    plan = FeaturePlan(CHURN, CHURN_SCHEMA)
    first = plan.apply(columns_of([GOOD, GOOD | {"plan": "basic"}], CHURN_SCHEMA))
    second = plan.apply(columns_of([GOOD | {"plan": "basic"}, GOOD], CHURN_SCHEMA))
    strings = CHURN_SCHEMA.set(3, pa.field("plan", pa.string()))
    third = plan.apply(columns_of([GOOD | {"plan": "basic"}, GOOD], strings))
    assert first.tensors["X"][::-1].tolist() == second.tensors["X"].tolist() == third.tensors["X"].tolist()


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (CHURN_SCHEMA.remove(1), "needs the field 'income', the schema has age, total, plan"),
        (CHURN_SCHEMA.set(0, pa.field("age", pa.string())), "'age' is string, the model needs numbers"),
        (CHURN_SCHEMA.set(0, pa.field("age", pa.uint64())), "'age' is uint64, the model needs numbers"),
        (CHURN_SCHEMA.set(3, pa.field("plan", pa.int32())), "'plan' is int32, the model needs categories"),
    ],
)
def test_a_schema_that_cannot_feed_the_model_is_named_at_start_up(schema, message):
    with pytest.raises(SchemaIncompatible, match=message):
        check_fields(CHURN, schema)


def test_an_array_field_must_be_an_array_of_numbers():
    with pytest.raises(SchemaIncompatible, match="'pixels' is double, the model needs an array"):
        check_fields(PIXELS, pa.schema({"pixels": pa.float64()}))
    with pytest.raises(SchemaIncompatible, match="'pixels' is string, the model needs numbers"):
        check_fields(PIXELS, pa.schema({"pixels": pa.list_(pa.string())}))


def test_fractions_do_not_feed_an_integer_input():
    inputs = (InputSpec(name="n", dtype="int64", features=(NumberFeature(field="n"),)),)
    with pytest.raises(SchemaIncompatible, match="the input 'n' takes int64 only"):
        check_fields(inputs, pa.schema({"n": pa.float32()}))


@pytest.mark.parametrize(("dtype", "value"), [("int64", 1.5), ("int32", 2.0**31), ("float32", 1e39)])
def test_a_replacement_must_be_a_value_of_the_inputs_dtype(dtype, value):
    feature = NumberFeature(field="n", missing=Impute(impute=value))
    with pytest.raises(ValueError, match="is not a value of"):
        InputSpec(name="n", dtype=dtype, features=(feature,))


# ------------------------------------------------------------------------------------------------- laws
# A plain reading of the manifest, one row and one Python value at a time.

Refusal = Reason
ODD_FLOATS = (math.nan, math.inf, -math.inf, 1e39, -1e39, 5e-324, -0.0, 18.0, 120.0, math.nextafter(120, 121))


def reference_number(feature: NumberFeature | TensorFeature, value: float, dtype: str) -> float | Refusal:
    if not math.isfinite(value):
        return Reason.NOT_FINITE
    if (feature.min is not None and value < feature.min) or (feature.max is not None and value > feature.max):
        return Reason.OUT_OF_RANGE
    with np.errstate(over="ignore"):
        return value if np.isfinite(np.dtype(dtype).type(value)) else Reason.NOT_FINITE


def reference_category(feature: OneHotFeature | OrdinalFeature, value: str | None) -> list[float | Refusal]:
    if value not in feature.categories and (feature.missing if value is None else feature.unknown) == "reject":
        return [Reason.MISSING_VALUE if value is None else Reason.UNKNOWN_CATEGORY]
    if isinstance(feature, OneHotFeature):
        return [float(value == category) for category in feature.categories]
    return [float(feature.categories.index(value))]


def reference_tensor(feature: TensorFeature, value: list[float | None] | None, dtype: str) -> list[float | Refusal]:
    if value is None:
        return [Reason.MISSING_VALUE]
    if len(value) != feature.length:
        return [Reason.BAD_SHAPE]
    return [Reason.MISSING_VALUE if item is None else reference_number(feature, item, dtype) for item in value]


def reference_row(row: dict[str, Any], spec: InputSpec) -> list[float] | Refusal:
    numbers: list[float] = []
    for feature in spec.features:
        value = row[feature.field]
        if isinstance(feature, TensorFeature):
            cells = reference_tensor(feature, value, spec.dtype)
        elif not isinstance(feature, NumberFeature):
            cells = reference_category(feature, value)
        elif value is not None:
            cells = [reference_number(feature, value, spec.dtype)]
        else:
            cells = [feature.missing.impute if isinstance(feature.missing, Impute) else Reason.MISSING_VALUE]
        for cell in cells:
            if isinstance(cell, Reason):
                return cell
            numbers.append(cell)
    return numbers


def single(values: st.SearchStrategy[float]) -> st.SearchStrategy[float]:
    return values.map(lambda value: float(np.float32(value)) if abs(value) < 3e38 else math.inf)


floats = st.one_of(st.sampled_from(ODD_FLOATS), st.floats(-200, 200), st.floats())
categories = st.sampled_from([*PLANS, "gold", "", None])
SCHEMA = pa.schema(
    {
        "small": pa.int32(),
        "flag": pa.bool_(),
        "wide": pa.float64(),
        "narrow": pa.float32(),
        "plan": pa.dictionary(pa.int32(), pa.string()),
        "text": pa.string(),
        "grid": pa.list_(pa.float64()),
        "steps": pa.list_(pa.int32()),
    }
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "small": st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1), st.integers(0, 130)),
            "flag": st.sampled_from([True, False, None]),
            "wide": st.one_of(st.none(), floats),
            "narrow": st.one_of(st.none(), single(floats)),
            "plan": categories,
            "text": categories,
            "grid": st.one_of(
                st.none(),
                st.lists(st.one_of(st.floats(0, 16), st.none(), floats), max_size=5),
                st.lists(st.floats(0, 16), min_size=4, max_size=4),
            ),
            "steps": st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=3)),
        }
    ),
    max_size=8,
)
FEATURES = [
    NumberFeature(field="small", min=18, max=120),
    NumberFeature(field="small", missing=Impute(impute=-1)),
    NumberFeature(field="flag", missing=Impute(impute=0)),
    NumberFeature(field="wide", min=-100, missing=Impute(impute=2.5)),
    NumberFeature(field="wide"),
    NumberFeature(field="narrow", max=120),
    OneHotFeature(field="plan", categories=PLANS),
    OneHotFeature(field="plan", categories=("standard", "gold"), unknown="ignore", missing="ignore"),
    OneHotFeature(field="text", categories=PLANS, missing="ignore"),
    OrdinalFeature(field="text", categories=PLANS),
    TensorFeature(field="grid", length=4, min=0, max=16),
    TensorFeature(field="steps", length=2, max=8),
]
INPUTS = st.builds(
    lambda features, dtype: InputSpec(name="X", dtype=dtype, features=tuple(features)),
    st.lists(st.sampled_from(FEATURES), min_size=1, max_size=4),
    st.sampled_from(["float32", "float64"]),
)


@given(rows=ROWS, spec=INPUTS, before=st.integers(0, 3), after=st.integers(0, 2))
def test_every_row_gets_the_verdict_and_the_numbers_of_a_plain_reading(rows, spec, before, after):
    filler = dict.fromkeys(SCHEMA.names)
    padded = columns_of([filler] * before + rows + [filler] * after, SCHEMA).table
    table = padded.slice(before, len(rows))  # a slice: Arrow offsets are not zero
    features = features_of(Columns(table, np.arange(len(rows), dtype=np.int64)), (spec,))
    expected = [reference_row(row, spec) for row in rows]
    with np.errstate(over="ignore"):
        scored = np.array([row for row in expected if isinstance(row, list)], np.float64).astype(spec.dtype)
    assert features.tensors["X"].dtype == np.dtype(spec.dtype)
    np.testing.assert_array_equal(features.tensors["X"], scored.reshape(-1, spec.width))
    assert features.rows.tolist() == [i for i, row in enumerate(expected) if isinstance(row, list)]
    refused = {i: row for i, row in enumerate(expected) if isinstance(row, Reason)}
    assert {rejection.row: rejection.reason for rejection in features.rejected} == refused


@given(rows=ROWS, spec=INPUTS)
def test_a_row_scored_alone_is_the_row_scored_in_any_batch(rows, spec):
    whole = features_of(columns_of(rows, SCHEMA), (spec,))
    plan = FeaturePlan((spec,), SCHEMA)
    alone = [plan.apply(columns_of([row], SCHEMA)) for row in rows]
    survivors = [one.tensors["X"] for one in alone if len(one.rows)]
    if survivors:
        np.testing.assert_array_equal(whole.tensors["X"], np.concatenate(survivors))
    assert [(r.reason, r.message) for r in whole.rejected] == [
        (r.reason, r.message) for one in alone for r in one.rejected
    ]


@given(rows=ROWS)
def test_several_inputs_agree_on_the_rows_that_survive(rows):
    first = InputSpec(name="A", features=(FEATURES[0],))
    second = InputSpec(name="B", dtype="int64", features=(FEATURES[9], FEATURES[2], FEATURES[11]))
    features = features_of(columns_of(rows, SCHEMA), (first, second))
    assert len(features.tensors["A"]) == len(features.tensors["B"]) == len(features.rows)
    reasons = {}
    for i, row in enumerate(rows):
        verdicts = [reference_row(row, spec) for spec in (first, second)]
        refusals = [verdict for verdict in verdicts if isinstance(verdict, Reason)]
        if refusals:
            reasons[i] = refusals[0]
    assert {rejection.row: rejection.reason for rejection in features.rejected} == reasons


EXTREMES = {
    "wide_int": (pa.int64(), (2**63 - 1, -(2**63), 2**53 + 1, 0)),
    "int": (pa.int32(), (2**31 - 1, -(2**31), 0)),
    "double": (pa.float64(), ODD_FLOATS),
    "text": (pa.string(), ("", "basic", "x" * 100_000, "\x00", "ü")),
    "doubles": (
        pa.list_(pa.float64()),
        ([], [math.nan, math.inf], [1.0, None], [None] * 2, [1e308, -1e308], [0.0] * 9),
    ),
    "longs": (pa.list_(pa.int64()), ([], [2**63 - 1, -(2**63)], [None, 1], [0, 0])),
}
TAKEN = {
    "wide_int": ("float32", "float64", "int32", "int64"),
    "int": ("float32", "int32"),
    "double": ("float32", "float64"),
    "text": ("float32", "int64"),
    "doubles": ("float32", "float64"),
    "longs": ("float32", "int32", "int64"),
}


@given(st.data(), st.sampled_from(sorted(EXTREMES)))
def test_whatever_a_column_has_ends_in_finite_tensors_or_in_rejections(data, name):
    kind, values = EXTREMES[name]
    rows = data.draw(st.lists(st.sampled_from([None, *values]), max_size=6))
    bounds = data.draw(st.sampled_from([{}, {"min": -1.5, "max": 1.5}, {"min": 2.0**63}, {"max": -(2.0**70)}]))
    if name == "text":
        feature = OneHotFeature(field=name, categories=PLANS)
    elif pa.types.is_list(kind):
        feature = TensorFeature(field=name, length=2, **bounds)
    else:
        feature = NumberFeature(field=name, **bounds)
    spec = InputSpec(name="X", dtype=data.draw(st.sampled_from(TAKEN[name])), features=(feature,))
    features = features_of(columns_of([{name: row} for row in rows], pa.schema({name: kind})), (spec,))
    assert sorted([*features.rows.tolist(), *(item.row for item in features.rejected)]) == list(range(len(rows)))
    assert features.tensors["X"].shape == (len(features.rows), spec.width)
    assert np.isfinite(features.tensors["X"]).all()
    assert all(len(item.message) < 250 for item in features.rejected)
