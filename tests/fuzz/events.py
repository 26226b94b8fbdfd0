"""Random schemas that the gate accepts, readers they resolve to, and valid datums, all from one `Random`.

Hypothesis draws the same things for the laws in tests/unit; a million of them would take it hours.
"""

import copy
import json
import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import fastavro

from app.avro.datum_reader import datum_reader
from app.avro.framing import ConfluentFraming, Framing, SingleObjectFraming
from app.avro.schemas import parse
from app.errors import DecodeFailed
from tests.unit.avro.datums import plain_numbers

SCHEMAS = Path(__file__).parents[2] / "schemas"
SYMBOLS = ("basic", "standard", "premium", "gold")
NUMBERS = ("boolean", "int", "long", "float", "double", "string")
LOGICAL = (
    {"type": "int", "logicalType": "date"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
)
_WIDER = {"int": ("int", "long", "float", "double"), "long": ("long", "float", "double"), "float": ("float", "double")}
_TEXTS = ("", "a", "customer-17", "ü€𝄞", "\x00", "x" * 200)
_INTS = (0, 1, -1, 63, 64, -65, 2**31 - 1, -(2**31))
_LONGS = (*_INTS, 2**31, 2**53, -(2**53), 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.5, -3.25, 16.0, math.inf, -math.inf, math.nan, 1e-45)


@dataclass(frozen=True, slots=True)
class Stream:
    """What one topic may carry: the reader's schema, and the writers' by header."""

    framing: Framing
    reader: str
    writers: dict[bytes, str]

    def datum(self, rng: Random, header: bytes) -> bytes:
        """A valid framed datum of that writer."""
        node = json.loads(self.writers[header])
        out = BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(plain_numbers(node)), value_of(rng, node))
        return header + out.getvalue()


def stream_of(rng: Random, kind: str) -> Stream:
    """kind: "churn" or "digit", every shipped version; "columns" or "odd", generated ones."""
    framing = rng.choice([ConfluentFraming(), SingleObjectFraming()])
    if kind in {"churn", "digit"}:
        reader = (SCHEMAS / f"{kind}_event.avsc").read_text(encoding="utf-8")
        history = [path.read_text(encoding="utf-8") for path in sorted(SCHEMAS.glob(f"history/{kind}_event_*.avsc"))]
        return Stream(framing, reader, _by_header(rng, framing, [reader, *history]))
    writers = [record_of(rng, "Event", column_type if kind == "columns" else odd_type)]
    reader = reader_of(rng, writers[0])
    if rng.random() < 0.5:
        writers.append(copy.deepcopy(reader))
    return Stream(framing, json.dumps(reader), _by_header(rng, framing, [json.dumps(node) for node in writers]))


def _by_header(rng: Random, framing: Framing, texts: list[str]) -> dict[bytes, str]:
    if isinstance(framing, SingleObjectFraming):
        return {framing.header(parse(text).fingerprint): text for text in texts}
    return {ConfluentFraming.header(rng.randrange(2**32)): text for text in texts}


# ---------------------------------------------------------------------------------------------- schemas


def record_of(rng: Random, name: str, types: Any, max_fields: int = 6) -> dict[str, Any]:
    fields = [{"name": f"f{i}", "type": types(rng, f"{name}_{i}")} for i in range(rng.randint(1, max_fields))]
    return {"type": "record", "name": name, "fields": fields}


def column_type(rng: Random, name: str) -> Any:
    """A type that the columnar reader takes."""
    match rng.choice(["number", "number", "logical", "enum", "array"]):
        case "number":
            node: Any = rng.choice(NUMBERS)
        case "logical":
            node = rng.choice(LOGICAL)
        case "enum":
            node = {"type": "enum", "name": f"{name}_enum", "symbols": rng.sample(SYMBOLS, rng.randint(1, 4))}
        case _:
            item = rng.choice([*NUMBERS, *LOGICAL])
            node = {"type": "array", "items": rng.choice([item, ["null", item], [item, "null"]])}
    return rng.choice([node, node, ["null", node], [node, "null"]])


