"""Every field of a prediction is filled from the outputs, the provenance or the event, row by row."""

import copy
import json
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from fakes import NOW_MS, FakeModel, giving
from hypothesis import given
from hypothesis import strategies as st
from strategies import EXTREME, data_of, evolved_types, records

from app.avro import datum_writer
from app.avro.columns import reader_columns
from app.avro.datum_reader import datum_reader
from app.avro.datum_writer import DatumWriter
from app.avro.few_rows import MOST_WRITTEN
from app.avro.framing import SingleObjectFraming
from app.avro.schemas import SchemaDirectory, parse
from app.errors import SchemaIncompatible
from app.pipeline.encode.fills import Constant
from app.pipeline.encode.predictions import Answerer, PredictionEncoder
from app.pipeline.infer import OutputPolicy, infer
from app.records import Columns, Origin, TopicPartition
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput, ValueOutput

DIRECTORY = SchemaDirectory(Path(__file__).parents[3] / "schemas")
INPUTS = (InputSpec(name="X", features=(NumberFeature(field="x"),)),)
CHURN = ProbabilitiesOutput(
    name="P",
    classes=(0, 1),
    threshold=0.5,
    fields={"prediction": "class", "will_churn": "positive", "probability": "probability", "confidence": "confidence"},
)
DIGITS = ProbabilitiesOutput(
    name="P",
    classes=tuple(range(10)),
    fields={"prediction": "class", "probabilities": "probabilities", "confidence": "confidence"},
)
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
PLAN = {"type": "enum", "name": "Plan", "symbols": ["basic", "gold"]}


@pytest.fixture(autouse=True, params=[0, MOST_WRITTEN], ids=["columns", "values"])
def _rows_written_one_by_one(request, monkeypatch):
    """Up to how many: each test is of both ways."""
    monkeypatch.setattr(datum_writer, "MOST_WRITTEN", request.param)


def model_of(*outputs, **answers) -> FakeModel:
    return FakeModel(INPUTS, outputs, giving(**answers), name="churn", version="4", digest="feedfacefeedface")


def read(value: bytes, text: str) -> dict[str, Any]:
    source = BytesIO(value)
    source.seek(10)
    found = fastavro.schemaless_reader(source, plain(text), None)
    assert source.tell() == len(value)
    return found


def plain(text: str) -> Any:
    """fastavro's schema, without logical types: times are numbers."""

    def bare(node):
        if isinstance(node, dict):
            return {key: bare(item) for key, item in node.items() if key != "logicalType"}
        return [bare(item) for item in node] if isinstance(node, list) else node

    return fastavro.parse_schema(bare(json.loads(text)))


def record(*fields: Any) -> str:
    items = [{"name": name, "type": kind} for name, kind in fields]
    return json.dumps({"type": "record", "name": "R", "fields": items})


def writer_of(text: str) -> DatumWriter:
    schema = parse(text)
    return DatumWriter(SingleObjectFraming(), SingleObjectFraming.header(schema.fingerprint), schema)


