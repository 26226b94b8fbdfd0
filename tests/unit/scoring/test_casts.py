"""What files say → what features are made of."""

import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.records import Columns
from app.scoring.casts import ColumnCasts, castable, fields_of
from app.specs import InputSpec, NumberFeature, OneHotFeature, OrdinalFeature, TensorFeature

NUMBER = InputSpec(name="X", features=(NumberFeature(field="n"),))
WHOLE = InputSpec(name="X", dtype="int64", features=(NumberFeature(field="n"),))
PLAN = InputSpec(name="X", features=(OneHotFeature(field="n", categories=("1", "2")),))
PIXELS = InputSpec(name="X", features=(TensorFeature(field="n", length=2),))


def cast(spec, column):
    """(values, {row: reason}) of a column as the field of this input."""
    rows = pa.RecordBatch.from_pydict({"n": column, "other": column})
    columns, rejected = ColumnCasts((spec,), rows.schema).apply(Columns(rows, np.arange(len(column)) + 100))
    assert columns.table.schema.names == ["n"]
    assert [item.row for item in rejected] == sorted(item.row for item in rejected)
    assert sorted([*columns.rows.tolist(), *(item.row for item in rejected)]) == (np.arange(len(column)) + 100).tolist()
    return columns.table["n"].to_pylist(), {item.row - 100: item.reason.value for item in rejected}


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int8(), pa.int64(), pa.uint32(), pa.bool_()])
def test_a_column_of_numbers_is_passed_on_as_it_is(kind):
    column = pa.array([1, 0, None]).cast(kind)
    rows = pa.RecordBatch.from_pydict({"n": column})
    columns, rejected = ColumnCasts((NUMBER,), rows.schema).apply(Columns(rows, np.arange(3)))
    assert columns.table["n"].equals(column)
    assert not rejected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["1", " 2.5 ", "1e3", None]), [1.0, 2.5, 1000.0, None]),
        (pa.array(["1"], pa.large_string()), [1.0]),
        (pa.array([decimal.Decimal("1.25")]), [1.25]),
        (pa.array([7], pa.uint64()), [7.0]),
        (pa.nulls(2), [None, None]),
        (pa.array([1.5, 2.5]).dictionary_encode(), [1.5, 2.5]),
    ],
    ids=["text", "large text", "decimal", "uint64", "nothing", "dictionary of numbers"],
)
def test_what_can_be_a_number_becomes_one(column, expected):
    assert cast(NUMBER, column) == (expected, {})


@pytest.mark.parametrize("cell", ["", "abc", "1,5", "0x10", "1_000", "12 3", "é", "\x00", "9" * 400 + "x"])
def test_a_cell_that_is_no_number_rejects_its_row_alone(cell):
    assert cast(NUMBER, pa.array(["1", cell, "2"])) == ([1.0, 2.0], {1: "not_finite"})


def test_a_long_cell_is_quoted_in_part():
    rows = pa.RecordBatch.from_pydict({"n": pa.array(["x" * 10_000])})
    _, (rejection,) = ColumnCasts((NUMBER,), rows.schema).apply(Columns(rows, np.arange(1)))
    assert len(rejection.message) < 200


def test_whole_numbers_that_pandas_made_fractions_are_whole_again():
    assert cast(WHOLE, pa.array([1.0, None, 2.5, 3.0])) == ([1, None, 3], {2: "out_of_range"})
    assert cast(WHOLE, pa.array(["4", "4.5"])) == ([4], {1: "not_finite"})
    assert cast(WHOLE, pa.array([2**64 - 1, 5], pa.uint64())) == ([5], {0: "out_of_range"})


def test_categories_may_be_codes_or_bytes():
    assert cast(PLAN, pa.array([1, 2, None])) == (["1", "2", None], {})
    assert cast(PLAN, pa.array([b"1", b"\xff", b"2"])) == (["1", "2"], {1: "bad_utf8"})
    assert cast(PLAN, pa.array([1, 2]).dictionary_encode()) == (["1", "2"], {})


def test_lists_of_a_fixed_size_become_lists():
    fixed = pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2))
    assert cast(PIXELS, fixed) == ([[1.0, 2.0], None], {})
    assert cast(PIXELS, pa.nulls(1)) == ([None], {})


def test_a_row_is_rejected_for_its_first_bad_field():
    spec = InputSpec(name="X", features=(NumberFeature(field="a"), NumberFeature(field="b")))
    rows = pa.RecordBatch.from_pydict({"b": pa.array(["x", "y", "1"]), "a": pa.array(["z", "1", "1"])})
    _, rejected = ColumnCasts((spec,), rows.schema).apply(Columns(rows, np.arange(3)))
    assert [item.message.partition(" ")[0] for item in rejected] == ["a", "b"]


def test_fields_are_named_once_in_manifest_order():
    plan = OrdinalFeature(field="a", categories=("1",))
    assert fields_of((NUMBER, InputSpec(name="Y", features=(plan, NumberFeature(field="n"))))) == ["n", "a"]


cells = st.one_of(st.none(), st.text(max_size=6), st.floats(width=32).map(repr), st.integers().map(str))


@given(st.lists(cells, max_size=30))
def test_the_column_is_cast_as_each_cell_is_alone(values):
    column = pa.array(values, pa.string())
    found, bad = castable(column, pa.float64())
    expected, expected_bad = [], []
    for row, value in enumerate(values):
        try:
            expected.append(pa.array([value], pa.string()).cast(pa.float64())[0].as_py())
        except pa.ArrowInvalid:
            expected.append(None)
            expected_bad.append(row)
    assert found.type == pa.float64()
    assert bad.tolist() == expected_bad
    assert repr(found.to_pylist()) == repr(expected)
