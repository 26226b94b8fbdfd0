"""Values of any mixture of writer schemas become the reader's columns, in the order they came."""

import gc
import json
import weakref
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from fakes import FakeSchemas, ManualClock
from hypothesis import given
from hypothesis import strategies as st

from app.avro.framing import ConfluentFraming, SingleObjectFraming
from app.avro.schemas import SchemaDirectory, parse
from app.errors import Reason, SchemasPending, Stage
from app.pipeline import decode as module
from app.pipeline.decode import MAX_DATUM_BYTES, MAX_SCHEMAS, REFUSAL_TTL_S, Decoder

SCHEMAS = Path(__file__).parents[3] / "schemas"


def record(*fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": "Event", "fields": list(fields)})


READER = parse(record({"name": "x", "type": "long"}, {"name": "y", "type": "double", "default": 9.0}))
OLD = record({"name": "x", "type": "int"})
SWAPPED = record({"name": "y", "type": "float"}, {"name": "x", "type": "long"})
ODD = record({"name": "junk", "type": "bytes"}, {"name": "x", "type": "long"})
RECURSIVE = record({"name": "next", "type": ["null", "Event"]})
ELSE = json.dumps({"type": "record", "name": "Else", "fields": []})
TODAY, V_OLD, V_SWAPPED, V_ODD, V_RECURSIVE, V_ELSE, UNKNOWN = (ConfluentFraming.header(i) for i in range(7))


def value(header: bytes, x: int) -> bytes:
    """One event with this x, as that writer writes it; y is 9 in all of them."""
    number = bytes([x * 2])
    body = {
        TODAY: number + np.float64(9).tobytes(),
        V_OLD: number,
        V_SWAPPED: np.float32(9).tobytes() + number,
        V_ODD: b"\x04ab" + number,
    }
    return header + body.get(header, number)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def schemas():
    return FakeSchemas({TODAY: READER.text, V_OLD: OLD, V_SWAPPED: SWAPPED, V_ODD: ODD, V_RECURSIVE: RECURSIVE,
                        V_ELSE: ELSE})  # fmt: skip


@pytest.fixture
def decoder(schemas, clock):
    return Decoder(ConfluentFraming(), schemas, READER, clock)


def decode(decoder, *values: bytes, first_row: int = 0):
    return decoder.decode(list(values), np.arange(first_row, first_row + len(values)))


def test_several_writer_schemas_in_one_batch_keep_their_order(decoder):
    headers = [V_OLD, TODAY, V_SWAPPED, V_OLD, V_ODD, TODAY, V_SWAPPED]
    result = decode(decoder, *(value(header, x) for x, header in enumerate(headers)))
    assert result.columns.table.to_pylist() == [{"x": x, "y": 9.0} for x in range(7)]
    assert result.columns.rows.tolist() == list(range(7))
    assert result.rejected == []


HEADERS = (TODAY, V_OLD, V_SWAPPED, V_ODD, V_RECURSIVE, V_ELSE, UNKNOWN, b"\x09", b"")


@given(st.lists(st.sampled_from(HEADERS), max_size=40), st.lists(st.booleans(), min_size=40, max_size=40))
def test_any_mixture_of_schemas_and_faults_keeps_its_order_and_loses_nothing(headers, cut):
    decoder = Decoder(
        ConfluentFraming(),
        FakeSchemas(
            {TODAY: READER.text, V_OLD: OLD, V_SWAPPED: SWAPPED, V_ODD: ODD, V_RECURSIVE: RECURSIVE, V_ELSE: ELSE}
        ),
        READER,
        ManualClock(),
    )
    for _ in range(2):  # the second time everything is remembered
        if not headers:
            return
        values = [value(header, x) for x, header in enumerate(headers)]
        values = [octets[:-1] if shorter else octets for octets, shorter in zip(values, cut, strict=False)]
        rows = np.arange(len(values)) * 3 + 1
        result = decoder.decode(values, rows)
        good = [
            x
            for x, (header, shorter) in enumerate(zip(headers, cut, strict=False))
            if header in {TODAY, V_OLD, V_SWAPPED, V_ODD} and not shorter
        ]
        assert result.columns.rows.tolist() == [3 * x + 1 for x in good]
        assert result.columns.table.column("x").to_pylist() == good
        assert [item.row for item in result.rejected] == [3 * x + 1 for x in range(len(values)) if x not in good]


def test_the_rejections_say_why(decoder):
    result = decode(
        decoder, b"\x01rest", value(TODAY, 1)[:-1], value(UNKNOWN, 1), value(V_RECURSIVE, 1), value(V_ELSE, 1),
        value(TODAY, 1) + b"\x00", value(TODAY, 5), first_row=10,
    )  # fmt: skip
    assert [(item.row, item.reason) for item in result.rejected] == [
        (10, Reason.BAD_FRAME),
        (11, Reason.TRUNCATED),
        (12, Reason.UNKNOWN_SCHEMA),
        (13, Reason.UNSUPPORTED_SCHEMA),
        (14, Reason.UNSUPPORTED_SCHEMA),
        (15, Reason.TRAILING_BYTES),
    ]
    assert {item.stage for item in result.rejected} == {Stage.DECODE}
    assert {item.error for item in result.rejected} == {"DecodeFailed"}
    assert "contains itself" in result.rejected[3].message
    assert "record 'Else' is not 'Event'" in result.rejected[4].message
    assert result.columns.rows.tolist() == [16]


def test_a_schema_is_asked_for_once(decoder, schemas):
    for _ in range(3):
        decode(decoder, value(TODAY, 1), value(V_OLD, 2))
    assert schemas.asked == [TODAY, V_OLD]


def test_an_unknown_schema_is_asked_for_again_once_its_refusal_is_old(decoder, schemas, clock):
    assert decode(decoder, value(UNKNOWN, 1)).rejected[0].reason is Reason.UNKNOWN_SCHEMA
    clock.advance(REFUSAL_TTL_S - 0.001)
    again = decode(decoder, value(UNKNOWN, 1)).rejected[0]
    assert (again.reason, again.message) == (Reason.UNKNOWN_SCHEMA, f"nobody knows {UNKNOWN.hex()}")
    assert schemas.asked == [UNKNOWN]
    clock.advance(0.001)
    schemas.texts[UNKNOWN] = OLD
    assert decode(decoder, value(UNKNOWN, 1)).columns.table.to_pylist() == [{"x": 1, "y": 9.0}]
    assert schemas.asked == [UNKNOWN] * 2


def test_a_refused_schema_is_remembered_as_well(decoder, schemas):
    for _ in range(2):
        assert decode(decoder, value(V_RECURSIVE, 1)).rejected[0].reason is Reason.UNSUPPORTED_SCHEMA
    assert schemas.asked == [V_RECURSIVE]


def test_a_remembered_refusal_keeps_no_batch_alive(decoder):
    class Values(list):
        pass

    seen = []
    for _ in range(3):
        values = Values([value(UNKNOWN, 1)])
        decoder.decode(values, np.arange(1))
        seen.append(weakref.ref(values))
        del values
    gc.collect()
    assert [reference() for reference in seen] == [None] * 3


def test_rows_wait_while_the_registry_is_down_and_nothing_is_remembered(decoder, schemas):
    schemas.down = True
    for _ in range(2):
        with pytest.raises(SchemasPending, match="connection refused") as caught:
            decode(decoder, value(TODAY, 1))
        assert caught.value.rows == [0]
    schemas.down = False
    assert decode(decoder, value(TODAY, 1)).columns.table.num_rows == 1
    assert schemas.asked == [TODAY] * 3


def test_known_schemas_are_decoded_while_the_registry_is_down(decoder, schemas):
    decode(decoder, value(TODAY, 1), value(V_OLD, 1))
    schemas.down = True
    assert decode(decoder, value(V_OLD, 2), value(TODAY, 3)).columns.table.column("x").to_pylist() == [2, 3]
    with pytest.raises(SchemasPending) as caught:
        decode(decoder, value(V_OLD, 2), value(V_SWAPPED, 3), value(TODAY, 4), value(V_SWAPPED, 5))
    assert caught.value.rows == [1, 3]
    schemas.down = False
    assert decode(decoder, value(V_OLD, 2), value(V_SWAPPED, 3)).columns.rows.tolist() == [0, 1]


def test_an_oversized_value_is_rejected_and_its_neighbours_are_read(decoder):
    huge = TODAY + bytes(MAX_DATUM_BYTES)
    for _ in range(2):
        result = decode(decoder, value(TODAY, 1), huge, value(TODAY, 2))
        assert [(item.row, item.reason) for item in result.rejected] == [(1, Reason.OVERSIZED)]
        assert result.columns.table.column("x").to_pylist() == [1, 2]


def test_made_up_schema_ids_fill_no_memory_and_push_out_no_reader(decoder, schemas):
    decode(decoder, value(TODAY, 1), value(V_OLD, 2))
    for first in range(100, 100 + 2 * MAX_SCHEMAS, 100):
        decode(decoder, *(ConfluentFraming.header(schema_id) + b"\x02" for schema_id in range(first, first + 100)))
    assert len(decoder._readers) == MAX_SCHEMAS
    schemas.asked.clear()
    decode(decoder, value(V_OLD, 1), value(TODAY, 2))
    assert schemas.asked == []


def test_readers_are_bounded_too(decoder, schemas, monkeypatch):
    monkeypatch.setattr(module, "MAX_SCHEMAS", 2)
    for _ in range(2):
        for header in (TODAY, V_OLD, V_SWAPPED):
            assert decode(decoder, value(header, 1)).rejected == []
            assert len(decoder._readers) <= 2
    assert len(schemas.asked) == 6


def test_every_row_rejected_leaves_the_readers_columns_empty(decoder):
    result = decode(decoder, b"", value(UNKNOWN, 1))
    assert result.columns.table.schema == decoder.nothing().table.schema
    assert (result.columns.table.num_rows, len(result.columns.rows)) == (0, 0)


def test_the_shipped_history_is_read_in_one_batch_from_the_directory():
    directory = SchemaDirectory(SCHEMAS)
    decoder = Decoder(SingleObjectFraming(), directory, directory.named("ChurnEvent"), ManualClock())
    event = {
        "customer_id": "c", "age": 40, "income": 5.0, "tenure_months": 3, "monthly_charges": 7, "total_charges": 21.0,
        "plan": "standard", "event_time": 1_700_000_000_000, "channel": "shop",
    }  # fmt: skip
    values = []
    for name in ("history/churn_event_v2", "churn_event", "history/churn_event_v1", "history/churn_event_v3"):
        text = (SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8")
        out = BytesIO(SingleObjectFraming.header(parse(text).fingerprint))
        out.seek(10)
        fastavro.schemaless_writer(out, json.loads(text), event | {"customer_id": name})
        values.append(out.getvalue())
    table = decoder.decode(values, np.arange(4)).columns.table
    assert table.column("customer_id").to_pylist() == [
        "history/churn_event_v2",
        "churn_event",
        "history/churn_event_v1",
        "history/churn_event_v3",
    ]
    assert table.column("total_charges").to_pylist() == [None, 21.0, None, 21.0]
    assert table.column("plan").to_pylist() == ["standard"] * 4
    assert table.column("monthly_charges").to_pylist() == [7.0] * 4
