"""What is written is read; what is malformed is refused with its reason, and its neighbours are read."""

import copy
import json
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from datums import (
    FRAMING,
    as_columns_say,
    comparable,
    datum,
    event,
    framed,
    header_of,
    read_by_fastavro,
    reasons,
    rows_of,
    schema_of,
    varint,
)
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import LOGICAL, LONGS, SYMBOLS, data_of, evolved_types, mutated, odd_types, records

from app.avro import datum_writer
from app.avro.columns import reader_columns
from app.avro.datum import check_datum
from app.avro.datum_reader import PIECE_ROWS, ColumnarReader, DatumReader, RecordReader, datum_reader
from app.avro.datum_writer import DatumWriter
from app.avro.few_rows import MOST_READ, MOST_WRITTEN
from app.avro.framing import ConfluentFraming
from app.avro.resolution import Resolution
from app.errors import DecodeFailed, Reason

SCHEMAS = Path(__file__).parents[3] / "schemas"
PLAN = {"type": "enum", "name": "Plan", "symbols": ["basic", "standard", "premium"]}
STRINGS = {"type": "array", "items": "string"}


def columnar(node: dict[str, Any], reader: dict[str, Any] | None = None) -> ColumnarReader:
    schema = schema_of(node)
    return ColumnarReader(FRAMING, header_of(node), schema, Resolution(schema, schema_of(reader or node)))


def by_record(node: dict[str, Any], reader: dict[str, Any] | None = None) -> RecordReader:
    schema = schema_of(node)
    return RecordReader(FRAMING, header_of(node), schema, Resolution(schema, schema_of(reader or node)))


READERS = pytest.mark.parametrize("reader_of", [columnar, by_record], ids=["columnar", "by_record"])


# ------------------------------------------------------------------------------------------ what is well formed


@given(st.data(), records())
def test_decode_of_encode_is_the_same_in_both_readers(data, node):
    events = data.draw(st.lists(data_of(node), max_size=6))
    values = [framed(node, value) for value in events]
    columns = reader_columns(schema_of(node))
    for reader in (columnar(node), by_record(node)):
        for decoded in (reader.read(values), reader.read_all(values)):
            assert decoded is not None
            assert decoded.failed == {}
            assert decoded.rows.tolist() == list(range(len(values)))
            assert decoded.table.schema == columns
            decoded.table.validate(full=True)
            assert rows_of(decoded.table) == [as_columns_say(value, columns) for value in events]


@given(st.data(), records(types=odd_types))
def test_any_schema_that_passes_the_gate_is_read(data, node):
    node["fields"].append({"name": "always", "type": "long"})
    events = data.draw(st.lists(data_of(node), max_size=4))
    values = [framed(node, value) for value in events]
    decoded = datum_reader(FRAMING, header_of(node), schema_of(node), schema_of(node)).read(values)
    assert decoded.failed == {}
    assert decoded.table.column("always").to_pylist() == [value["always"] for value in events]


@given(st.lists(st.tuples(LONGS, st.text(), st.sampled_from(SYMBOLS[:3]), st.floats()), max_size=80))
def test_whole_batches_are_read_in_order(rows):
    node = event("long", "string", PLAN, "double")
    events = [dict(zip(("f0", "f1", "f2", "f3"), row, strict=True)) for row in rows]
    decoded = columnar(node).read([framed(node, value) for value in events])
    assert rows_of(decoded.table) == [comparable(value) for value in events]


def test_the_columnar_reader_takes_what_streams_in_great_numbers_and_the_record_reader_what_it_cannot():
    for path in set(SCHEMAS.rglob("*.avsc")) - set(SCHEMAS.glob("*_summary.avsc")):
        schema = schema_of(json.loads(path.read_text(encoding="utf-8")))
        assert isinstance(datum_reader(FRAMING, b"", schema, schema), ColumnarReader)
    for odd in ("bytes", {"type": "map", "values": "int"}, {"type": "fixed", "name": "F", "size": 3}, ["int"],
                ["null", "int", "string"], {"type": "record", "name": "R", "fields": []},
                {"type": "array", "items": PLAN}, {"type": "array", "items": STRINGS}):  # fmt: skip
        schema = schema_of(event("int", odd))
        assert isinstance(datum_reader(FRAMING, b"", schema, schema), RecordReader)


