"""A writer's datum becomes the reader's value that fastavro, resolving the same two schemas, gives."""

import copy
import json
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from datums import (
    FRAMING,
    as_columns_say,
    comparable,
    event,
    framed,
    header_of,
    read_by_fastavro,
    reasons,
    rows_of,
    schema_of,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import data_of, evolved, odd_types, records

from app.avro.columns import may_have_null_items, no_columns, reader_columns
from app.avro.datum_reader import ColumnarReader, Decoded, RecordReader, datum_reader
from app.avro.resolution import Resolution
from app.errors import DecodeFailed, Reason

PLAN = {"type": "enum", "name": "Plan", "symbols": ["basic", "standard", "premium"]}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
DATE = {"type": "int", "logicalType": "date"}


def read(writer: dict[str, Any], reader: dict[str, Any], *events: Any) -> Decoded:
    header = header_of(writer)
    decoder = datum_reader(FRAMING, header, schema_of(writer), schema_of(reader))
    return decoder.read([framed(writer, value) for value in events])


def resolved(source: Any, target: Any, *values: Any) -> list[Any]:
    decoded = read(event(source), event(target), *({"f0": value} for value in values))
    assert not decoded.failed
    return [row["f0"] for row in rows_of(decoded.table)]


def refused(writer: dict[str, Any], reader: dict[str, Any]) -> str:
    with pytest.raises(DecodeFailed) as caught:
        Resolution(schema_of(writer), schema_of(reader))
    assert caught.value.reason is Reason.UNSUPPORTED_SCHEMA
    return str(caught.value)


# ---------------------------------------------------------------------------------------------- the oracle


@st.composite
def pairs(draw: st.DrawFn, types: Any = None) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    writer = draw(records() if types is None else records(types=types))
    reader = draw(evolved(writer))
    return writer, reader, draw(st.lists(data_of(writer), max_size=5))


def check_against_fastavro(writer: dict[str, Any], reader: dict[str, Any], events: list[Any]) -> None:
    values = [framed(writer, value) for value in events]
    columns = reader_columns(schema_of(reader))
    decoded = datum_reader(FRAMING, header_of(writer), schema_of(writer), schema_of(reader)).read(values)
    assert decoded.table.schema == columns
    expected = {}
    for row, value in enumerate(values):
        try:
            expected[row] = as_columns_say(read_by_fastavro(value, writer, reader), columns)
        except (fastavro.read.SchemaResolutionError, ValueError):
            assert decoded.failed[row].reason in {Reason.MISSING_VALUE, Reason.UNKNOWN_CATEGORY}
    assert decoded.rows.tolist() == list(expected)
    assert decoded.failed.keys() == set(range(len(values))) - expected.keys()
    if columns.names:
        assert rows_of(decoded.table) == list(expected.values())
    else:
        assert decoded.table.num_columns == 0


@given(pairs())
def test_columns_resolve_as_fastavro_resolves_records(pair):
    writer, reader, events = pair
    try:
        Resolution(schema_of(writer), schema_of(reader))
    except DecodeFailed:
        for value in events:  # then no datum of it resolves record by record either
            with pytest.raises((fastavro.read.SchemaResolutionError, ValueError)):
                read_by_fastavro(framed(writer, value), writer, reader)
        return
    check_against_fastavro(writer, reader, events)


@given(pairs(), st.integers(0, 4))
def test_both_readers_give_the_same_columns_and_reasons(pair, spoilt):
    writer, reader, events = pair
    schema, header = schema_of(writer), header_of(writer)
    try:
        resolution = Resolution(schema, schema_of(reader))
    except DecodeFailed:
        return
    values = [framed(writer, value) for value in events]
    if spoilt < len(values):
        values[spoilt] += b"\x00"
    columnar = ColumnarReader(FRAMING, header, schema, resolution).read(values)
    by_record = RecordReader(FRAMING, header, schema, resolution).read(values)
    assert columnar.table.schema == by_record.table.schema
    assert rows_of(columnar.table) == rows_of(by_record.table)
    assert columnar.rows.tolist() == by_record.rows.tolist()
    assert reasons(columnar) == reasons(by_record)


@given(st.data())
def test_whatever_a_writer_adds_the_reader_reads_its_own_fields(data):
    reader = data.draw(records(max_fields=3))
    extra = data.draw(odd_types("Extra"))
    writer = copy.deepcopy(reader)
    writer["fields"].insert(data.draw(st.integers(0, len(reader["fields"]))), {"name": "extra", "type": extra})
    check_against_fastavro(writer, reader, data.draw(st.lists(data_of(writer), min_size=1, max_size=3)))


# ---------------------------------------------------------------------------------------------- rule by rule


@pytest.mark.parametrize(
    ("source", "target"),
    [(s, t) for s, wider in [("int", "long float double"), ("long", "float double"), ("float", "double")]
     for t in wider.split()],
)  # fmt: skip
def test_numbers_are_promoted(source, target):
    assert resolved(source, target, 0, -3, 7) == [0, -3, 7]
    array = resolved({"type": "array", "items": source}, {"type": "array", "items": target}, [1, -2], [])
    assert array == [[1, -2], []]
    assert resolved(["null", source], ["null", target], None, 5) == [None, 5]


@pytest.mark.parametrize(
    ("source", "target"),
    [("long", "int"), ("double", "float"), ("double", "long"), ("string", "int"), ("boolean", "int"), ("int", "string"),
     ("null", "int"), ("int", PLAN), (PLAN, "string"), ("int", {"type": "array", "items": "int"}),
     (["int", "string"], "int"),
     ({"type": "array", "items": ["null", "int"]}, {"type": "array", "items": "int"}), ("bytes", "string")],
)  # fmt: skip
def test_what_does_not_promote_is_refused_by_name(source, target):
    message = refused(event({"name": "plan", "type": source}), event({"name": "plan", "type": target}))
    assert "'plan'" in message


@pytest.mark.parametrize(
    ("source", "target", "written", "expected"),
    [
        (MILLIS, MILLIS, 1_700_000_000_123, 1_700_000_000_123),
        ("long", MILLIS, -5, -5),
        (MILLIS, "long", -5, -5),
        (MILLIS, "double", 2**40, float(2**40)),
        (MILLIS, MICROS, 5, 5000),
        (MICROS, MILLIS, 5999, 5),
        (DATE, DATE, 2**31 - 1, 2**31 - 1),
        (DATE, "int", -(2**31), -(2**31)),
        (DATE, "float", 8, 8.0),
        ("int", DATE, 19_000, 19_000),
        ("int", MILLIS, 7, 7),
        ({"type": "array", "items": DATE}, {"type": "array", "items": "double"}, [1, 2], [1, 2]),
        ({"type": "array", "items": MICROS}, {"type": "array", "items": MILLIS}, [1000, 2999], [1, 2]),
        ({"type": "array", "items": "int"}, {"type": "array", "items": DATE}, [1], [1]),
        ({"type": "array", "items": MILLIS}, {"type": "array", "items": "float"}, [8], [8]),
        (["int"], "int", 7, 7),
        (["null"], ["null", "int"], None, None),
        ("null", ["null", "double"], None, None),
        ("null", ["null", PLAN], None, None),
        ("null", ["null", {"type": "array", "items": "int"}], None, None),
    ],
)
def test_times_and_odd_writers_resolve_in_both_readers(source, target, written, expected):
    assert resolved(source, target, written, written) == [expected] * 2
    beside_bytes = event(source, "bytes")  # only the record reader takes bytes
    decoded = read(beside_bytes, event(target), {"f0": written, "f1": b"x"})
    assert [row["f0"] for row in rows_of(decoded.table)] == [expected]


def test_symbols_match_by_name_and_unknown_ones_take_the_readers_default():
    new = {"type": "enum", "name": "Plan", "symbols": ["premium", "other", "basic"], "default": "other"}
    assert resolved(PLAN, new, "basic", "standard", "premium") == ["basic", "other", "premium"]
    assert resolved(["null", PLAN], ["null", new], "standard", None) == ["other", None]


def test_a_symbol_the_reader_lacks_rejects_its_row_alone():
    less = {"type": "enum", "name": "Plan", "symbols": ["premium", "basic"]}
    decoded = read(event(PLAN), event(less), {"f0": "basic"}, {"f0": "standard"}, {"f0": "premium"})
    assert reasons(decoded) == {1: "unknown_category"}
    assert decoded.table.column("f0").to_pylist() == ["basic", "premium"]
    assert "f0" in str(decoded.failed[1])


def test_a_null_that_the_reader_does_not_take_rejects_its_row_alone():
    decoded = read(event(["null", "double"]), event("double"), {"f0": 1.0}, {"f0": None}, {"f0": 2.0})
    assert reasons(decoded) == {1: "missing_value"}
    assert decoded.table.column("f0").to_pylist() == [1.0, 2.0]
    assert decoded.rows.tolist() == [0, 2]


def test_a_null_category_is_not_also_an_unknown_one():
    less = {"type": "enum", "name": "Plan", "symbols": ["other"]}
    decoded = read(event(["null", PLAN]), event(["null", less]), {"f0": None}, {"f0": "basic"})
    assert reasons(decoded) == {1: "unknown_category"}
    assert decoded.table.column("f0").to_pylist() == [None]


@pytest.mark.parametrize(
    ("kind", "default", "expected"),
    [
        ("int", 7, 7),
        ("string", "web", "web"),
        ("double", 1, 1.0),
        ("boolean", True, True),
        (["null", "double"], None, None),
        (["double", "null"], 2.5, 2.5),
        (["null", "double"], 2.5, 2.5),  # Avro 1.12: a default may be of any branch
        (PLAN, "standard", "standard"),
        (["null", PLAN], None, None),
        (["null", PLAN], "basic", "basic"),
        (MILLIS, 12, 12),
        (DATE, 12, 12),
        ({"type": "array", "items": "int"}, [1, 2], [1, 2]),
        ({"type": "array", "items": MILLIS}, [], []),
    ],
)
def test_a_field_the_writer_lacks_takes_the_readers_default(kind, default, expected):
    reader = event({"name": "x", "type": "long"}, {"name": "added", "type": kind, "default": default})
    decoded = read(event({"name": "x", "type": "int"}), reader, {"x": 1}, {"x": 2})
    assert rows_of(decoded.table) == [{"x": 1, "added": expected}, {"x": 2, "added": expected}]


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ({"type": "array", "items": "int"}, [1, None]),
        ({"type": "array", "items": "int"}, ["one"]),
        ({"type": "array", "items": "int"}, [2**31]),
        (MILLIS, 2**63),
    ],
)
def test_a_default_that_is_not_of_its_type_is_never_given(kind, default):
    reader = event({"name": "x", "type": "int", "default": 1}, {"name": "added", "type": kind, "default": default})
    assert "'added': default" in refused(event({"name": "x", "type": "int"}), reader)


