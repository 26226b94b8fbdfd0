"""Writing datums with fastavro, and looking at columns as plain Python, for the tests beside this file."""

import json
import math
from io import BytesIO
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

from app.avro.datum_reader import Decoded
from app.avro.framing import SingleObjectFraming
from app.avro.schemas import Schema, parse

FRAMING = SingleObjectFraming()


def schema_of(node: dict[str, Any]) -> Schema:
    return parse(json.dumps(node))


def event(*fields: Any, name: str = "Event", **rest: Any) -> dict[str, Any]:
    """A record schema; a field is its type, or a whole field."""
    items = [
        item if isinstance(item, dict) and "name" in item and not {"symbols", "size", "fields"} & item.keys()
        else {"name": f"f{i}", "type": item}
        for i, item in enumerate(fields)
    ]  # fmt: skip
    return {"type": "record", "name": name, "fields": items} | rest


def plain_numbers(node: Any) -> Any:
    """The schema without logical types, so that fastavro gives numbers."""
    if isinstance(node, list):
        return [plain_numbers(item) for item in node]
    if isinstance(node, dict):
        return {key: plain_numbers(value) for key, value in node.items() if key != "logicalType"}
    return node


def datum(node: dict[str, Any], value: Any) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(plain_numbers(node)), value)
    return out.getvalue()


def header_of(node: dict[str, Any]) -> bytes:
    return FRAMING.header(schema_of(node).fingerprint)


def framed(node: dict[str, Any], value: Any) -> bytes:
    return header_of(node) + datum(node, value)


def read_by_fastavro(value: bytes, writer: dict[str, Any], reader: dict[str, Any] | None = None) -> Any:
    return fastavro.schemaless_reader(
        BytesIO(value[FRAMING.size :]),
        fastavro.parse_schema(plain_numbers(writer)),
        None if reader is None else fastavro.parse_schema(plain_numbers(reader)),
    )


def varint(number: int) -> bytes:
    """A zig-zag varint; `number` may be beyond 64 bits."""
    raw = number * 2 if number >= 0 else -number * 2 - 1
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    return bytes([*out, raw])


def rows_of(table: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as fastavro would give them, comparable: NaN is written out, times are numbers."""
    columns = {
        name: [comparable(value) for value in _numbers(column).to_pylist()]
        for name, column in zip(table.schema.names, table.columns, strict=True)
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] if columns else []


def _numbers(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64())
    if pa.types.is_date(column.type):
        return column.cast(pa.int32())
    if pa.types.is_list(column.type) and pa.types.is_temporal(column.type.value_type):
        plain = pa.int32() if pa.types.is_date(column.type.value_type) else pa.int64()
        return column.cast(pa.list_(plain))
    return column


def comparable(value: Any) -> Any:
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def as_columns_say(row: dict[str, Any], columns: pa.Schema) -> dict[str, Any]:
    """fastavro's reading of an event, cut down to our columns, floats rounded where the column is single."""

    def fit(value: Any, kind: pa.DataType) -> Any:
        if value is None:
            return None
        if pa.types.is_list(kind):
            return [fit(item, kind.value_type) for item in value]
        if pa.types.is_float32(kind):
            with np.errstate(over="ignore"):
                return comparable(float(np.float32(value)))
        return comparable(float(value) if pa.types.is_float64(kind) else value)

    return {item.name: fit(row[item.name], item.type) for item in columns}


def reasons(decoded: Decoded) -> dict[int, str]:
    return {row: why.reason.value for row, why in decoded.failed.items()}