@READERS
def test_arrays_in_several_blocks_with_and_without_sizes_are_read(reader_of):
    node = event({"type": "array", "items": "long"})
    blocks = [b"\x02\x02\x04\x04\x06\x00", b"\x03\x04\x02\x04\x02\x06\x00", b"\x03\x7e\x02\x04\x02\x06\x00", b"\x00"]
    decoded = reader_of(node).read([header_of(node) + block for block in blocks])
    assert decoded.table.column("f0").to_pylist() == [[1, 2, 3]] * 3 + [[]]


@READERS
@pytest.mark.parametrize(
    ("octets", "number"),
    [
        (b"\x82\x00", 1),  # longer than it need be
        (b"\x82" + b"\x80" * 8 + b"\x00", 1),
        (b"\xff" * 9 + b"\x01", -(2**63)),
        (b"\xfe" + b"\xff" * 8 + b"\x01", 2**63 - 1),
        (b"\xff" * 9 + b"\x7f", -(2**63)),  # bits beyond 64 are lost, as in every implementation
    ],
)
def test_every_way_to_write_a_long_is_read_alike(reader_of, octets, number):
    node = event("long")
    assert reader_of(node).read([header_of(node) + octets]).table.column("f0").to_pylist() == [number]


@READERS
def test_a_block_count_without_an_opposite_is_a_block_of_nothing_alone_and_beside_others(reader_of):
    node = event({"type": "array", "items": "long"}, "long")
    least = header_of(node) + b"\x02\x0e" + varint(-(2**63)) + b"\x06" + b"\x00\x02"
    for neighbours in ([], [header_of(node)], [framed(node, {"f0": [1], "f1": 2})]):
        assert rows_of(reader_of(node).read([least, *neighbours]).table)[0] == {"f0": [7], "f1": 1}


def test_what_becomes_no_column_is_never_built():
    """A million small records would be a million dicts."""
    node = event({"type": "array", "items": {"type": "map", "values": "boolean"}}, "long")
    octets = varint(500_000) + b"\x00" * 500_000 + b"\x00\x0e"
    reader = by_record(node)
    tracemalloc.start()
    try:
        decoded = reader.read([header_of(node) + octets])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows_of(decoded.table) == [{"f1": 7}]
    assert peak < 4_000_000


@READERS
def test_an_empty_list_of_values_gives_an_empty_table(reader_of):
    node = event("int", PLAN)
    decoded = reader_of(node).read([])
    assert (decoded.table.num_rows, len(decoded.rows), decoded.failed) == (0, 0, {})


@pytest.mark.parametrize("rows", [1, MOST_READ, MOST_READ + 1])
@pytest.mark.parametrize("types", [("long", "long"), ("long", "double"), ("int", "int"), (PLAN, PLAN)])
def test_a_field_of_another_name_is_read_for_few_rows_and_many(rows, types):
    writer = event({"name": "old", "type": types[0]}, {"name": "other", "type": "string"})
    reader = event(
        {"name": "new", "aliases": ["old"], "type": types[1]}, {"name": "again", "aliases": ["old"], "type": types[1]}
    )
    value = "standard" if types[0] is PLAN else 7
    for fields in (reader["fields"][:1], reader["fields"]):
        node = {**reader, "fields": [dict(field) for field in fields]}
        if types[1] is PLAN and len(fields) == 2:
            node["fields"][1]["type"] = "Plan"  # defined above
        values = [framed(writer, {"old": value, "other": "x"})] * rows
        decoded = columnar(writer, node).read_all(values)
        assert rows_of(decoded.table) == [{field["name"]: value for field in fields}] * rows