def test_columns_tell_of_arrays_in_which_an_item_may_be_null():
    full, holey = {"type": "array", "items": "int"}, {"type": "array", "items": ["null", "int"]}
    columns = reader_columns(schema_of(event(full, holey, ["null", full], [holey, "null"], ["null", "int"])))
    assert [may_have_null_items(column) for column in columns] == [False, True, False, True, False]


def test_a_field_without_a_default_must_be_written():
    assert "lacks 'b', which has no default" in refused(
        event({"name": "a", "type": "int"}), event({"name": "b", "type": "int"})
    )


def test_even_a_field_that_is_no_column_must_be_written_or_have_a_default():
    assert "lacks 'b'" in refused(event("int"), event("int", {"name": "b", "type": "bytes"}))


def test_aliases_find_a_renamed_field_and_its_own_name_comes_first():
    reader = event({"name": "age", "aliases": ["years", "alter"], "type": "int"})
    decoded = read(event({"name": "alter", "type": "int"}), reader, {"alter": 5})
    assert rows_of(decoded.table) == [{"age": 5}]
    both = event({"name": "years", "type": "int"}, {"name": "age", "type": "int"})
    assert rows_of(read(both, reader, {"years": 1, "age": 2}).table) == [{"age": 2}]


def test_a_record_of_another_name_is_refused_unless_it_is_an_alias():
    assert "record 'Old' is not 'Event'" in refused(event("int", name="Old"), event("int"))
    decoded = read(event("int", name="Old"), event("int", aliases=["ns.Old"]), {"f0": 3})
    assert rows_of(decoded.table) == [{"f0": 3}]


