import json

import pytest

from app.avro.framing import SingleObjectFraming
from app.avro.record_reader import WholeRecordReader
from app.avro.record_writer import RecordWriter
from app.avro.schemas import parse
from app.errors import DecodeFailed, Reason
from tests.made_summaries import SCHEMAS, framed, summary

READER = WholeRecordReader(SingleObjectFraming(), SCHEMAS, SCHEMAS.named("ModelSummary"))


def test_a_nested_record_comes_back_as_it_was_written():
    record = summary([0.2, 0.9])
    assert READER.read(framed(record)) == record


def test_an_older_writer_is_read_with_the_readers_defaults():
    old = parse(json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}))
    fields = [{"name": "a", "type": "double"}, {"name": "b", "type": "string", "default": "none"}]
    new = parse(json.dumps({"type": "record", "name": "R", "fields": fields}))

    class Source:
        def by_header(self, header):
            return old.text

    value = RecordWriter(SingleObjectFraming.header(old.fingerprint), old).write({"a": 3})
    assert WholeRecordReader(SingleObjectFraming(), Source(), new).read(value) == {"a": 3.0, "b": "none"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.BAD_FRAME),
        (framed(summary([0.5]))[:-1], Reason.TRUNCATED),
        (framed(summary([0.5])) + b"\x00", Reason.TRAILING_BYTES),
        (b"\xc3\x01" + bytes(8) + b"x", Reason.UNKNOWN_SCHEMA),
        (b"\xc3\x01" + SCHEMAS.named("ChurnOutcome").fingerprint + b"x", Reason.UNSUPPORTED_SCHEMA),
        (b"x" * (17 * 1024 * 1024), Reason.OVERSIZED),
    ],
)
def test_what_is_no_such_record_is_refused_by_name(value, reason):
    with pytest.raises(DecodeFailed) as refused:
        READER.read(value)
    assert refused.value.reason is reason
