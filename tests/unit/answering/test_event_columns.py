"""Rows as people write them become the columns that the stream would have decoded, or are refused by name."""

import math
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.answering.event_columns import EventColumns
from app.errors import Reason
from app.pipeline.features.plan import features_of
from app.specs import Impute, InputSpec, NumberFeature, OneHotFeature, OrdinalFeature, TensorFeature

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("age", pa.int32()),
        ("income", pa.float64()),
        ("plan", pa.dictionary(pa.int32(), pa.string())),
        ("pixels", pa.list_(pa.float32())),
        ("active", pa.bool_()),
        ("at", pa.timestamp("ms")),
    ]
)
INPUTS = (
    InputSpec(
        name="X",
        features=(
            NumberFeature(field="age", min=18, max=120),
            NumberFeature(field="income", missing=Impute(impute=5.0)),
            OneHotFeature(field="plan", categories=("basic", "standard", "premium")),
            TensorFeature(field="pixels", length=2),
            NumberFeature(field="active"),
            OrdinalFeature(field="plan", categories=("premium", "standard", "basic")),
        ),
    ),
)
GOOD = {"age": 34, "income": 2.5, "plan": "standard", "pixels": [1.0, 2.0], "active": True}
GOOD_VECTOR = [34, 2.5, 1, 1.0, 2.0, 1]


@pytest.fixture(scope="module")
def events():
    return EventColumns(SCHEMA, INPUTS)


def made_of(rows, events):
    return events.of_instances(rows) if rows and isinstance(rows[0], dict) else events.of_vectors(rows)


def why(made):
    return {row: item.message for row, item in made.refused.items()}


def test_a_vector_has_the_fields_of_the_manifest_in_its_order_each_once(events):
    assert [(p.field, p.start, p.width) for p in events.positions] == [
        ("age", 0, 1), ("income", 1, 1), ("plan", 2, 1), ("pixels", 3, 2), ("active", 5, 1),
    ]  # fmt: skip
    assert events.width == 6


def test_the_same_row_by_name_and_by_position_is_the_same_event(events):
    by_name, by_position = events.of_instances([GOOD]), events.of_vectors([GOOD_VECTOR])
    assert by_name.columns.table.to_pylist() == by_position.columns.table.to_pylist()
    assert by_name.columns.table.schema == by_position.columns.table.schema == SCHEMA
    tensors = features_of(by_name.columns, INPUTS).tensors["X"]
    np.testing.assert_array_equal(tensors, [[34, 2.5, 0, 1, 0, 1, 2, 1, 1]])


def test_an_array_of_numbers_is_as_good_as_lists(events):
    table = events.of_vectors(np.array([GOOD_VECTOR, GOOD_VECTOR])).columns.table
    assert table.equals(events.of_vectors([GOOD_VECTOR, GOOD_VECTOR]).columns.table)


@pytest.mark.parametrize("missing", [None, math.nan])
def test_null_and_nan_are_what_is_missing_in_a_vector(events, missing):
    columns = events.of_vectors([[34, missing, 1, 1, 2, 1], [missing, 1, 1, 1, 2, 1]]).columns
    features = features_of(columns, INPUTS)
    assert features.tensors["X"][0, 1] == 5.0
    assert [(item.row, item.reason, item.message) for item in features.rejected] == [
        (1, Reason.MISSING_VALUE, "age is missing")
    ]


