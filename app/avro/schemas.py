"""Avro schemas: the gate every schema passes, their fingerprints, and the directory they are read from.

The gate refuses what would hurt a decoder: recursive types (a 5 kB datum can exhaust the stack), arrays of
items that take no bytes (6 bytes can claim 200 million of them) or hardly any for what they consist of, and
schemas of absurd size. A schema that passes is `inlined`: a tree without references in which every named type
has a name of its own.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro.schema

from app.errors import DecodeFailed, Reason, SchemaIncompatible, SchemaMissing

MAX_SCHEMA_BYTES = 262_144
MAX_NODES = 4_096  # named types may be referred to many times; the inlined tree must stay small
MAX_NAMES = 65_536  # enum symbols and aliases in that tree, copied with each reference to their type
MAX_DEPTH = 32
# Parts of an array's or map's item that take no bytes (records, nulls), for each byte the item takes at the least:
# 1 MB of records of a boolean and 4,000 nulls would keep a decoder busy for minutes.
MAX_IDLE_PARTS = 16
MAX_MESSAGE = 500  # characters of a refusal: it may quote all of a schema, and a thousand of them are remembered
FINGERPRINT_BYTES = 8

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
# The logical types that mean something here; the specification tells readers to ignore all others.
_LOGICAL_TYPES = {"int": {"date"}, "long": {"timestamp-millis", "timestamp-micros"}}
_LEAST_BYTES = {"null": 0, "float": 4, "double": 8}  # of all others one: a number, a length, a block count

Node = dict[str, Any] | list[Any]


@dataclass(frozen=True, slots=True)
class Schema:
    """A record schema that passed the gate.

    text: the schema as it was given. inlined: the tree the codecs work on.
    fingerprint: CRC-64-AVRO of the Parsing Canonical Form, little-endian, 8 bytes.
    """

    name: str
    text: str
    inlined: dict[str, Any] = field(repr=False)
    fingerprint: bytes

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The record's fields, types inlined."""
        fields: list[dict[str, Any]] = self.inlined["fields"]
        return fields


def parse(text: str) -> Schema:
    """The schema in this JSON text.

    Raises DecodeFailed (unsupported_schema), saying where and why the gate refused it.
    """
    if len(text) > MAX_SCHEMA_BYTES:
        raise _refused(f"{len(text)} bytes, at most {MAX_SCHEMA_BYTES} are accepted")
    try:
        raw = json.loads(text)
        inlined = _Inliner().inline(raw, "", 0)
        if not isinstance(inlined, dict) or inlined["type"] != "record":
            raise _refused("the top level must be a record")
        canonical = fastavro.schema.to_parsing_canonical_form(fastavro.schema.parse_schema(raw))
        fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as exc:
        raise _refused(f"not a valid Avro schema: {type(exc).__name__}: {exc}") from exc
    except fastavro.schema.SchemaParseException as exc:
        raise _refused(f"not a valid Avro schema: {exc}") from exc
    except fastavro.schema.UnknownType as exc:
        raise _refused(f"unknown type {exc.name!r}") from exc
    return Schema(name=inlined["original_name"], text=text, inlined=inlined, fingerprint=fingerprint)


def is_nullable(node: Node) -> bool:
    """Whether a datum of this type may be null."""
    return node["type"] == "null" if isinstance(node, dict) else any(is_nullable(branch) for branch in node)


def without_null(node: Node) -> Node:
    """What a union with null, or of one type, is besides null; any other type as it is."""
    if isinstance(node, list):
        rest = [branch for branch in node if branch["type"] != "null"] or node
        return rest[0] if len(rest) == 1 else node
    return node


def has_null_items(node: Node) -> bool:
    """Whether this is an array, nullable or not, in which an item may be null."""
    kind = without_null(node)
    return isinstance(kind, dict) and kind["type"] == "array" and is_nullable(kind["items"])


def enum_symbols(node: Node) -> list[str] | None:
    """The symbols of an enum, nullable or not; None for any other type."""
    kind = without_null(node)
    return list(kind["symbols"]) if isinstance(kind, dict) and kind["type"] == "enum" else None


