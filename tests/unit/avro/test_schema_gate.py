"""The gate lets through what the decoders can take, and says where and why it refuses the rest."""

import json
from pathlib import Path

import fastavro.schema
import pytest
from datums import event, schema_of
from hypothesis import given
from hypothesis import strategies as st
from strategies import json_values, odd_types, records, schema_like

from app.avro.datum_reader import datum_reader
from app.avro.framing import SingleObjectFraming
from app.avro.schemas import MAX_DEPTH, MAX_IDLE_PARTS, MAX_MESSAGE, MAX_NODES, MAX_SCHEMA_BYTES, parse
from app.errors import DecodeFailed, Reason

SCHEMAS = Path(__file__).parents[3] / "schemas"

ENUM = {"type": "enum", "name": "Plan", "symbols": ["a", "b"]}
DIRECT = event({"name": "next", "type": ["null", "Event"]})
THROUGH_OTHERS = event(
    {"type": "record", "name": "B", "fields": [{"name": "c", "type": {"type": "map", "values": "Event"}}]}
)
THROUGH_A_LATER_USE = event(
    {"type": "record", "name": "B", "fields": [{"name": "x", "type": "int"}]},
    {"type": "record", "name": "C", "fields": [{"name": "again", "type": {"type": "array", "items": "C"}}]},
)
EMPTY_RECORD = {"type": "record", "name": "Empty", "fields": []}
ONLY_NOTHING = {
    "type": "record",
    "name": "Nothing",
    "fields": [{"name": "a", "type": "null"}, {"name": "b", "type": {"type": "fixed", "name": "F0", "size": 0}}],
}


def laughs(levels: int) -> dict:
    """Each type has ten fields of the one before: 10**levels types once references are followed."""
    leaf = {"type": "record", "name": "L0", "fields": [{"name": "x", "type": "int"}]}
    fields = [{"name": "l0", "type": leaf}]
    for level in range(1, levels + 1):
        inner = [{"name": f"x{i}", "type": f"L{level - 1}"} for i in range(10)]
        fields.append({"name": f"l{level}", "type": {"type": "record", "name": f"L{level}", "fields": inner}})
    return {"type": "record", "name": "Event", "fields": fields}


def nested(depth: int) -> dict:
    node: object = "int"
    for _ in range(depth):
        node = {"type": "array", "items": node}
    return event(node)


def array_of(items: object) -> dict:
    return event({"type": "array", "items": items})


def idle(parts: int, *fields: object) -> dict:
    """A record of so many parts that take no bytes, itself included, and those fields."""
    return event(*["null"] * (parts - 1), *fields, name="Idle")