def events(text: str, *rows: dict[str, Any]) -> pa.RecordBatch:
    schema = reader_columns(parse(text))
    columns = []
    for item in schema:
        values = [row.get(item.name) for row in rows]
        columns.append(pa.array(values, item.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def origin_of(*sources: tuple[str, int], offsets: list[int]) -> Origin:
    """Row i is from sources[i]."""
    distinct = tuple(dict.fromkeys(TopicPartition(*source) for source in sources))
    index = np.array([distinct.index(TopicPartition(*source)) for source in sources], np.int64)
    return Origin(distinct, index, np.array(offsets, np.int64), np.zeros(len(offsets), np.int64))


def encode(prediction: str, event: str, model: FakeModel, rows: list[dict[str, Any]], **more: Any):
    table = events(event, *rows)
    answer = infer(model, {}, np.arange(len(rows)), OutputPolicy())
    encoder = PredictionEncoder(writer_of(prediction), model, table.schema)
    origin = origin_of(*[("t", 0)] * len(rows), offsets=list(range(len(rows))))
    values = encoder.encode(
        Columns(table, np.arange(len(rows))), answer.fields, answer.rows, origin, Answerer(model, **more), NOW_MS
    )
    return [read(value, prediction) for value in values]


PROVENANCE = {
    "model_name": "churn",
    "model_version": "4",
    "model_digest": "feedfacefeedface",
    "answered_by": "stable",
    "rollout_revision": 1,
    "predicted_at": NOW_MS,
}


def test_every_field_of_a_churn_prediction_is_filled():
    prediction, event = DIRECTORY.named("ChurnPrediction"), DIRECTORY.named("ChurnEvent")
    table = events(
        event.text, *({"customer_id": f"c{i}", "plan": "basic", "event_time": 1000 + i} for i in range(3))
    )  # fmt: skip
    model = model_of(CHURN, P=np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]], np.float32))
    encoder = PredictionEncoder(writer_of(prediction.text), model, table.schema)
    answer = infer(model, {}, np.arange(3), OutputPolicy())
    origin = origin_of(("churn.events", 4), ("churn.more", 0), ("churn.events", 1), offsets=[7, 2**40, 9])
    values = encoder.encode(Columns(table, np.arange(3)), answer.fields, answer.rows, origin, Answerer(model), NOW_MS)
    assert all(value.startswith(SingleObjectFraming.header(prediction.fingerprint)) for value in values)
    assert [read(value, prediction.text) for value in values] == [
        {
            "customer_id": f"c{i}", "prediction": label, "will_churn": bool(label), "probability": p,
            "confidence": sure, "source_topic": topic, "source_partition": partition, "source_offset": offset,
            "event_time": 1000 + i,
        } | PROVENANCE
        for i, (label, p, sure, topic, partition, offset) in enumerate([
            (0, 0.25, 0.75, "churn.events", 4, 7),
            (1, 0.5, 0.5, "churn.more", 0, 2**40),
            (1, 0.875, 0.875, "churn.events", 1, 9),
        ])
    ]  # fmt: skip


def test_every_field_of_a_digit_prediction_is_filled():
    prediction, event = DIRECTORY.named("DigitPrediction"), DIRECTORY.named("DigitEvent")
    probabilities = np.eye(10)[[3, 8]] * 0.5 + 0.05
    model = model_of(DIGITS, P=probabilities)
    (first, second) = encode(
        prediction.text, event.text, model, [{"digit_id": "a", "event_time": 5}, {"digit_id": "b", "event_time": 6}]
    )
    assert first == PROVENANCE | {
        "digit_id": "a", "prediction": 3, "probabilities": probabilities[0].tolist(), "confidence": 0.55,
        "source_topic": "t", "source_partition": 0, "source_offset": 0, "event_time": 5,
    }  # fmt: skip
    assert (second["digit_id"], second["prediction"], second["source_offset"]) == ("b", 8, 1)


def test_a_subset_of_the_rows_keeps_its_own_events_and_offsets():
    prediction, event = DIRECTORY.named("ChurnPrediction"), DIRECTORY.named("ChurnEvent")
    table = events(event.text, *({"customer_id": f"c{i}", "plan": "basic", "event_time": i} for i in (2, 5, 6, 9)))
    model = model_of(CHURN, P=np.array([[0.9, 0.1], [0.2, 0.8]]))
    answer = infer(model, {}, np.array([5, 9]), OutputPolicy())
    origin = origin_of(*([("a", 0), ("b", 3)] * 5), offsets=[100 + i for i in range(10)])
    encoder = PredictionEncoder(writer_of(prediction.text), model, table.schema)
    values = encoder.encode(
        Columns(table, np.array([2, 5, 6, 9])), answer.fields, answer.rows, origin, Answerer(model), NOW_MS
    )
    found = [read(value, prediction.text) for value in values]
    assert [
        (row["customer_id"], row["source_topic"], row["source_partition"], row["source_offset"]) for row in found
    ] == [
        ("c5", "b", 3, 105),
        ("c9", "b", 3, 109),
    ]


