"""Avro schemas: the gate every schema passes, their fingerprints, and the directory they are read from.

The gate refuses what would hurt a decoder: recursive types (a 5 kB datum can exhaust the stack), arrays of
items that take no bytes (6 bytes can claim 200 million of them), and schemas of absurd size. A schema that
passes is `inlined`: a tree without references in which every named type has a name of its own.
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
MAX_DEPTH = 32
FINGERPRINT_BYTES = 8

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
# The logical types that mean something here; the specification tells readers to ignore all others.
_LOGICAL_TYPES = {"int": {"date"}, "long": {"timestamp-millis", "timestamp-micros"}}

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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
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


def enum_symbols(node: Node) -> list[str] | None:
    """The symbols of an enum, nullable or not; None for any other type."""
    kind = without_null(node)
    return list(kind["symbols"]) if isinstance(kind, dict) and kind["type"] == "enum" else None


class _Inliner:
    """Replaces references by what they name, and refuses what the module docstring lists."""

    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._open: list[str] = []
        self._nodes = 0

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
            if _takes_no_bytes(items):
                raise _refused("an array of items that take no bytes")
            return {"type": "array", "items": items}
        if kind == "map":
            return {"type": "map", "values": self.inline(raw["values"], namespace, depth + 1)}
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
            symbols = list(raw["symbols"])
            return {"type": "enum", "name": unique, "symbols": symbols} | _default(raw)
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
            | ({"aliases": list(item["aliases"])} if "aliases" in item else {})
            for item in raw["fields"]
        ]
        self._open.pop()
        names = [item["name"] for item in fields]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise _refused(f"{full_name} has two fields named {twice[0]!r}")
        aliases = [alias.rpartition(".")[2] for alias in raw.get("aliases", ())]
        original = full_name.rpartition(".")[2]
        return {
            "type": "record",
            "name": unique,
            "original_name": original,
            "aliases": aliases,
            "fields": fields,
        }

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


def _takes_no_bytes(node: Node) -> bool:
    if isinstance(node, list):
        return False  # the branch index takes one
    if node["type"] == "record":
        return all(_takes_no_bytes(item["type"]) for item in node["fields"])
    return node["type"] == "null" or bool(node["type"] == "fixed" and node["size"] == 0)


def _refused(why: str) -> DecodeFailed:
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