def towers(depth: int) -> dict:
    """Records in records, at the bottom of which one boolean takes a byte."""
    node: object = "boolean"
    for level in range(depth):
        node = {"type": "record", "name": f"Level{level}", "fields": [{"name": "x", "type": node}]}
    return node


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (DIRECT, "Event contains itself"),
        (THROUGH_OTHERS, "Event contains itself"),
        (THROUGH_A_LATER_USE, "C contains itself"),
        (array_of("null"), "an array of items that take no bytes"),
        (array_of(EMPTY_RECORD), "an array of items that take no bytes"),
        (array_of(ONLY_NOTHING), "an array of items that take no bytes"),
        (array_of({"type": "fixed", "name": "F", "size": 0}), "an array of items that take no bytes"),
        (event({"type": "map", "values": {"type": "array", "items": "null"}}), "an array of items that take no bytes"),
        (array_of(idle(9, EMPTY_RECORD, ONLY_NOTHING)), "an array of items that take no bytes"),
        (array_of(idle(MAX_IDLE_PARTS + 1, "boolean")), "items of 17 parts that take no bytes, in 1 bytes"),
        (array_of(["null", idle(2 * MAX_IDLE_PARTS, "boolean")]), "items of 32 parts that take no bytes, in 1 bytes"),
        (event({"type": "map", "values": idle(MAX_IDLE_PARTS + 1)}), "items of 17 parts that take no bytes"),
        (array_of(towers(MAX_IDLE_PARTS + 1)), "items of 17 parts that take no bytes, in 1 bytes"),
        (event("Unheard"), "unknown type 'Unheard'"),
        (event({"name": "a", "type": {"type": "Unheard"}}), "unknown type 'Unheard'"),
        (event({"name": "a", "type": "Plan"}, ENUM), "unknown type 'Plan'"),
        (nested(MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH}"),
        (laughs(5), f"more than {MAX_NODES} types"),
        (event(["null", ["int", "long"]]), "none of them may be a union"),
        (event(["null", {"type": ["int", "long"]}]), "none of them may be a union"),
        (event([]), "a union must have branches"),
        (event(["int", "int"]), "a union with int twice"),
        (event([{"type": "map", "values": "int"}, {"type": "map", "values": "long"}]), "a union with map twice"),
        (event({"type": "fixed", "name": "F", "size": -5}), "F has the size -5"),
        (event({"type": "fixed", "name": "F", "size": "5"}), "F has the size '5'"),
        (event({"type": "fixed", "name": "F", "size": True}), "F has the size True"),
        (event({"name": "a", "type": "int"}, {"name": "a", "type": "long"}), "two fields named 'a'"),
        (event({**ENUM, "default": "c"}), "not a valid Avro schema"),
        (event({**ENUM, "symbols": "abc"}), "'Plan': symbols must be a list of strings"),
        (event({**ENUM, "symbols": ["a", 1]}), "'Plan': symbols must be a list of strings"),
        (event({"name": "a", "type": "int", "aliases": [["b"]]}), "'a': aliases must be a list of strings"),
        (event("int", aliases="Old"), "'Event': aliases must be a list of strings"),
        (event({"type": "map", "values": "Event"}), "Event contains itself"),
        (event(["null", {"type": "array", "items": ["null", "Event"]}]), "Event contains itself"),
        (event({"name": "a", "type": "boolean", "default": "yes"}), "Default value"),
        (event({"name": "a", "type": "int", "default": float("inf")}), "Default value"),
        (event({**ENUM, "symbols": ["a", "a"]}), "not a valid Avro schema"),
        (event({"type": "enum", "symbols": ["a"]}), "not a valid Avro schema"),
        (event(ENUM, {"name": "again", "type": {**ENUM, "symbols": ["c"]}}), "redefined"),
        (event({"name": "a", "type": "int", "default": "x"}), "Default value"),
        (event(5), "not a valid Avro schema"),
        (event("int", __fastavro_parsed__=True), "an instruction to a library"),
        (event("int", __named_schemas={"X": {}}), "an instruction to a library"),
        (event({**ENUM, "__fastavro_parsed__": True}), "an instruction to a library"),
        ("int", "the top level must be a record"),
        (["null", event("int")], "the top level must be a record"),
        ([], "a union must have branches"),
        (None, "not a valid Avro schema"),
        (7, "not a valid Avro schema"),
        ({}, "not a valid Avro schema"),
        ({"type": "record", "name": "Event"}, "not a valid Avro schema"),
        ({"type": "record", "name": "Event", "fields": None}, "not a valid Avro schema"),
        ({"type": "record", "name": "\ud800", "fields": []}, "not a valid Avro schema"),
    ],
)
def test_a_schema_that_would_hurt_a_decoder_or_is_none_is_refused(schema, message):
    with pytest.raises(DecodeFailed, match=message) as caught:
        parse(json.dumps(schema))
    assert caught.value.reason is Reason.UNSUPPORTED_SCHEMA


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"type":' * 5_000, "\x00", "NaN"])
def test_text_that_is_no_json_is_refused(text):
    with pytest.raises(DecodeFailed, match="schema refused") as caught:
        parse(text)
    assert caught.value.reason is Reason.UNSUPPORTED_SCHEMA


def test_a_huge_text_is_refused_before_it_is_looked_at():
    with pytest.raises(DecodeFailed, match=f"at most {MAX_SCHEMA_BYTES} are accepted"):
        parse(json.dumps(event("int")) + " " * MAX_SCHEMA_BYTES)


def test_what_is_just_within_the_bounds_passes():
    assert len(schema_of(nested(MAX_DEPTH - 1)).fields) == 1
    assert len(schema_of(laughs(3)).fields) == 4
    assert len(schema_of(array_of(idle(MAX_IDLE_PARTS, "boolean"))).fields) == 1
    assert len(schema_of(array_of(idle(8 * MAX_IDLE_PARTS, "double"))).fields) == 1
    assert len(schema_of(event({"type": "map", "values": idle(MAX_IDLE_PARTS)})).fields) == 1
    assert len(schema_of(idle(1000)).fields) == 999  # no array: once a datum, whatever it takes


def test_a_field_more_than_the_tree_may_have_is_refused_and_thousands_are_not():
    numbers = ["int"] * (MAX_NODES - 1)
    assert len(schema_of(event(*numbers)).fields) == MAX_NODES - 1
    with pytest.raises(DecodeFailed, match=f"more than {MAX_NODES} types"):
        schema_of(event(*numbers, "int"))
    with pytest.raises(DecodeFailed, match=f"more than {MAX_NODES} types"):
        schema_of(event(*["int"] * 7000))