def test_a_field_that_is_absent_is_missing(events):
    rejected = features_of(events.of_instances([{"income": 1}]).columns, INPUTS).rejected
    assert [item.message for item in rejected] == ["age is missing"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": 34.5}, "age is 34.5, expected a whole number of at most 32 bits"),
        ({"age": "34"}, "age is '34', expected a whole number of at most 32 bits"),
        ({"age": True}, "age is True, expected a whole number of at most 32 bits"),
        ({"age": 2**31}, "age is 2147483648, expected a whole number of at most 32 bits"),
        ({"age": 10**400}, f"age is 1{'0' * 63}…, expected a whole number of at most 32 bits"),
        ({"age": [34]}, "age is [34], expected a whole number of at most 32 bits"),
        ({"income": False}, "income is False, expected a number"),
        ({"income": {}}, "income is {}, expected a number"),
        ({"plan": 1}, "plan is 1, expected text"),
        ({"plan": b"basic"}, "plan is b'basic', expected text"),
        ({"plan": "\ud800"}, "plan is '\\ud800', expected text"),
        ({"pixels": "12"}, "pixels is '12', expected a list of numbers"),
        ({"pixels": [1, "2"]}, "pixels is [1, '2'], expected a list of numbers"),
        ({"pixels": [True, False]}, "pixels is [True, False], expected a list of numbers"),
        ({"pixels": [[1], [2]]}, "pixels is [[1], [2]], expected a list of numbers"),
        ({"active": 1}, "active is 1, expected true or false"),
        ({"at": "yesterday"}, "at is 'yesterday', expected milliseconds since 1970, a whole number"),
        ({"agee": 1}, "agee is no field of the events, which have id, age, income, plan, pixels, active, at"),
        ({"\ud800": 1}, "? is no field of the events, which have id, age, income, plan, pixels, active, at"),
    ],
)
def test_a_value_of_another_kind_refuses_its_row_alone_and_names_the_field(events, change, message):
    made = events.of_instances([GOOD, GOOD | change, GOOD])
    assert why(made) == {1: message}
    assert made.columns.rows.tolist() == [0, 2]
    assert made.columns.table.to_pylist() == [events.of_instances([GOOD]).columns.table.to_pylist()[0]] * 2


@pytest.mark.parametrize("row", [None, 5, "age", [1, 2], True], ids=str)
def test_what_is_no_object_is_refused(events, row):
    made = events.of_instances([GOOD, row])
    assert why(made) == {1: f"features is {row!r}, expected an object with fields"}


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (GOOD_VECTOR[:5], "features has length 5, allowed 6: age, income, plan, pixels, active"),
        ([], "features has length 0, allowed 6: age, income, plan, pixels, active"),
        (["34", *GOOD_VECTOR[1:]], "features[0] is '34', expected a number or null"),
        ([*GOOD_VECTOR[:5], True], "features[5] is True, expected a number or null"),
        ([[34], *GOOD_VECTOR[1:]], "features[0] is [34], expected a number or null"),
        ([34, 2.5, 7, 1, 2, 1], "plan is 7.0, allowed 0 (basic), 1 (standard), 2 (premium)"),
        ([34, 2.5, 0.5, 1, 2, 1], "plan is 0.5, allowed 0 (basic), 1 (standard), 2 (premium)"),
        ([34, 2.5, -1, 1, 2, 1], "plan is -1.0, allowed 0 (basic), 1 (standard), 2 (premium)"),
        ([34.5, 2.5, 1, 1, 2, 1], "age is 34.5, expected a whole number of at most 32 bits"),
        ([1e300, 2.5, 1, 1, 2, 1], "age is 1e+300, expected a whole number of at most 32 bits"),
        ([math.inf, 2.5, 1, 1, 2, 1], "age is inf, expected a whole number of at most 32 bits"),
        ([34, 2.5, 1, 1, 2, 2], "active is 2.0, expected 0 or 1"),
        (None, "features is None, expected a list of 6 numbers"),
        ("123456", "features is '123456', expected a list of 6 numbers"),
        ({"age": 1}, "features is {'age': 1}, expected a list of 6 numbers"),
    ],
)
def test_a_vector_that_is_none_is_refused_alone(events, vector, message):
    made = events.of_vectors([GOOD_VECTOR, vector, GOOD_VECTOR])
    assert why(made) == {1: message}
    assert made.columns.rows.tolist() == [0, 2]


@pytest.mark.parametrize("shape", [(2, 5), (2,), (2, 6, 1)], ids=str)
def test_an_array_of_another_shape_refuses_all_its_rows(events, shape):
    made = events.of_vectors(np.zeros(shape))
    assert set(made.refused) == {0, 1}
    assert all("allowed 6" in message for message in why(made).values())