def test_who_answers_and_why_is_told_per_batch():
    text = record(
        ("answered_by", "string"), ("rollout_revision", "long"), ("prediction", "long"), ("confidence", "float")
    )
    model = model_of(ProbabilitiesOutput(name="P", classes=(0, 1)), P=[[0.25, 0.75]])
    (row,) = encode(text, record(("x", "long")), model, [{"x": 1}], answered_by="canary", rollout_revision=12)
    assert row == {"answered_by": "canary", "rollout_revision": 12, "prediction": 1, "confidence": 0.75}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_constants_are_right_for_every_batch_size_and_version(sizes):
    text = record(
        ("model_version", "string"), ("source_topic", "string"), ("source_offset", "long"), ("value", "double")
    )
    output = ValueOutput(name="P")
    first = model_of(output)
    encoder = PredictionEncoder(writer_of(text), first, pa.schema([]))
    for turn, size in enumerate(sizes):
        model = model_of(output)
        model.version = str(turn % 3)
        origin = origin_of(*[(f"topic{turn % 2}", 0)] * size, offsets=list(range(size)))
        columns = Columns(pa.RecordBatch.from_arrays([], names=[]), np.arange(size))
        values = encoder.encode(columns, {"value": np.zeros(size)}, np.arange(size), origin, Answerer(model), NOW_MS)
        assert [read(value, text) for value in values] == [
            {"model_version": model.version, "source_topic": f"topic{turn % 2}", "source_offset": i, "value": 0.0}
            for i in range(size)
        ]


def test_many_versions_fill_no_memory():
    text = record(("model_version", "string"), ("value", "double"))
    model = model_of(ValueOutput(name="P"))
    encoder = PredictionEncoder(writer_of(text), model, pa.schema([]))
    columns = Columns(pa.RecordBatch.from_arrays([], names=[]), np.arange(1))
    for version in range(200):
        model.version = str(version)
        origin = origin_of(("t", 0), offsets=[0])
        (value,) = encoder.encode(columns, {"value": np.zeros(1)}, np.arange(1), origin, Answerer(model), NOW_MS)
        assert read(value, text)["model_version"] == str(version)
    (versions,) = [fill for fill in encoder._fills if isinstance(fill, Constant)]
    assert len(versions.known) < 100
    assert versions.known or datum_writer.MOST_WRITTEN


def test_a_nullable_field_that_nothing_fills_is_null():
    text = record(
        ("note", ["null", "string"]), ("tags", ["null", {"type": "array", "items": "int"}]), ("value", "double")
    )
    model = model_of(ValueOutput(name="P"), P=[1.5])
    assert encode(text, record(("x", "int")), model, [{"x": 1}]) == [{"note": None, "tags": None, "value": 1.5}]


def test_an_output_comes_before_the_event_and_its_nulls_do_not_matter():
    text = record(("x", "double"))
    model = model_of(ValueOutput(name="P", fields={"x": "value"}), P=[1.5])
    assert encode(text, record(("x", ["null", "string"])), model, [{"x": None}]) == [{"x": 1.5}]


def test_event_fields_keep_their_value_in_a_type_that_is_no_narrower():
    event = record(
        ("a", "int"), ("b", "long"), ("c", "float"), ("d", MILLIS), ("e", MICROS), ("f", PLAN), ("g", ["null", "int"]),
        ("h", {"type": "array", "items": "float"}), ("i", "boolean"), ("j", {"type": "int", "logicalType": "date"}),
    )  # fmt: skip
    prediction = record(
        ("a", "long"), ("b", "double"), ("c", "double"), ("d", MICROS), ("e", MILLIS), ("f", "string"),
        ("g", ["null", "long"]), ("h", {"type": "array", "items": "double"}), ("i", "boolean"),
        ("j", {"type": "int", "logicalType": "date"}), ("value", "float"),
    )  # fmt: skip
    rows = [
        {"a": 1, "b": 2**60 + 1, "c": 0.5, "d": 7, "e": 7999, "f": "gold", "g": None, "h": [0.5], "i": True, "j": 9},
        {"a": -1, "b": 3, "c": 1e30, "d": 2**62, "e": -1, "f": "basic", "g": 4, "h": [], "i": False, "j": -(2**31)},
    ]
    model = model_of(ValueOutput(name="P"), P=[0.25, 0.5])
    first, second = encode(prediction, event, model, rows)
    assert first == {
        "a": 1, "b": float(2**60), "c": 0.5, "d": 7000, "e": 7, "f": "gold", "g": None, "h": [0.5], "i": True, "j": 9,
        "value": 0.25,
    }  # fmt: skip
    assert (second["a"], second["f"], second["g"], second["h"], second["j"]) == (-1, "basic", 4, [], -(2**31))


