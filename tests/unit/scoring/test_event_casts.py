"""Columns of files → columns of events, for handlers: each becomes the event's type, or its row is refused by name."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import SchemaIncompatible
from app.records import Columns
from app.scoring.casts import EventCasts

EVENT = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("age", pa.int32(), nullable=False),
        pa.field("income", pa.float64()),
        pa.field("plan", pa.dictionary(pa.int32(), pa.string())),
        pa.field("active", pa.bool_()),
        pa.field("pixels", pa.list_(pa.float32())),
        pa.field("at", pa.timestamp("ms", "UTC")),
    ]
)
AT_MS = 1_767_323_045_678


def cast_columns(name, column):
    """(the events, the rejected) of a file with this column alone."""
    table = pa.RecordBatch.from_arrays([column], names=[name])
    columns, rejected = EventCasts(EVENT).apply(Columns(table, np.arange(table.num_rows)))
    assert columns.table.schema == EVENT
    columns.table.validate(full=True)
    return columns, rejected


def cast(name, column):
    """(the event's column, its rows, the rejected) of a file with this column alone."""
    columns, rejected = cast_columns(name, column)
    return columns.table.column(name).to_pylist(), columns.rows.tolist(), rejected


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("id", pa.array([7, 8]), ["7", "8"]),
        ("id", pa.array([b"a", None]), ["a", None]),
        ("age", pa.array([34.0, None]), [34, None]),
        ("age", pa.array(["34", " 35 "]), [34, 35]),
        ("age", pa.array(["34.0", "-35.", None]), [34, -35, None]),
        ("income", pa.array([1, 2], pa.int8()), [1.0, 2.0]),
        ("income", pa.array(["1e3", "nan"]), [1000.0, pytest.approx(float("nan"), nan_ok=True)]),
        ("plan", pa.array(["basic", None]), ["basic", None]),
        ("plan", pa.array(["basic"]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())), ["basic"]),
        ("active", pa.array(["true", "0"]), [True, False]),
        ("pixels", pa.array([[1, 2], None], pa.large_list(pa.int64())), [[1.0, 2.0], None]),
        ("pixels", pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2)), [[1.0, 2.0]]),
        ("age", pa.nulls(2), [None, None]),
    ],
)  # fmt: skip
def test_a_column_becomes_the_events(name, column, expected):
    found, rows, rejected = cast(name, column)
    assert found == expected
    assert rows == list(range(len(column)))
    assert rejected == []


@pytest.mark.parametrize(
    "column",
    [
        pa.array([AT_MS], pa.int64()),
        pa.array([AT_MS], pa.timestamp("ms")),
        pa.array([AT_MS * 1_000_000 + 999_999], pa.timestamp("ns", "Europe/Berlin")),
        pa.array(["2026-01-02T03:04:05.678Z"]),
    ],
)
def test_a_time_is_a_time_whatever_its_unit(column):
    table = pa.RecordBatch.from_arrays([column], names=["at"])
    columns, rejected = EventCasts(EVENT).apply(Columns(table, np.arange(1)))
    assert columns.table.column("at").cast(pa.int64()).to_pylist() == [AT_MS]
    assert rejected == []


@pytest.mark.parametrize(
    ("name", "column", "reason", "said"),
    [
        ("age", pa.array([34.5, 1.0]), "out_of_range", "age is '34.5', not what int32 can hold"),
        ("age", pa.array([2**40, 1]), "out_of_range", "age is '1099511627776', not what int32 can hold"),
        ("age", pa.array(["old", "1"]), "not_finite", "age is 'old', allowed are finite numbers"),
        ("id", pa.array([b"\xff\xfe", b"x"]), "bad_utf8", "id is not UTF-8"),
        ("active", pa.array(["maybe", "1"]), "bad_shape", "active is 'maybe', which is no bool"),
        ("at", pa.array(["yesterday", "2026-01-02 03:04Z"]), "bad_shape", "at is 'yesterday', which is no timestamp"),
        ("at", pa.array([2**62, 0], pa.timestamp("s")), "out_of_range", "at is '4611686018427387904'"),
        ("age", pa.array(["9" * 5_000, "1"]), "not_finite", "…"),
    ],
)
def test_a_cell_that_cannot_be_cast_rejects_its_row_and_no_other(name, column, reason, said):
    _, rows, (rejection,) = cast(name, column)
    assert (rows, rejection.row, rejection.stage, rejection.reason) == ([1], 0, "decode", reason)
    assert said in rejection.message
    assert len(rejection.message) < 200


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("income", pa.array([[1.0]])),
        ("at", pa.array([1.5])),
        ("pixels", pa.array([1.0])),
        ("id", pa.array([{"a": 1}])),
        ("age", pa.array([0], pa.date64())),
    ],
)
def test_a_column_that_never_becomes_the_events_is_named(name, column):
    with pytest.raises(SchemaIncompatible, match=f"the column '{name}' is .*, events have"):
        cast(name, column)


def test_a_damaged_dictionary_is_an_error_of_arrow_and_no_crash():
    odd = pa.DictionaryArray.from_arrays(pa.array([70_000_000], pa.int32()), pa.array(["basic"]), safe=False)
    with pytest.raises(pa.ArrowInvalid):
        cast("plan", odd)


KINDS = {
    "text": (st.text(max_size=5), pa.string()),
    "bytes": (st.binary(max_size=5), pa.binary()),
    "whole": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "float": (st.floats(), pa.float64()),
    "truth": (st.booleans(), pa.bool_()),
    "seconds": (st.integers(-(2**62), 2**62), pa.timestamp("s")),
    "lists": (st.lists(st.floats(), max_size=3), pa.list_(pa.float64())),
}


@given(st.sampled_from(EVENT.names), st.sampled_from(sorted(KINDS)), st.data())
def test_whatever_a_file_holds_each_row_is_an_event_or_rejected_once(name, kind, data):
    values, arrow = KINDS[kind]
    column = pa.array(data.draw(st.lists(st.one_of(values, st.none()), max_size=8)), arrow)
    try:
        columns, rejected = cast_columns(name, column)  # as columns: not every moment of Arrow's is one of Python's
    except SchemaIncompatible:
        return
    assert sorted([*columns.rows.tolist(), *(item.row for item in rejected)]) == list(range(len(column)))