def test_an_enum_may_have_thousands_of_symbols_but_not_be_used_thousands_of_times():
    many = {"type": "enum", "name": "Many", "symbols": [f"s{i}" for i in range(5000)]}
    assert len(schema_of(event(many)).fields[0]["type"]["symbols"]) == 5000
    with pytest.raises(DecodeFailed, match="more than 65536 symbols and aliases"):
        schema_of(event(many, *["Many"] * 2000))


def test_a_refusal_is_short_however_long_what_it_quotes_is():
    with pytest.raises(DecodeFailed) as caught:
        schema_of(event("x" * 200_000))
    assert len(str(caught.value)) < MAX_MESSAGE + 50


@pytest.mark.parametrize("name", ["größe", "../../etc/passwd", "a b", "__class__", "f0", "Framed", "x" * 2000, "a\nb"])
def test_a_hostile_name_is_only_a_name(name):
    for other in ("int", "bytes"):  # read in columns, and record by record
        schema = schema_of(event({"name": name, "type": "long"}, {"name": "other", "type": other}))
        header = SingleObjectFraming.header(schema.fingerprint)
        decoded = datum_reader(SingleObjectFraming(), header, schema, schema).read([header + b"\x0e\x00"])
        assert decoded.table.column(name).to_pylist() == [7]


def test_a_named_type_may_be_used_many_times():
    inner = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}
    fields = schema_of(event(inner, "Point", ["null", "Point"], {"type": "array", "items": "Point"})).fields
    expected = [{"name": "x", "type": {"type": "int"}}]
    found = [fields[0]["type"], fields[1]["type"], fields[2]["type"][1], fields[3]["type"]["items"]]
    assert [node["fields"] for node in found] == [expected] * 4
    assert len({node["name"] for node in found}) == 4


def test_a_short_name_means_the_type_of_the_namespace_it_is_used_in():
    outer = {"type": "enum", "name": "Plan", "namespace": "", "symbols": ["outer"]}
    inner = {"type": "enum", "name": "Plan", "symbols": ["inner"]}
    fields = [{"name": "a", "type": inner}, {"name": "b", "type": "Plan"}]
    schema = schema_of(event(outer, {"type": "record", "name": "deep.Record", "fields": fields}, "Plan"))
    deep = schema.fields[1]["type"]["fields"]
    assert [item["type"]["symbols"] for item in deep] == [["inner"], ["inner"]]
    assert schema.fields[2]["type"]["symbols"] == ["outer"]


def test_a_name_is_found_by_its_full_name_from_everywhere():
    here = {"type": "enum", "name": "Plan", "namespace": "one", "symbols": ["a"]}
    there = {"type": "record", "name": "two.Other", "fields": [{"name": "plan", "type": "one.Plan"}]}
    assert schema_of(event(here, there)).fields[1]["type"]["fields"][0]["type"]["symbols"] == ["a"]


def test_a_record_goes_by_its_name_without_the_namespace():
    assert schema_of(event("int", name="a.b.Event")).name == "Event"
    assert schema_of(event("int", namespace="a.b")).name == "Event"


@pytest.mark.parametrize(
    "node",
    [
        {"type": "int", "logicalType": "timestamp-millis"},
        {"type": "long", "logicalType": "date"},
        {"type": "string", "logicalType": "uuid"},
        {"type": "int", "logicalType": ["odd"]},
        {"type": "int", "logicalType": {"date": None}},
        {"type": "long", "logicalType": "decimal", "precision": 4, "scale": 2},
        {"type": "long", "logicalType": "local-timestamp-millis"},
    ],
)
def test_a_logical_type_that_is_unknown_or_misplaced_is_ignored(node):
    assert schema_of(event({"name": "a", "type": node})).fields[0]["type"] == {"type": node["type"]}


@pytest.mark.parametrize("path", sorted(SCHEMAS.rglob("*.avsc")), ids=lambda path: path.stem)
def test_every_shipped_schema_passes(path):
    text = path.read_text(encoding="utf-8")
    schema = parse(text)
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(text))
    assert schema.fingerprint.hex() == fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    assert schema.name == json.loads(text)["name"]


@given(records(types=odd_types))
def test_every_ordinary_schema_passes(node):
    assert [item["name"] for item in schema_of(node).fields] == [item["name"] for item in node["fields"]]


@given(st.one_of(json_values(), schema_like()))
def test_any_json_is_a_schema_that_a_reader_can_be_made_of_or_refused(node):
    try:
        schema = parse(json.dumps(node))
        reader = datum_reader(SingleObjectFraming(), b"", schema, schema)
    except DecodeFailed:
        return
    assert reader.read([]).failed == {}


@given(st.text(max_size=40))
def test_any_text_is_a_schema_or_refused(text):
    with pytest.raises(DecodeFailed) as caught:
        parse(text)
    assert caught.value.reason is Reason.UNSUPPORTED_SCHEMA