class _Inliner:
    """Replaces references by what they name, and refuses what the module docstring lists."""

    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._open: list[str] = []
        self._nodes = self._names = 0

    def inline(self, raw: Any, namespace: str, depth: int) -> Node:  # noqa: ANN401, PLR0911 - JSON, a case per kind
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _refused(f"more than {MAX_NODES} types once references are followed")
        if depth > MAX_DEPTH:
            raise _refused(f"nested deeper than {MAX_DEPTH}")
        if isinstance(raw, str):
            return {"type": raw} if raw in PRIMITIVES else self._follow(raw, namespace, depth)
        if isinstance(raw, list):
            return self._union(raw, namespace, depth)
        if hidden := [key for key in raw if key.startswith("__")]:
            raise _refused(f"{hidden[0]!r} is an instruction to a library, not a part of a schema")
        kind = raw["type"]
        if isinstance(kind, (dict, list)):
            return self.inline(kind, namespace, depth + 1)
        if kind in PRIMITIVES:
            return _primitive(kind, raw.get("logicalType"))
        if kind == "array":
            items = self.inline(raw["items"], namespace, depth + 1)
            if not _least(items)[0]:
                raise _refused("an array of items that take no bytes")
            _check_item(items, 0)
            return {"type": "array", "items": items}
        if kind == "map":
            values = self.inline(raw["values"], namespace, depth + 1)
            _check_item(values, 1)  # the key's length
            return {"type": "map", "values": values}
        if kind in {"record", "error", "enum", "fixed"}:
            return self._define(raw, namespace, depth)
        return self._follow(kind, namespace, depth)

    def _union(self, raw: list[Any], namespace: str, depth: int) -> Node:
        branches = [self.inline(branch, namespace, depth + 1) for branch in raw]
        if not branches or any(isinstance(branch, list) for branch in branches):
            raise _refused("a union must have branches, and none of them may be a union")
        unnamed = [branch["type"] for branch in branches if isinstance(branch, dict) and "name" not in branch]
        if twice := sorted({kind for kind in unnamed if unnamed.count(kind) > 1}):
            raise _refused(f"a union with {twice[0]} twice")
        return branches

    def _define(self, raw: dict[str, Any], namespace: str, depth: int) -> Node:
        full_name = _full_name(raw["name"], raw.get("namespace", namespace))
        inner = full_name.rpartition(".")[0]
        self._named[full_name] = (raw, namespace)
        unique = f"T{self._nodes}"
        if raw["type"] == "enum":
            return {"type": "enum", "name": unique, "symbols": self._texts(raw, "symbols")} | _default(raw)
        if raw["type"] == "fixed":
            if type(raw["size"]) is not int or raw["size"] < 0:
                raise _refused(f"{full_name} has the size {raw['size']!r}")
            return {"type": "fixed", "name": unique, "size": raw["size"]}
        if full_name in self._open:
            raise _refused(f"{full_name} contains itself")
        self._open.append(full_name)
        fields = [
            {"name": str(item["name"]), "type": self.inline(item["type"], inner, depth + 1)}
            | _default(item)
            | ({"aliases": self._texts(item, "aliases")} if "aliases" in item else {})
            for item in raw["fields"]
        ]
        self._open.pop()
        names = [item["name"] for item in fields]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise _refused(f"{full_name} has two fields named {twice[0]!r}")
        aliases = [alias.rpartition(".")[2] for alias in self._texts(raw, "aliases")]
        original = full_name.rpartition(".")[2]
        return {
            "type": "record",
            "name": unique,
            "original_name": original,
            "aliases": aliases,
            "fields": fields,
        }

    def _texts(self, raw: dict[str, Any], key: str) -> list[str]:
        """A list of strings; none if there is no such key."""
        texts = raw.get(key, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise _refused(f"{raw['name']!r}: {key} must be a list of strings")
        self._names += len(texts)
        if self._names > MAX_NAMES:
            raise _refused(f"more than {MAX_NAMES} symbols and aliases once references are followed")
        return list(texts)

    def _follow(self, name: str, namespace: str, depth: int) -> Node:
        full_name = _full_name(name, namespace)
        if full_name in self._open:
            raise _refused(f"{full_name} contains itself")
        if full_name not in self._named:
            raise _refused(f"unknown type {name!r}")
        raw, defined_in = self._named[full_name]
        return self._define(raw, defined_in, depth)


def _default(raw: dict[str, Any]) -> dict[str, Any]:
    return {"default": raw["default"]} if "default" in raw else {}


def _primitive(kind: str, logical: object) -> dict[str, Any]:
    known = isinstance(logical, str) and logical in _LOGICAL_TYPES.get(kind, ())
    return {"type": kind, "logicalType": logical} if known else {"type": kind}


def _full_name(name: str, namespace: str | None) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _check_item(node: Node, other_bytes: int) -> None:
    size, idle = _least(node)
    if idle > MAX_IDLE_PARTS * (size + other_bytes):
        raise _refused(f"array or map items of {idle} parts that take no bytes, in {size} bytes")


def _least(node: Node) -> tuple[int, int]:
    """The fewest bytes a value may take, and the most parts of a value that may take none."""
    if isinstance(node, list):
        branches = [_least(branch) for branch in node]
        return 1 + min(size for size, _ in branches), max(idle for _, idle in branches)
    if node["type"] == "record":
        parts = [_least(item["type"]) for item in node["fields"]]
        return sum(size for size, _ in parts), 1 + sum(idle for _, idle in parts)
    size = node["size"] if node["type"] == "fixed" else _LEAST_BYTES.get(node["type"], 1)
    return size, int(size == 0)


def _refused(why: str) -> DecodeFailed:
    if len(why) > MAX_MESSAGE:
        why = f"{why[:MAX_MESSAGE]}…"
    return DecodeFailed(Reason.UNSUPPORTED_SCHEMA, f"schema refused: {why}")


class SchemaDirectory:
    """Every *.avsc below a folder. A name means the file nearest to the top, so history/ never shadows it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_name: dict[str, Schema] = {}
        self._by_fingerprint: dict[bytes, Schema] = {}
        self._refused: dict[str, str] = {}
        for path in self._files():
            try:
                schema = parse(path.read_text(encoding="utf-8"))
            except (DecodeFailed, UnicodeDecodeError) as exc:
                self._refused[path.name] = str(exc)
                continue
            self._by_name.setdefault(schema.name, schema)
            self._by_fingerprint.setdefault(schema.fingerprint, schema)

    def named(self, name: str) -> Schema:
        """The newest schema of this record name. Raises SchemaMissing or SchemaIncompatible."""
        if name in self._by_name:
            return self._by_name[name]
        known = ", ".join(sorted(self._by_name)) or "none"
        msg = f"schema {name!r} is not in {self._folder} (there: {known})"
        if self._refused:
            reasons = "; ".join(f"{file}: {why}" for file, why in self._refused.items())
            raise SchemaIncompatible(f"{msg}; refused: {reasons}")
        raise SchemaMissing(msg)

    def by_header(self, header: bytes) -> str:
        """The text of the schema that a single-object header names. Raises DecodeFailed (unknown_schema)."""
        fingerprint = header[-FINGERPRINT_BYTES:]
        if fingerprint not in self._by_fingerprint:
            msg = f"no schema with fingerprint {fingerprint.hex()} in {self._folder}"
            raise DecodeFailed(Reason.UNKNOWN_SCHEMA, msg)
        return self._by_fingerprint[fingerprint].text

    def _files(self) -> Iterator[Path]:
        if not self._folder.is_dir():
            raise SchemaMissing(f"schema directory {self._folder} does not exist")
        yield from sorted(self._folder.rglob("*.avsc"), key=lambda path: (len(path.parts), str(path)))


def without_logical_types(node: Any) -> Any:  # noqa: ANN401 - a part of a schema
    """The same, but fastavro takes and gives plain numbers for it. Defaults are dropped: nothing is resolved."""
    if isinstance(node, list):
        return [without_logical_types(branch) for branch in node]
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if key not in {"logicalType", "default", "aliases"}}
        return {key: value if key == "symbols" else without_logical_types(value) for key, value in kept.items()}
    return node