@pytest.mark.parametrize(("kind", "expected"), [(MILLIS, NOW_MS), (MICROS, NOW_MS * 1000)])
def test_predicted_at_is_in_the_unit_of_its_field(kind, expected):
    text = record(("predicted_at", kind), ("value", "double"))
    (row,) = encode(text, record(("x", "int")), model_of(ValueOutput(name="P"), P=[1.0]), [{"x": 1}])
    assert row["predicted_at"] == expected


def test_string_classes_become_strings():
    named = ProbabilitiesOutput(name="P", classes=("stays", "leaves"), fields={"label": "class"})
    model = model_of(named, P=[[0.25, 0.75]])
    assert encode(record(("label", "string")), record(("x", "int")), model, [{"x": 1}]) == [{"label": "leaves"}]


def test_an_enum_is_filled_by_class_labels_that_it_knows():
    named = ProbabilitiesOutput(name="P", classes=("gold", "basic"), fields={"label": "class"})
    model = model_of(named, P=[[0.25, 0.75]])
    assert encode(record(("label", PLAN)), record(("x", "int")), model, [{"x": 1}]) == [{"label": "basic"}]
    other = ProbabilitiesOutput(name="P", classes=("gold", "silver"), fields={"label": "class"})
    with pytest.raises(SchemaIncompatible, match="'label': the enum lacks silver"):
        PredictionEncoder(writer_of(record(("label", PLAN))), model_of(other), pa.schema([]))


@pytest.mark.parametrize("name", ["plan", "model_name"])
def test_an_enum_that_data_could_overstep_is_refused_at_start(name):
    event = reader_columns(parse(record(("plan", PLAN))))
    with pytest.raises(SchemaIncompatible, match=f"'{name}' is an enum, only class labels"):
        PredictionEncoder(writer_of(record((name, PLAN), ("value", "double"))), model_of(ValueOutput(name="P")), event)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("missing", "string")], "'missing' is filled by nothing: the model's outputs fill confidence, prediction, "),
        ([("prediction", "string")], "'prediction' is string, what fills it is int32"),
        ([("prediction", "boolean")], "'prediction' is bool, what fills it is int32"),
        ([("will_churn", "int")], "'will_churn' is int32, what fills it is bool"),
        ([("probability", "int")], "'probability' is int32, what fills it is double"),
        ([("confidence", {"type": "array", "items": "double"})], "'confidence' is list.*, what fills it is double"),
        ([("age", "string")], "'age' is string, what fills it is int32"),
        ([("visits", "int")], "'visits' is int32, what fills it is int64"),
        ([("plan", "int")], "'plan' is int32, what fills it is string"),
        ([("seen", "long")], "'seen' is int64, what fills it is timestamp"),
        ([("scores", "double")], "'scores' is double, what fills it is list"),
        ([("scores", {"type": "array", "items": "long"})], r"'scores\[\]' is int64, what fills it is double"),
        ([("maybe", "double")], "'maybe' takes no null, the event's does"),
        ([("holey", {"type": "array", "items": "long"})], "'holey' takes no null items, the event's does"),
        ([("plans", {"type": "array", "items": PLAN})], "'plans' is an enum, only class labels can fill one"),
        ([("model_version", "int")], "'model_version' is int32, what fills it is string"),
        ([("source_offset", "int")], "'source_offset' is int32, what fills it is int64"),
        ([("source_offset", "string")], "'source_offset' is string, what fills it is int64"),
        ([("source_topic", "long")], "'source_topic' is int64, what fills it is string"),
        ([("predicted_at", "string")], "'predicted_at' is string, what fills it is timestamp"),
        ([("rollout_revision", "string")], "'rollout_revision' is string, what fills it is int32"),
    ],
)
def test_a_field_that_nothing_can_fill_is_named_at_start(fields, message):
    event = reader_columns(
        parse(
            record(
                ("age", "int"),
                ("visits", "long"),
                ("plan", PLAN),
                ("seen", MILLIS),
                ("maybe", ["null", "double"]),
                ("scores", {"type": "array", "items": "double"}),
                ("holey", {"type": "array", "items": ["null", "int"]}),
                ("plans", {"type": "array", "items": "string"}),
            )
        )
    )
    whole = {"prediction": "int", "will_churn": "boolean", "probability": "double", "confidence": "double"} | dict(
        fields
    )
    with pytest.raises(SchemaIncompatible, match=message):
        PredictionEncoder(writer_of(record(*whole.items())), model_of(CHURN), event)