def test_rows_that_are_far_too_long_cost_no_memory_beside_their_own(events):
    rows = np.zeros((4, 250_000), np.float32)
    tracemalloc.start()
    made = events.of_vectors(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(made.refused) == 4
    assert peak < rows.nbytes / 4


def test_numbers_too_large_for_the_field_reach_the_feature_step_as_infinite(events):
    made = events.of_vectors([[34, 1, 1, 1e300, 0, 1]])
    (rejected,) = features_of(made.columns, INPUTS).rejected
    assert rejected.message.startswith("pixels[0] is inf")


def test_values_that_are_only_odd_beside_one_another_are_both_taken(events):
    made = events.of_instances([GOOD | {"income": 2**62}, GOOD | {"income": 0.5}, GOOD | {"plan": "new"}])
    assert not made.refused
    assert made.columns.table.column("income").to_pylist()[:2] == [2.0**62, 0.5]


def test_no_rows_are_no_rows(events):
    assert events.of_instances([]).columns.table.num_rows == events.of_vectors([]).columns.table.num_rows == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
INSTANCES = st.fixed_dictionaries({}, optional=dict.fromkeys([*SCHEMA.names, "other"], JSON)) | JSON | st.just(GOOD)
VECTORS = st.lists(JSON, min_size=6, max_size=6) | JSON | st.just(GOOD_VECTOR)


@given(st.lists(INSTANCES, max_size=5))
def test_whatever_comes_by_name_each_row_is_an_event_or_refused_and_neighbours_do_not_matter(rows):
    _each_alone(EventColumns(SCHEMA, INPUTS).of_instances, rows)


@given(st.lists(VECTORS, max_size=5))
def test_whatever_comes_by_position_each_row_is_an_event_or_refused_and_neighbours_do_not_matter(rows):
    _each_alone(EventColumns(SCHEMA, INPUTS).of_vectors, rows)


def _each_alone(make, rows):
    together = make(rows)
    assert sorted([*together.columns.rows.tolist(), *together.refused]) == list(range(len(rows)))
    taken = dict(zip(together.columns.rows.tolist(), together.columns.table.to_pylist(), strict=True))
    for row, given_row in enumerate(rows):
        alone = make([given_row])
        if row in taken:
            assert repr(alone.columns.table.to_pylist()) == repr([taken[row]])
        else:
            assert alone.refused[0].message == together.refused[row].message
    features_of(together.columns, INPUTS)  # and the feature step has no trouble with any of it


NUMBERS = st.floats(-200, 200) | st.floats() | st.integers(-5, 130).map(float)


@example({"income": np.array([2**63], np.uint64), "plan": np.array([0], np.int8)})
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.fixed_dictionaries(
            {},
            optional={
                "age": st.one_of(
                    arrays.arrays(np.float64, n, elements=NUMBERS),
                    arrays.arrays(np.int64, n),
                    arrays.arrays(np.bool_, n),
                ),
                "income": arrays.arrays(np.float64, n, elements=NUMBERS) | arrays.arrays(np.uint64, n),
                "plan": st.lists(st.sampled_from(["basic", "gold", None]), min_size=n, max_size=n)
                | arrays.arrays(np.int8, n),
                "pixels": arrays.arrays(np.float64, (n, 2), elements=NUMBERS),
                "active": arrays.arrays(np.bool_, n) | arrays.arrays(np.float64, n, elements=NUMBERS),
                "at": arrays.arrays(np.int64, n, elements=st.integers(0, 2**40)),
            },
        ).filter(bool)
    )
)
def test_columns_are_the_same_events_and_refusals_as_their_rows(columns):
    events = EventColumns(SCHEMA, INPUTS)
    listed = {name: _without_nan(column) for name, column in columns.items()}
    by_row = events.of_instances([dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)])
    by_column = events.of_columns(columns)
    assert by_column.columns.table.equals(by_row.columns.table)
    assert by_column.columns.rows.tolist() == by_row.columns.rows.tolist()
    assert why(by_column) == why(by_row)


def _without_nan(column):
    values = column.tolist() if isinstance(column, np.ndarray) else column

    def cleaned(value):
        if isinstance(value, list):
            return [cleaned(each) for each in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return [cleaned(value) for value in values]


def test_a_column_that_is_no_field_refuses_every_row(events):
    made = events.of_columns({"agee": [1, 2], "age": [34, 35]})
    assert set(why(made)) == {0, 1}
    assert why(made)[1].startswith("agee is no field of the events")


@pytest.mark.parametrize("shape", [(2, 3, 1), (2, 3)])
def test_a_column_of_too_many_dimensions_refuses_its_rows_by_name(events, shape):
    assert [message[:7] for message in why(events.of_columns({"age": np.ones(shape)})).values()] == ["age is "] * 2


def test_a_column_of_32_bits_is_the_decimals_that_were_meant(events):
    made = events.of_columns({"income": np.array([0.1], np.float32)})
    assert made.columns.table["income"].to_pylist() == [0.1]


def test_a_column_of_one_number_a_row_may_have_a_second_axis(events):
    flat, stacked = (events.of_columns({"age": np.array(ages)}) for ages in ([34, 35], [[34], [35]]))
    assert flat.columns.table.equals(stacked.columns.table)
