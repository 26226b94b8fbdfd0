"""Each kind of poison is wrong in its own way, and in no other."""

import io
from pathlib import Path

import fastavro
import numpy as np
import pytest

from loadgen.churn import ChurnFormula
from loadgen.churn_events import ChurnEvents
from loadgen.dead_letter_log import CLOSED_REASONS
from loadgen.digit_events import DigitEvents, Digits
from loadgen.encode import Writer
from loadgen.event_stream import EventStream
from loadgen.poison import REASONS, UNKNOWN_FINGERPRINT, UNKNOWN_SCHEMA_ID, Poisoner, PoisonShare
from loadgen.schemas import SchemaDirectory
from loadgen.skew import KeyNumbers, Skew
from loadgen.wire import CONFLUENT, SINGLE_OBJECT

SCHEMAS = Path(__file__).parents[3] / "schemas"
PIPELINES = [ChurnEvents(ChurnFormula.load(SCHEMAS / "churn_generated.json"), 7), DigitEvents(Digits.load())]


@pytest.fixture(
    params=[(p, w) for p in PIPELINES for w in (CONFLUENT, SINGLE_OBJECT)],
    ids=lambda both: f"{both[0].name}-{both[1].name}",
)
def poisoned(request):
    """(wire format, schema, {kind: the poison record's value})."""
    pipeline, wire_format = request.param
    schema = SchemaDirectory(SCHEMAS).current(pipeline.event_schema)
    identity = b"\x00\x00\x00\x2a" if wire_format is CONFLUENT else schema.fingerprint
    writer = Writer(schema, wire_format, identity)
    stream = EventStream(
        pipeline=pipeline,
        numbers=KeyNumbers(Skew(), 7),
        writers=[writer],
        everything=writer,
        poison_share=PoisonShare(1.0),
        poisoner=Poisoner(schema, wire_format, identity),
    )
    chunk = stream.chunk(0, np.full(len(pipeline.poison_kinds), 1_760_000_000_000))
    values = {chunk.poison[row]: chunk.values[row] for row in range(len(chunk.values))}
    assert set(values) == set(pipeline.poison_kinds)
    return wire_format, schema, values, wire_format.header(identity)


def read(schema, datum):
    buffer = io.BytesIO(datum)
    return fastavro.schemaless_reader(buffer, schema.parsed, None), buffer.read()


def test_frames_are_broken_where_they_should_be(poisoned):
    wire_format, schema, values, header = poisoned
    assert not values["bad_marker"].startswith(wire_format.marker)
    assert values["short_frame"].startswith(wire_format.marker)
    assert len(values["short_frame"]) < wire_format.header_size
    unknown = UNKNOWN_SCHEMA_ID if wire_format is CONFLUENT else UNKNOWN_FINGERPRINT
    assert values["unknown_schema"].startswith(wire_format.marker + unknown)
    assert read(schema, values["unknown_schema"][wire_format.header_size :])[1] == b""
    others = set(values) - {"bad_marker", "short_frame", "unknown_schema"}
    assert all(values[kind].startswith(header) for kind in others)


def test_datums_are_malformed_where_they_should_be(poisoned):
    wire_format, schema, values, _ = poisoned
    datums = {kind: value[wire_format.header_size :] for kind, value in values.items()}
    for kind, error in (
        ("truncated", (EOFError, IndexError)),
        ("bad_utf8", UnicodeDecodeError),
        ("bad_union_index", IndexError),
    ):
        if kind in datums:
            with pytest.raises(error):
                read(schema, datums[kind])
    assert read(schema, datums["trailing_bytes"])[1] != b""
    if "bad_enum_index" in datums:  # the record codec lets a negative index pass: what follows must be whole
        assert read(schema, datums["bad_enum_index"])[1] == b""


def test_values_are_wrong_where_they_should_be(poisoned):
    wire_format, schema, values, _ = poisoned
    events = {
        kind: read(schema, value[wire_format.header_size :])[0]
        for kind, value in values.items()
        if kind in {"out_of_range", "not_finite", "bad_shape"}
    }
    if "bad_shape" in events:
        assert len(events["bad_shape"]["pixels"]) == 63
        assert max(events["out_of_range"]["pixels"]) > 16
        assert np.isnan(events["not_finite"]["pixels"]).any()
    else:
        assert events["out_of_range"]["age"] > 120
        assert not np.isfinite(events["not_finite"]["income"])


def test_every_kind_has_a_reason_of_the_closed_list():
    for pipeline in PIPELINES:
        assert {REASONS[kind] for kind in pipeline.poison_kinds} <= CLOSED_REASONS
