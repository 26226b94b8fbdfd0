"""What Hypothesis draws: Avro schemas, pairs of schemas that resolve, and data for them.

A node is Avro JSON. Names of named types come from their place, so that a schema never defines one twice.
"""

import copy
from typing import Any

from hypothesis import strategies as st

INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1)
EXACT_LONGS = st.integers(-(2**53), 2**53)  # those that a double holds
FLOATS = st.floats(width=32)
SYMBOLS = ("basic", "standard", "premium", "gold")

Primitives = dict[str, st.SearchStrategy[Any]]
PRIMITIVES: Primitives = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": INTS,
    "long": EXACT_LONGS,
    "float": FLOATS,
    "double": st.floats(),
    "string": st.text(max_size=8),
    "bytes": st.binary(max_size=8),
}
EXTREME: Primitives = PRIMITIVES | {
    "int": st.one_of(st.sampled_from([-(2**31), 2**31 - 1]), INTS),
    "long": st.one_of(st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1]), LONGS),
    "string": st.one_of(st.text(max_size=8), st.just("long" * 5_000)),
}
COLUMN_NUMBERS = ("boolean", "int", "long", "float", "double", "string")
LOGICAL = (
    {"type": "int", "logicalType": "date"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
)


def data_of(node: Any, primitives: Primitives = PRIMITIVES) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - a case a type
    """Values of a type, as fastavro takes and gives them (logical types as plain numbers)."""
    if isinstance(node, list):
        return st.one_of([data_of(branch, primitives) for branch in node])
    kind = node["type"] if isinstance(node, dict) else node
    if isinstance(kind, (dict, list)):
        return data_of(kind, primitives)
    match kind:
        case "enum":
            return st.sampled_from(node["symbols"])
        case "fixed":
            return st.binary(min_size=node["size"], max_size=node["size"])
        case "array":
            return st.lists(data_of(node["items"], primitives), max_size=4)
        case "map":
            return st.dictionaries(st.text(max_size=3), data_of(node["values"], primitives), max_size=3)
        case "record":
            return st.fixed_dictionaries({item["name"]: data_of(item["type"], primitives) for item in node["fields"]})
    return primitives[kind]


@st.composite
def enums(draw: st.DrawFn, name: str) -> dict[str, Any]:
    symbols = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True))
    return {"type": "enum", "name": name, "symbols": symbols}


@st.composite
def column_types(draw: st.DrawFn, name: str) -> Any:
    """A type that becomes a column: a number, text, an enum, an array of numbers; nullable or not."""
    kind = draw(st.sampled_from(["primitive", "primitive", "logical", "enum", "array"]))
    if kind == "primitive":
        node = draw(st.sampled_from(COLUMN_NUMBERS))
    elif kind == "logical":
        node = draw(st.sampled_from(LOGICAL))
    elif kind == "enum":
        node = draw(enums(f"{name}_enum"))
    else:
        item = draw(st.sampled_from([*COLUMN_NUMBERS, *LOGICAL]))
        node = {"type": "array", "items": draw(st.sampled_from([item, ["null", item]]))}
    return draw(st.sampled_from([node, node, ["null", node], [node, "null"]]))


@st.composite
def odd_types(draw: st.DrawFn, name: str, depth: int = 2) -> Any:  # noqa: PLR0911 - a case per kind of type
    """Any type at all."""
    kinds = ["column", "bytes", "null", "fixed"] + (["record", "map", "array", "union"] if depth else [])
    match draw(st.sampled_from(kinds)):
        case "column":
            return draw(column_types(name))
        case "fixed":
            return {"type": "fixed", "name": f"{name}_fixed", "size": draw(st.integers(0, 5))}
        case "record":
            return draw(records(f"{name}_record", types=lambda inner: odd_types(inner, depth - 1), max_fields=3))
        case "map":
            return {"type": "map", "values": draw(odd_types(f"{name}_v", depth - 1))}
        case "array":
            items = draw(odd_types(f"{name}_i", depth - 1).filter(lambda node: not takes_no_bytes(node)))
            return {"type": "array", "items": items}
        case "union":
            return draw(
                st.lists(st.sampled_from(["null", "boolean", "long", "double", "string"]), min_size=1, unique=True)
            )
        case plain:
            return plain


def takes_no_bytes(node: Any) -> bool:
    if isinstance(node, list):
        return False
    if node == "null":
        return True
    if isinstance(node, str):
        return False
    if node["type"] == "record":
        return all(takes_no_bytes(item["type"]) for item in node["fields"])
    return node["type"] == "fixed" and node["size"] == 0


@st.composite
def records(draw: st.DrawFn, name: str = "Event", types: Any = column_types, max_fields: int = 5) -> dict[str, Any]:
    """A record schema whose fields are f0, f1, …"""
    count = draw(st.integers(0 if types is not column_types else 1, max_fields))
    fields = [{"name": f"f{i}", "type": draw(types(f"{name}_{i}"))} for i in range(count)]
    return {"type": "record", "name": name, "fields": fields}


_PROMOTIONS = {
    "int": ("int", "long", "float", "double"),
    "long": ("long", "float", "double"),
    "float": ("float", "double"),
}