@given(st.data(), records())
def test_few_rows_are_read_as_the_columnar_codec_does_or_left_to_it(data, writer):
    """Whatever the reader's schema; `read` never has them read one by one."""
    reader = copy.deepcopy(writer)
    for field in reader["fields"]:
        if data.draw(st.booleans()):
            field["type"] = data.draw(evolved_types(field["type"]))
    try:
        made = columnar(writer, reader)
    except DecodeFailed:
        return
    values = [framed(writer, value) for value in data.draw(st.lists(data_of(writer), min_size=1, max_size=MOST_READ))]
    if data.draw(st.booleans()):
        values.append(data.draw(mutated(values[0], FRAMING.size)))
    expected, found = made.read(values), made.read_all(values)
    assert (found is None) == bool(expected.failed)
    if found is not None:
        assert found.table.schema == expected.table.schema
        assert str(rows_of(found.table)) == str(rows_of(expected.table))  # as text NaN is like NaN


@READERS
def test_read_all_takes_everything_or_nothing(reader_of):
    node = event("int")
    good = framed(node, {"f0": 1})
    assert reader_of(node).read_all([good, good]).table.column("f0").to_pylist() == [1, 1]
    assert reader_of(node).read_all([good, good + b"\x00"]) is None
    assert reader_of(node).read_all([good, header_of(event("long")) + b"\x02"]) is None


# ------------------------------------------------------------------------------------------ what is malformed

EVERYTHING = event(
    {"name": "flag", "type": "boolean"},
    {"name": "small", "type": "int"},
    {"name": "wide", "type": "long"},
    {"name": "single", "type": "float"},
    {"name": "text", "type": "string"},
    {"name": "plan", "type": PLAN},
    {"name": "maybe", "type": ["null", "int"]},
    {"name": "texts", "type": STRINGS},
    {"name": "day", "type": LOGICAL[0]},
    {"name": "ints", "type": {"type": "array", "items": ["null", "int"]}},
)
PARTS = {
    "flag": b"\x01", "small": b"\x02", "wide": b"\x04", "single": b"\x00\x00\x80\x3f", "text": b"\x04ab",
    "plan": b"\x02", "maybe": b"\x02\x08", "texts": b"\x02\x02x\x00", "day": b"\x0a", "ints": b"\x04\x00\x02\x02\x00",
}  # fmt: skip
GOOD = {
    "flag": True, "small": 1, "wide": 2, "single": 1.0, "text": "ab",
    "plan": "standard", "maybe": 4, "texts": ["x"], "day": 5, "ints": [None, 1],
}  # fmt: skip


def with_part(name: str, octets: bytes) -> bytes:
    return b"".join(octets if part == name else PARTS[part] for part in PARTS)


MALFORMED = [
    (with_part("flag", b"\x02"), Reason.OUT_OF_RANGE),
    (with_part("small", varint(2**31)), Reason.OUT_OF_RANGE),
    (with_part("small", varint(-(2**31) - 1)), Reason.OUT_OF_RANGE),
    (with_part("small", varint(2**63 - 1)), Reason.OUT_OF_RANGE),
    (with_part("wide", b"\x80" * 10 + b"\x01"), Reason.OUT_OF_RANGE),
    (with_part("day", varint(2**31)), Reason.OUT_OF_RANGE),
    (with_part("maybe", b"\x02" + varint(2**31)), Reason.OUT_OF_RANGE),
    (with_part("ints", b"\x02\x02" + varint(2**31) + b"\x00"), Reason.OUT_OF_RANGE),
    (with_part("text", b"\x04\xff\xfe"), Reason.BAD_UTF8),
    (with_part("text", b"\x06\xed\xa0\x80"), Reason.BAD_UTF8),  # a lone surrogate
    (with_part("text", b"\x04\xc0\x80"), Reason.BAD_UTF8),  # an overlong zero
    (with_part("texts", b"\x04\x02a\x02\xff\x00"), Reason.BAD_UTF8),
    (with_part("plan", varint(3)), Reason.BAD_INDEX),
    (with_part("plan", varint(-1)), Reason.BAD_INDEX),
    (with_part("plan", varint(2**32)), Reason.BAD_INDEX),
    (with_part("plan", varint(-(2**63))), Reason.BAD_INDEX),
    (with_part("maybe", varint(2) + b"\x08"), Reason.BAD_INDEX),
    (with_part("maybe", varint(-1) + b"\x08"), Reason.BAD_INDEX),
    (with_part("maybe", varint(2**32 + 1) + b"\x08"), Reason.BAD_INDEX),
    (with_part("ints", b"\x02\x03\x02\x00"), Reason.BAD_INDEX),
    (with_part("text", varint(-1)), Reason.TRUNCATED),
    (with_part("text", varint(2**60)), Reason.TRUNCATED),
    (with_part("texts", varint(2**40)), Reason.TRUNCATED),
    (with_part("texts", varint(-(2**63)) + b"\x02"), Reason.TRUNCATED),
    (with_part("ints", b"\x02\x02\x02"), Reason.TRUNCATED),
    (with_part("ints", b""), Reason.TRUNCATED),
    (b"", Reason.TRUNCATED),
    (with_part("ints", PARTS["ints"] + b"\x00"), Reason.TRAILING_BYTES),
    (with_part("ints", PARTS["ints"] + bytes(8)), Reason.TRAILING_BYTES),
    (with_part("ints", PARTS["ints"] + bytes(5000)), Reason.TRAILING_BYTES),
]


