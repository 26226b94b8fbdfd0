"""Headers are exactly the wire formats', whatever bit pattern an id or a fingerprint has."""

import json
import struct

import fastavro.schema
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.avro.datum_reader import datum_reader
from app.avro.datum_writer import DatumWriter
from app.avro.framing import ConfluentFraming, SingleObjectFraming
from app.avro.schemas import parse
from app.errors import DecodeFailed, Reason

EVENT = parse(json.dumps({"type": "record", "name": "Event", "fields": [{"name": "x", "type": "long"}]}))
CONFLUENT, SINGLE_OBJECT = ConfluentFraming(), SingleObjectFraming()


def quietened_by_a_float(schema_id: int) -> bool:
    """Whether the id's bytes change when they pass through a Python float."""
    octets = struct.pack(">I", schema_id)
    return struct.pack("<f", struct.unpack("<f", octets)[0]) != octets


BREAKING = [schema_id for schema_id in range(300_001) if quietened_by_a_float(schema_id)]


def round_trip(framing, header):
    written = DatumWriter(framing, header, EVENT).write({"x": pa.array([1, -5, 2**40])}, 3)
    assert all(value.startswith(header) for value in written)
    decoded = datum_reader(framing, header, EVENT, EVENT).read_all(written)
    assert decoded is not None
    assert decoded.table.column("x").to_pylist() == [1, -5, 2**40]


def test_some_schema_ids_up_to_300_000_would_not_survive_a_float():
    assert len(BREAKING) == 549


def test_every_schema_id_that_a_float_would_break_is_written_and_read_as_it_is():
    for schema_id in BREAKING:
        round_trip(CONFLUENT, ConfluentFraming.header(schema_id))


@given(st.integers(0, 2**32 - 1))
def test_any_schema_id_is_written_and_read_as_it_is(schema_id):
    header = ConfluentFraming.header(schema_id)
    assert ConfluentFraming.schema_id(header) == schema_id
    round_trip(CONFLUENT, header)


@given(st.binary(min_size=8, max_size=8))
def test_any_fingerprint_is_written_and_read_as_it_is(fingerprint):
    round_trip(SINGLE_OBJECT, SingleObjectFraming.header(fingerprint))


@pytest.mark.parametrize("bits", [0x7FF0_0000_0000_0001, 0xFFF7_FFFF_FFFF_FFFF, 0x7FF8_0000_0000_0000])
def test_a_fingerprint_that_is_a_nan_is_written_and_read_as_it_is(bits):
    round_trip(SINGLE_OBJECT, SingleObjectFraming.header(bits.to_bytes(8, "little")))


def test_the_confluent_header_is_a_zero_byte_and_a_big_endian_id():
    assert ConfluentFraming.header(258) == b"\x00\x00\x00\x01\x02"
    assert CONFLUENT.header_of(b"\x00\x00\x00\x01\x02datum") == b"\x00\x00\x00\x01\x02"


def test_the_single_object_header_is_the_marker_and_the_little_endian_crc_64_fingerprint():
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(EVENT.text))
    crc = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    assert SingleObjectFraming.header(EVENT.fingerprint).hex() == "c301" + crc
    # known from Avro's own test data: "null" has 7195948357588979594
    assert int.from_bytes(bytes.fromhex(fastavro.schema.fingerprint('"null"', "CRC-64-AVRO")), "little") == (
        7195948357588979594
    )


@pytest.mark.parametrize(
    ("framing", "value", "message"),
    [
        (CONFLUENT, b"", "0 bytes: too short"),
        (CONFLUENT, b"\x00\x00\x00\x01", "4 bytes: too short"),
        (CONFLUENT, b"\x01\x00\x00\x00\x01x", "first byte is 0x01"),
        (CONFLUENT, SingleObjectFraming.header(bytes(8)), "first byte is 0xc3"),
        (SINGLE_OBJECT, b"\xc3\x01" + bytes(7), "9 bytes: too short"),
        (SINGLE_OBJECT, b"\xc3\x00" + bytes(8), "starts with 0xc300"),
        (SINGLE_OBJECT, b"\xc3\x81\x00" + bytes(8), "starts with 0xc381"),
        (SINGLE_OBJECT, b"{" * 10, "starts with 0x7b7b"),
    ],
)
def test_a_value_without_a_whole_header_is_a_bad_frame(framing, value, message):
    with pytest.raises(DecodeFailed, match=message) as caught:
        framing.header_of(value)
    assert caught.value.reason is Reason.BAD_FRAME


@pytest.mark.parametrize(
    "other",
    [
        *(bytes([marker]) + b"\x00\x00\x00\x07\x02" for marker in (1, 2, 3, 0x80, 0xFF)),
        b"\x00\x00\x00\x00\x08\x02",
        b"\x00",
        b"",
        ConfluentFraming.header(7),  # the datum is missing
    ],
)
def test_the_fast_path_takes_only_values_with_the_readers_own_confluent_header(other):
    header = ConfluentFraming.header(7)
    reader = datum_reader(CONFLUENT, header, EVENT, EVENT)
    assert reader.read_all([header + b"\x02"]) is not None
    assert reader.read_all([header + b"\x02", other, header + b"\x04"]) is None


@pytest.mark.parametrize(
    "other",
    [
        b"\xc3\x81\x00" + EVENT.fingerprint + b"\x02",  # -98 as well, in three bytes
        b"\xc3\x81\x80\x80\x00" + EVENT.fingerprint + b"\x02",
        b"\xc3\x01" + bytes(8) + b"\x02",
        b"\xc4\x01" + EVENT.fingerprint + b"\x02",
        b"\x43" + EVENT.fingerprint + b"\x02",
        b"\xc3",
        b"",
    ],
)
def test_the_fast_path_takes_only_values_with_the_readers_own_single_object_header(other):
    header = SingleObjectFraming.header(EVENT.fingerprint)
    reader = datum_reader(SINGLE_OBJECT, header, EVENT, EVENT)
    assert reader.read_all([header + b"\x02"]) is not None
    assert reader.read_all([header + b"\x02", other]) is None


@given(st.binary(max_size=24))
def test_the_fast_path_agrees_with_the_plain_look_at_the_header(value):
    for framing, header in (
        (CONFLUENT, ConfluentFraming.header(7)),
        (SINGLE_OBJECT, SingleObjectFraming.header(EVENT.fingerprint)),
    ):
        reader = datum_reader(framing, header, EVENT, EVENT)
        for whole in (value, header + value):
            if reader.read_all([whole]) is not None:
                assert framing.header_of(whole) == header


def test_header_columns_hold_the_bit_patterns_and_own_their_memory():
    marker, ids = CONFLUENT.columns(ConfluentFraming.header(0xA07F), 3)
    assert marker.to_pylist() == [False] * 3
    assert ids.buffers()[1].to_pybytes()[:12] == ConfluentFraming.header(0xA07F)[1:] * 3
    assert np.isnan(ids.to_numpy()).all()