def test_an_output_that_the_schema_has_no_field_for_is_named_at_start():
    with pytest.raises(SchemaIncompatible, match="lacks confidence, probability, will_churn, which the model fills"):
        PredictionEncoder(writer_of(record(("prediction", "int"))), model_of(CHURN), pa.schema([]))


def test_class_labels_beyond_32_bits_need_a_long():
    huge = ProbabilitiesOutput(name="P", classes=(0, 2**40), fields={"label": "class"})
    with pytest.raises(SchemaIncompatible, match="'label' is int32, what fills it is int64"):
        PredictionEncoder(writer_of(record(("label", "int"))), model_of(huge), pa.schema([]))
    model = model_of(huge, P=[[0.25, 0.75]])
    assert encode(record(("label", "long")), record(("x", "int")), model, [{"x": 1}]) == [{"label": 2**40}]


def test_null_items_of_an_event_stay_null_in_an_array_that_takes_them():
    holey, full = {"type": "array", "items": ["null", "int"]}, {"type": "array", "items": "int"}
    event = record(("a", holey), ("b", full))
    prediction = record(("a", ["null", holey]), ("b", holey), ("value", "double"))
    model = model_of(ValueOutput(name="P"), P=[1.0, 2.0])
    rows = [{"a": [1, None], "b": [3]}, {"a": [], "b": []}]
    first, second = encode(prediction, event, model, rows)
    assert (first["a"], first["b"], second["a"]) == ([1, None], [3], [])


def test_an_array_of_enums_that_nothing_fills_is_null():
    text = record(("plans", ["null", {"type": "array", "items": PLAN}]), ("value", "double"))
    model = model_of(ValueOutput(name="P"), P=[1.5])
    assert encode(text, record(("x", "int")), model, [{"x": 1}]) == [{"plans": None, "value": 1.5}]


@pytest.mark.parametrize("_rows_written_one_by_one", [MOST_WRITTEN], indirect=True)  # it sets that itself
@given(data=st.data(), node=records(), wanted=records())
def test_no_event_makes_the_encoder_raise_once_it_has_accepted_both_schemas(data, node, wanted):
    """Values of every type and size, hence of every column a decoder may give; fields match by name.

    And a handful of rows is written as many are.
    """
    wanted |= {"name": "R", "fields": [*wanted["fields"], {"name": "value", "type": "double"}]}
    for kind in data.draw(st.sets(st.sampled_from(range(len(wanted["fields"]) - 1)))):
        if kind < len(node["fields"]):  # most pairs of types are refused at start
            wanted["fields"][kind]["type"] = data.draw(evolved_types(copy.deepcopy(node["fields"][kind]["type"])))
    event, prediction = json.dumps(node), json.dumps(wanted)
    rows = data.draw(st.integers(1, 4))
    model = model_of(ValueOutput(name="P"), P=np.zeros(rows))
    columns = reader_columns(parse(event))
    try:
        encoder = PredictionEncoder(writer_of(prediction), model, columns)
    except SchemaIncompatible:
        return
    framing, schema = SingleObjectFraming(), parse(event)
    header = framing.header(schema.fingerprint)
    values = []
    for _ in range(rows):
        out = BytesIO()
        fastavro.schemaless_writer(out, plain(event), data.draw(data_of(node, EXTREME)))
        values.append(header + out.getvalue())
    table = datum_reader(framing, header, schema, schema).read(values).table
    assert table.num_rows == rows
    origin = origin_of(*[("t", 0)] * rows, offsets=list(range(rows)))
    encoded = []
    for most_by_row in (0, MOST_WRITTEN):
        with mock.patch.object(datum_writer, "MOST_WRITTEN", most_by_row):
            values = encoder.encode(
                Columns(table, np.arange(rows)), {"value": np.zeros(rows)}, np.arange(rows), origin, Answerer(model),
                NOW_MS,
            )  # fmt: skip
        encoded.append([str(read(value, prediction)) for value in values])  # as text NaN is like NaN
    assert encoded[0] == encoded[1]