def odd_type(rng: Random, name: str, depth: int = 3) -> Any:  # noqa: PLR0911 - a case per kind of type
    """Any type that passes the gate."""
    kinds = ["column", "column", "bytes", "null", "fixed", "decimal"]
    match rng.choice([*kinds, "record", "map", "array", "union"] if depth else kinds):
        case "column":
            return column_type(rng, name)
        case "fixed":
            return {"type": "fixed", "name": f"{name}_fixed", "size": rng.choice([1, 2, 16, 40])}
        case "decimal":
            return {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}
        case "record":
            return record_of(rng, f"{name}_record", lambda _, inner: odd_type(rng, inner, depth - 1), 4)
        case "map":
            return {"type": "map", "values": odd_type(rng, f"{name}_v", depth - 1)}
        case "array":
            return {"type": "array", "items": ["null", _no_union(odd_type(rng, f"{name}_i", depth - 1))]}
        case "union":
            return rng.sample(["null", "boolean", "long", "double", "string", "bytes"], rng.randint(1, 4))
        case plain:
            return plain


def _no_union(node: Any) -> Any:
    return "long" if isinstance(node, list) or node == "null" else node


def reader_of(rng: Random, writer: dict[str, Any]) -> dict[str, Any]:
    """A schema that the writer's resolves to: promoted, renamed, reordered, dropped and added fields."""
    for _ in range(20):
        reader = _evolved(rng, writer)
        try:
            datum_reader(SingleObjectFraming(), b"", parse(json.dumps(writer)), parse(json.dumps(reader)))
        except DecodeFailed:
            continue
        return reader
    return writer


def _evolved(rng: Random, writer: dict[str, Any]) -> dict[str, Any]:
    fields = []
    for item in writer["fields"]:
        if rng.random() < 0.15:
            continue
        field = {"name": item["name"], "type": _evolved_type(rng, copy.deepcopy(item["type"]))}
        if rng.random() < 0.2:
            field |= {"name": f"renamed_{item['name']}", "aliases": ["unrelated", item["name"]]}
        fields.append(field)
    fields.append({"name": "added", "type": rng.choice(["int", ["int", "null"]]), "default": 7})
    rng.shuffle(fields)
    return {"type": "record", "name": writer["name"], "fields": fields}


def _evolved_type(rng: Random, node: Any) -> Any:
    nullable = isinstance(node, list)
    if nullable and (len(node) != 2 or "null" not in node):
        return node
    inner = next(branch for branch in node if branch != "null") if nullable else node
    if isinstance(inner, str):
        inner = rng.choice(_WIDER.get(inner, (inner,)))
    elif inner["type"] == "enum":
        inner["symbols"] = rng.sample(SYMBOLS, rng.randint(1, 4))
        if rng.random() < 0.5:
            inner["default"] = rng.choice(inner["symbols"])
    if inner != "null" and rng.random() < 0.25:
        nullable = not nullable
    return ["null", inner] if nullable else inner


# ---------------------------------------------------------------------------------------------- values


def value_of(rng: Random, node: Any) -> Any:  # noqa: PLR0911, PLR0912 - a case per kind of type
    """A value of the type, as fastavro writes it, logical types being plain numbers."""
    if isinstance(node, list):
        return value_of(rng, rng.choice(node))
    kind = node["type"] if isinstance(node, dict) else node
    match kind:
        case "null":
            return None
        case "boolean":
            return rng.random() < 0.5
        case "int":
            return rng.choice(_INTS) if rng.random() < 0.5 else rng.randint(-(2**31), 2**31 - 1)
        case "long":
            return rng.choice(_LONGS) if rng.random() < 0.5 else rng.randint(-(2**63), 2**63 - 1)
        case "float" | "double":
            return rng.choice(_FLOATS) if rng.random() < 0.5 else rng.uniform(-200, 200)
        case "string":
            return rng.choice(_TEXTS)
        case "bytes":
            return rng.randbytes(rng.randint(0, 8))
        case "enum":
            return rng.choice(node["symbols"])
        case "fixed":
            return rng.randbytes(node["size"])
        case "array":
            return [value_of(rng, node["items"]) for _ in range(rng.choice([0, 1, 2, 3, 9]))]
        case "map":
            return {rng.choice(_TEXTS): value_of(rng, node["values"]) for _ in range(rng.randint(0, 2))}
        case "record":
            return {item["name"]: value_of(rng, item["type"]) for item in node["fields"]}
    return value_of(rng, kind)