def test_only_what_can_be_a_feature_becomes_a_column():
    reader = event(
        "int", "bytes", {"type": "map", "values": "int"}, ["null", "int", "string"], {"type": "array", "items": PLAN}
    )
    assert reader_columns(schema_of(reader)).names == ["f0"]
    event_ = {"f0": 1, "f1": b"", "f2": {}, "f3": "x", "f4": ["basic"]}
    assert rows_of(read(reader, reader, event_).table) == [{"f0": 1}]


def test_no_rows_still_have_the_readers_columns():
    reader = schema_of(event(PLAN, ["null", "double"], MILLIS, {"type": "array", "items": "float"}))
    assert no_columns(reader).schema == reader_columns(reader)
    assert [item.nullable for item in reader_columns(reader)] == [False, True, False, False]
    assert reader_columns(reader).types == [
        pa.dictionary(pa.int32(), pa.string()),
        pa.float64(),
        pa.timestamp("ms"),
        pa.list_(pa.float32()),
    ]


def test_every_batch_of_a_reader_has_the_readers_own_symbols():
    writer = event({"type": "enum", "name": "Plan", "symbols": ["premium"]})
    first, second = read(writer, event(PLAN), {"f0": "premium"}), read(event(PLAN), event(PLAN), {"f0": "basic"})
    assert first.table.column(0).dictionary.equals(second.table.column(0).dictionary)


def test_an_enum_default_that_is_no_symbol_never_reaches_a_decoder():
    bad = json.dumps(event({**PLAN, "default": "gold"}))
    with pytest.raises(DecodeFailed, match="schema refused"):
        schema_of(json.loads(bad))


def test_rounding_to_single_is_that_of_numpy():
    values = [2**24 + 1, 2**53 - 1, -(2**40) - 1]
    assert resolved("long", "float", *values) == [comparable(float(np.float32(value))) for value in values]