@READERS
@pytest.mark.parametrize(("body", "reason"), MALFORMED)
def test_a_malformed_datum_is_rejected_with_its_reason_and_its_neighbours_are_read(reader_of, body, reason):
    good = framed(EVERYTHING, GOOD)
    assert good == header_of(EVERYTHING) + b"".join(PARTS.values())
    reader = reader_of(EVERYTHING)
    values = [good, header_of(EVERYTHING) + body, good]
    assert reader.read_all(values) is None
    decoded = reader.read(values)
    assert reasons(decoded) == {1: reason.value}
    assert decoded.rows.tolist() == [0, 2]
    assert rows_of(decoded.table) == [GOOD, GOOD]


@READERS
@pytest.mark.parametrize(("body", "reason"), MALFORMED)
def test_a_fault_in_a_field_that_the_reader_drops_is_a_fault(reader_of, body, reason):
    reader = event({"name": "other", "type": "int", "default": 3})
    values = [header_of(EVERYTHING) + body, framed(EVERYTHING, GOOD)]
    decoded = reader_of(EVERYTHING, reader).read(values)
    assert reasons(decoded) == {0: reason.value}
    assert rows_of(decoded.table) == [{"other": 3}]


@READERS
def test_of_several_faults_the_first_one_in_writing_order_counts(reader_of):
    writer, reader = event("int", PLAN, "string"), event("string")
    reader["fields"] = [{"name": "f1", "type": {**PLAN, "symbols": ["basic"]}}, {"name": "f0", "type": "int"}]
    header = header_of(writer)
    values = [
        header + varint(2**31) + b"\x09" + b"\x00",
        header + b"\x02" + b"\x09" + b"\x02\xff",
        header + b"\x02" + b"\x02" + b"\x00" + b"trailing",
    ]
    assert list(reasons(reader_of(writer, reader).read(values)).values()) == [
        "out_of_range",
        "bad_index",
        "trailing_bytes",
    ]


@pytest.mark.parametrize(
    ("node", "body", "message"),
    [
        (event({"name": "age", "type": "int"}), varint(2**31), "age: 2147483648 does not fit int"),
        (event({"name": "plan", "type": PLAN}), varint(9), "plan: enum index 9, allowed 0 to 2"),
        (event({"name": "maybe", "type": ["null", "int"]}), varint(-7), "maybe: union branch index -7, allowed 0 to 1"),
        (event({"name": "name", "type": "string"}), b"\x06a\xff\xfe", "name: invalid start byte at byte 1"),
        (event({"name": "name", "type": "string"}), b"\x06a", "name: needs 3 bytes at byte 11, 1 are left"),
        (event({"name": "xs", "type": {"type": "array", "items": "int"}}), b"\x02" + varint(2**40), r"xs\[\]: 1099"),
        (event({"name": "m", "type": {"type": "map", "values": "int"}}), b"\x02\x02a", r"m\{\}: needs 1 byte"),
        (
            event({"name": "r", "type": {"type": "record", "name": "R", "fields": [{"name": "x", "type": "boolean"}]}}),
            b"\x05",
            r"r\.x: boolean byte 0x05",
        ),
        (event("int"), b"\x02\x00\x00", "2 bytes follow the end of the datum"),
    ],
)
def test_the_message_names_the_field_and_what_is_allowed(node, body, message):
    decoded = datum_reader(FRAMING, header_of(node), schema_of(node), schema_of(node)).read([header_of(node) + body])
    with pytest.raises(DecodeFailed, match=message):
        raise decoded.failed[0]