@st.composite
def evolved(draw: st.DrawFn, writer: dict[str, Any]) -> dict[str, Any]:
    """A reader schema for that writer's: promoted, renamed, reordered, nullable or not, fields dropped and added."""
    fields = []
    for item in writer["fields"]:
        if draw(st.integers(0, 5)) == 0:
            continue
        field: dict[str, Any] = {"name": item["name"], "type": draw(evolved_types(copy.deepcopy(item["type"])))}
        if draw(st.integers(0, 3)) == 0:
            field |= {"name": f"renamed_{item['name']}", "aliases": ["unrelated", item["name"]]}
        fields.append(field)
    for i in range(draw(st.integers(0, 2))):
        node = draw(column_types(f"added_{i}"))
        branch = node[0] if isinstance(node, list) else node
        fields.append({"name": f"added{i}", "type": node, "default": draw(_json_default(branch))})
    fields = fields or [{"name": "other", "type": "int", "default": 0}]  # a reader has at least one column
    return {"type": "record", "name": writer["name"], "fields": draw(st.permutations(fields))}


@st.composite
def evolved_types(draw: st.DrawFn, node: Any) -> Any:
    """What a column of that type may become."""
    inner, nullable = node, False
    if isinstance(node, list):
        nullable, inner = True, next(branch for branch in node if branch != "null")
    if isinstance(inner, str):
        inner = draw(st.sampled_from(_PROMOTIONS.get(inner, (inner,))))
    elif inner["type"] == "enum":
        inner["symbols"] = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True))
        if draw(st.booleans()):
            inner["default"] = draw(st.sampled_from(inner["symbols"]))
    elif inner["type"] == "array" and isinstance(inner["items"], str):
        inner["items"] = draw(st.sampled_from(_PROMOTIONS.get(inner["items"], (inner["items"],))))
    if draw(st.integers(0, 3)) == 0:
        nullable = not nullable
    return ["null", inner] if nullable else inner


def _json_default(node: Any) -> st.SearchStrategy[Any]:
    if isinstance(node, dict) and node["type"] == "array":
        return st.lists(st.none() if isinstance(node["items"], list) else _json_default(node["items"]), max_size=2)
    kind = node if isinstance(node, str) else node["type"]
    if kind in {"float", "double"}:
        return st.integers(-1000, 1000).map(lambda quarter: quarter / 4)
    return data_of(node)


@st.composite
def mutated(draw: st.DrawFn, value: bytes, start: int) -> bytes:
    """value[:start] as it is, and a few bytes changed, lost, added or repeated after it."""
    body = bytearray(value[start:])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        match draw(st.sampled_from(["set", "set", "flip", "delete", "insert", "cut", "repeat"])):
            case "set":
                body[at : at + 1] = bytes([draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF]))])
            case "flip":
                body[at : at + 1] = bytes([body[at] ^ (1 << draw(st.integers(0, 7)))]) if at < len(body) else b""
            case "delete":
                del body[at : at + draw(st.integers(1, 4))]
            case "insert":
                body[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "cut":
                del body[at:]
            case "repeat":
                body[at:at] = body[at : at + 8]
    return value[:start] + bytes(body)


# ------------------------------------------------------------------------------------------ what claims to be a schema

_KEYS = (
    "type",
    "name",
    "fields",
    "items",
    "values",
    "symbols",
    "size",
    "namespace",
    "default",
    "aliases",
    "logicalType",
)
_WORDS = ("record", "array", "map", "enum", "fixed", "error", "null", "int", "long", "Event", "a.b", "", "\ud800", "..")
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from((*_WORDS, 2**63, 10**400)),
)


def json_values() -> st.SearchStrategy[Any]:
    """Any JSON, with the words and keys of Avro strewn in."""
    keys = st.one_of(st.sampled_from(_KEYS), st.text(max_size=2))
    return st.recursive(
        _SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=5)),
        max_leaves=12,
    )


def schema_like() -> st.SearchStrategy[dict[str, Any]]:
    """Records that are schemas but for what is wrong with them here and there."""
    odd = json_values()
    node: st.SearchStrategy[Any] = st.deferred(
        lambda: st.one_of(
            st.sampled_from(["int", "null", "string", "bytes", "Event", "T"]),
            st.lists(node, max_size=3),
            odd,
            st.fixed_dictionaries(
                {"type": st.sampled_from(["record", "array", "map", "enum", "fixed", "int"])},
                optional={
                    "name": st.one_of(st.sampled_from(["T", "a.U"]), _SCALARS),
                    "items": node,
                    "values": node,
                    "symbols": st.one_of(st.lists(st.sampled_from(["a", "b", "c"]), max_size=3), odd),
                    "size": _SCALARS,
                    "fields": st.lists(field, max_size=2),
                    "default": odd,
                    "aliases": odd,
                    "logicalType": _SCALARS,
                },
            ),
        )
    )
    field = st.fixed_dictionaries(
        {"name": st.one_of(st.sampled_from(["a", "b", "c"]), _SCALARS), "type": node},
        optional={"default": odd, "aliases": odd},
    )
    return st.builds(
        lambda fields, more: {"type": "record", "name": "Event", "fields": fields} | more,
        st.lists(field, max_size=3),
        st.dictionaries(st.sampled_from(("namespace", "aliases", "logicalType", "doc")), odd, max_size=1),
    )
