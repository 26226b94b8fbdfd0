"""Single records → datums that any Avro reader gives back, or an error that names the schema."""

import json
from io import BytesIO
from pathlib import Path

import fastavro
import pytest
from fakes import FakeModel
from hypothesis import given
from hypothesis import strategies as st

from app.avro.record_writer import RecordWriter
from app.avro.schemas import SchemaDirectory, parse
from app.errors import SchemaIncompatible
from app.pipeline.summary.plan import SummaryPlan
from app.specs import InputSpec, NumberFeature, OneHotFeature, ProbabilitiesOutput

SCHEMAS = Path(__file__).parents[3] / "schemas"
NESTED = {
    "type": "record", "name": "Outer", "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "pairs", "type": {"type": "array", "items": {
            "type": "record", "name": "Pair", "fields": [
                {"name": "name", "type": "string"}, {"name": "share", "type": "double"},
            ]}}},
        {"name": "last", "type": "Pair"},
    ],
}  # fmt: skip
HEADER = b"\x00\x00\x00\x00\x07"
pair = st.fixed_dictionaries({"name": st.text(), "share": st.floats(allow_nan=False)})
GOOD = {"at": 5, "pairs": [{"name": "a", "share": 0.5}], "last": {"name": "b", "share": 1.0}}


def read(value, schema):
    assert value.startswith(HEADER)
    rest = BytesIO(value[len(HEADER) :])
    found = fastavro.schemaless_reader(rest, fastavro.parse_schema(schema), None)
    assert rest.read() == b""
    return found


@given(st.fixed_dictionaries({"at": st.integers(0, 2**40), "pairs": st.lists(pair), "last": pair}))
def test_what_is_written_is_read_again(record):
    plain = json.loads(json.dumps(NESTED).replace(', "logicalType": "timestamp-millis"', ""))
    assert read(RecordWriter(HEADER, parse(json.dumps(NESTED))).write(record), plain) == record


@pytest.mark.parametrize(
    "record",
    [
        {},
        GOOD | {"more": 1},
        {name: value for name, value in GOOD.items() if name != "last"},
        GOOD | {"at": "now"},
        GOOD | {"at": 2**70},
        GOOD | {"pairs": None},
        GOOD | {"pairs": [{"name": "a"}]},
        GOOD | {"last": {"name": 5, "share": 1.0}},
    ],
    ids=["nothing", "more", "less", "text", "too_large", "null", "inner_less", "inner_type"],
)
def test_a_record_of_another_schema_is_refused_by_name(record):
    with pytest.raises(SchemaIncompatible, match="the schema Outer is not the one that is written here"):
        RecordWriter(HEADER, parse(json.dumps(NESTED))).write(record)


def test_a_summary_is_a_record_of_the_shipped_schema():
    schema = SchemaDirectory(SCHEMAS).named("ModelSummary")
    features = (NumberFeature(field="x"), OneHotFeature(field="c", categories=("a", "b")))
    output = ProbabilitiesOutput(name="P", classes=(0, 1), fields={"p": "probability"})
    model = FakeModel((InputSpec(name="X", features=features),), (output,), lambda _: {}, name="churn")
    plan = SummaryPlan("churn", model, {"x": (0.0, 1.0)}, 0.6)
    record = plan.record(plan.nothing(7, 8), 5)
    found = read(RecordWriter(HEADER, schema).write(record), json.loads(schema.text))
    assert found["pipeline"] == found["model"] == "churn"
    assert found["features"][0]["counts"] == [0, 0, 0]
    assert found["features"][1] == record["features"][1] | {"counts": [0, 0]}
    assert list(found) == list(record)