@READERS
@given(rows=st.lists(st.sampled_from([None, *range(0, len(MALFORMED), 3)]), max_size=3 * PIECE_ROWS[-1]))
def test_any_mixture_of_good_and_malformed_is_told_apart(reader_of, rows):
    header, good = header_of(EVERYTHING), framed(EVERYTHING, GOOD)
    values = [good if row is None else header + MALFORMED[row][0] for row in rows]
    decoded = reader_of(EVERYTHING).read(values)
    assert reasons(decoded) == {at: MALFORMED[row][1].value for at, row in enumerate(rows) if row is not None}
    assert decoded.rows.tolist() == [at for at, row in enumerate(rows) if row is None]
    assert rows_of(decoded.table) == [GOOD] * len(decoded.rows)


@READERS
@pytest.mark.parametrize("bad", [[0], [PIECE_ROWS[0] - 1, PIECE_ROWS[0]], [7, 1_000, 1_001, 1_599]])
def test_bad_data_are_found_among_many(reader_of, bad):
    header, good = header_of(EVERYTHING), framed(EVERYTHING, GOOD)
    values = [header + MALFORMED[0][0] if row in bad else good for row in range(1_600)]
    decoded = reader_of(EVERYTHING).read(values)
    assert reasons(decoded) == dict.fromkeys(bad, MALFORMED[0][1].value)
    assert decoded.rows.tolist() == [row for row in range(1_600) if row not in bad]


ODD = event(
    "int", "bytes", {"type": "map", "values": ["null", "string"]}, {"type": "fixed", "name": "F", "size": 2},
    ["long", "string", "double"], {"type": "array", "items": {"type": "array", "items": PLAN}},
    {"type": "record", "name": "R", "fields": [{"name": "x", "type": ["null", "boolean"]}]},
)  # fmt: skip
FUZZED = [
    EVERYTHING,
    ODD,
    event(["null", PLAN], ["string", "null"], {"type": "array", "items": ["null", "boolean"]}),
    event("null", LOGICAL[1], "double", {"type": "array", "items": LOGICAL[2]}),
    *(json.loads((SCHEMAS / name).read_text(encoding="utf-8")) for name in ("churn_event.avsc", "digit_event.avsc")),
]


@given(data=st.data(), node=st.sampled_from(FUZZED))
def test_a_mutated_datum_is_read_as_the_judge_and_fastavro_say_or_rejected(data, node):
    schema, header = schema_of(node), header_of(node)
    good = data.draw(data_of(node))
    value = framed(node, good)
    changed = [data.draw(mutated(value, FRAMING.size)) for _ in range(2)]
    decoded = datum_reader(FRAMING, header, schema, schema).read([value, changed[0], value, changed[1]])
    columns = reader_columns(schema)
    expected, refused = {0: good, 2: good}, {}
    for at, octets in ((1, changed[0]), (3, changed[1])):
        try:
            check_datum(schema.inlined, octets, FRAMING.size)
            expected[at] = read_by_fastavro(octets, node)
        except DecodeFailed as exc:
            refused[at] = exc.reason.value
    assert reasons(decoded) == refused
    assert decoded.rows.tolist() == sorted(expected)
    assert rows_of(decoded.table) == [as_columns_say(expected[at], columns) for at in sorted(expected)]


@given(st.binary(max_size=60), st.sampled_from(FUZZED))
@example(b"\x01" * 30, EVERYTHING)
def test_random_bytes_never_crash_a_reader(octets, node):
    reader = datum_reader(FRAMING, header_of(node), schema_of(node), schema_of(node))
    decoded = reader.read([header_of(node) + octets])
    assert len(decoded.rows) + len(decoded.failed) == 1


def test_a_codec_that_disagrees_with_the_judge_loses_no_neighbouring_schema():
    class Stubborn(ColumnarReader):
        def _decode(self, values):
            if values:
                from app.avro.datum_reader import _NotOneBatch

                raise _NotOneBatch("no")
            return super()._decode(values)

    node = event("int")
    schema = schema_of(node)
    reader: DatumReader = Stubborn(FRAMING, header_of(node), schema, Resolution(schema, schema))
    decoded = reader.read([framed(node, {"f0": 1}), header_of(node)])
    assert reasons(decoded) == {0: "unsupported_schema", 1: "truncated"}
    assert decoded.table.num_rows == 0


# ------------------------------------------------------------------------------------------ writing


def writer_of(node: dict[str, Any]) -> DatumWriter:
    return DatumWriter(FRAMING, header_of(node), schema_of(node))


WRITABLE = st.sampled_from(
    [
        *("boolean", "int", "long", "float", "double", "string"),
        *LOGICAL,
        *({"type": "array", "items": item} for item in ("int", "double", "string", "boolean")),
    ]
)


@given(
    data=st.data(),
    types=st.lists(st.tuples(WRITABLE, st.sampled_from(["", "first", "last"])), min_size=1, max_size=5),
    most_by_row=st.sampled_from([0, MOST_WRITTEN]),
)
def test_fastavro_reads_what_is_written(data, types, most_by_row):
    node = event(*(
        kind if null == "" else ["null", kind] if null == "first" else [kind, "null"] for kind, null in types
    ))  # fmt: skip
    rows = data.draw(st.lists(data_of(node), max_size=5))
    skipped = data.draw(st.integers(0, len(rows)))
    writer = writer_of(node)
    columns = {}
    for item in writer.fields:
        values = [row[item.name] for row in rows]
        plain = pa.int64() if pa.types.is_timestamp(item.type) else pa.int32()
        column = (
            pa.array(values, plain).cast(item.type) if pa.types.is_temporal(item.type) else pa.array(values, item.type)
        )
        columns[item.name] = column.slice(skipped)
    with mock.patch.object(datum_writer, "MOST_WRITTEN", most_by_row):
        written = writer.write(columns, len(rows) - skipped)
    assert [value[: FRAMING.size] for value in written] == [header_of(node)] * len(written)
    assert [comparable(read_by_fastavro(value, node)) for value in written] == [
        comparable(row) for row in rows[skipped:]
    ]


@given(st.integers(1, 3 * MOST_WRITTEN), st.booleans())
def test_few_rows_and_many_are_written_alike(rows, with_arrays):
    moment = {"type": "long", "logicalType": "timestamp-millis"}
    columns = [
        ("string", pa.array([f"key {row} ä" for row in range(rows)])),
        ("double", pa.array([row / 7 for row in range(rows)])),
        (["null", "long"], pa.array([row**5 if row % 3 else None for row in range(rows)], pa.int64())),
        (moment, pa.array(list(range(rows)), pa.int64())),
    ]
    if with_arrays:
        columns += [
            (
                {"type": "array", "items": "double"},
                pa.array([[0.5] * (row % 4) for row in range(rows)], pa.list_(pa.float64())),
            ),
            ({"type": "array", "items": moment}, pa.array([[row] for row in range(rows)], pa.list_(pa.int64()))),
        ]
    writer = writer_of(event(*(kind for kind, _ in columns)))
    wanted = {item.name: column.cast(item.type) for item, (_, column) in zip(writer.fields, columns, strict=True)}
    one_by_one = [writer.write({name: c.slice(row, 1) for name, c in wanted.items()}, 1)[0] for row in range(rows)]
    assert writer.write(wanted, rows) == one_by_one


def test_the_confluent_header_is_written_as_well():
    node = event("int")
    header = ConfluentFraming.header(0xA07F)
    written = DatumWriter(ConfluentFraming(), header, schema_of(node)).write({"f0": pa.array([1], pa.int32())}, 1)
    assert written == [header + datum(node, {"f0": 1})]


@pytest.mark.parametrize(
    ("kind", "column", "message"),
    [
        ("int", pa.array([1, None], pa.int32()), "f0: 1 nulls"),
        ("string", pa.array([None, None], pa.string()), "f0: 2 nulls"),
        ({"type": "array", "items": "int"}, pa.array([[1], None], pa.list_(pa.int32())), "f0: 1 nulls"),
        ({"type": "array", "items": "int"}, pa.array([[1], [None]], pa.list_(pa.int32())), "f0: 1 nulls"),
        ("int", pa.array([1, 2], pa.int64()), "f0: int64, the field is int32"),
        ("double", pa.array([1, 2], pa.float32()), "f0: float, the field is double"),
        ("string", pa.array([1, 2], pa.int32()), "f0: int32, the field is string"),
        ("int", pa.array([1], pa.int32()), "f0: 1 rows, not 2"),
        ("int", pa.array([1, 2, 3], pa.int32()), "f0: 3 rows, not 2"),
    ],
)
def test_a_column_with_nulls_or_of_another_type_or_length_is_not_written(kind, column, message):
    with pytest.raises(ValueError, match=message):
        writer_of(event(kind)).write({"f0": column}, 2)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("int", [1, None], "f0: 1 nulls"),
        ("boolean", [None, None], "f0: 2 nulls"),
        ("int", [1], "f0: 1 rows, not 2"),
        ({"type": "array", "items": "int"}, [[], []], "2 rows, or rows of arrays, are written in columns"),
    ],
)
def test_plain_values_with_nulls_or_of_another_length_are_not_written(kind, values, message):
    with pytest.raises(ValueError, match=message):
        writer_of(event(kind)).write_values([values], 2)


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="f1: no column"):
        writer_of(event("int", "int")).write({"f0": pa.array([1], pa.int32())}, 1)


@pytest.mark.parametrize("kind", ["bytes", {"type": "map", "values": "int"}, {"type": "fixed", "name": "F", "size": 1},
                                  ["int", "string"], {"type": "record", "name": "R", "fields": []}])  # fmt: skip
def test_a_schema_that_cannot_be_written_in_columns_is_refused(kind):
    with pytest.raises(DecodeFailed, match="cannot be written in columns") as caught:
        writer_of(event(kind))
    assert caught.value.reason is Reason.UNSUPPORTED_SCHEMA


def test_sliced_columns_are_written_from_where_they_start():
    column = pa.array(["a", "b", "c"]).slice(1)
    written = writer_of(event("string")).write({"f0": column}, 2)
    assert [value[-1:] for value in written] == [b"b", b"c"]


def test_no_rows_are_written_as_none():
    assert writer_of(event("int")).write({"f0": pa.array([], pa.int32())}, 0) == []


def test_enums_are_written_and_read():
    writer = writer_of(event(PLAN))
    kind = writer.fields.field("f0").type
    strings = pa.array(["premium", "basic"])
    column = strings.cast(kind) if kind != strings.type else strings
    assert [value[-1] for value in writer.write({"f0": column}, 2)] == [4, 0]


# ------------------------------------------------------------------------------------------ the shipped schemas


@pytest.mark.parametrize(("name", "versions"), [("churn_event", 3), ("digit_event", 2)])
@given(data=st.data())
def test_every_version_in_history_is_read_as_todays_schema(name, versions, data):
    load = lambda path: json.loads((SCHEMAS / path).read_text(encoding="utf-8"))  # noqa: E731
    reader = load(f"{name}.avsc")
    columns = reader_columns(schema_of(reader))
    for version in range(1, versions + 1):
        writer = load(f"history/{name}_v{version}.avsc")
        events = data.draw(st.lists(data_of(writer), min_size=1, max_size=3))
        values = [framed(writer, value) for value in events]
        decoded = datum_reader(FRAMING, header_of(writer), schema_of(writer), schema_of(reader)).read(values)
        expected = [as_columns_say(read_by_fastavro(value, writer, reader), columns) for value in values]
        assert rows_of(decoded.table) == expected


def test_a_batch_of_many_thousand_rows_is_read_at_once():
    node = event("long", {"type": "array", "items": "float"})
    decoded = columnar(node).read([framed(node, {"f0": i, "f1": [float(i % 7)]}) for i in range(5000)])
    np.testing.assert_array_equal(decoded.table.column("f0").to_numpy(), np.arange(5000))
