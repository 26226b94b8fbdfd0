"""Which Avro types are columns, of which Arrow types, and how the columnar codec is asked for them.

A reader's top-level fields become columns when they are numbers, booleans, strings, enums, timestamps or
arrays of those, nullable or not; others cannot be features and are left out.
"""

import pyarrow as pa

from app.avro.schemas import Node, Schema, has_null_items, is_nullable, without_null

_ARROW = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
}
_LOGICAL = {
    "timestamp-millis": pa.timestamp("ms"),
    "timestamp-micros": pa.timestamp("us"),
    "date": pa.date32(),
}

_COLUMNAR_KINDS = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "enum"})
_READABLE_ITEMS = _COLUMNAR_KINDS - {"enum"}  # in arrays, indexes would be checked by nobody
_NULL_ITEMS = {"items": "nullable"}  # Arrow's own flag would make two types of what is converted into one another


def arrow_type(node: Node) -> pa.DataType | None:
    """The column type of a reader's field, or None if it cannot be a column."""
    kind = without_null(node)
    if isinstance(kind, list):
        return None
    if kind["type"] == "enum":
        return pa.dictionary(pa.int32(), pa.string())
    if kind["type"] == "array":
        item = arrow_type(kind["items"])
        return None if item is None or pa.types.is_dictionary(item) or pa.types.is_nested(item) else pa.list_(item)
    if kind.get("logicalType") in _LOGICAL:
        return _LOGICAL[kind["logicalType"]]
    return _ARROW.get(kind["type"])


def reader_columns(reader: Schema) -> pa.Schema:
    """The columns every decoder of this reader schema gives, whatever the writer's version."""
    fields = [(item["name"], item["type"], arrow_type(item["type"])) for item in reader.fields]
    return pa.schema(
        [
            pa.field(name, kind, is_nullable(node), _NULL_ITEMS if has_null_items(node) else None)
            for name, node, kind in fields
            if kind is not None
        ]
    )


def may_have_null_items(column: pa.Field) -> bool:
    """Whether this one of `reader_columns` is of arrays in which an item may be null."""
    return bool(column.metadata)


def no_columns(reader: Schema) -> pa.RecordBatch:
    """The reader's columns with no rows."""
    columns = reader_columns(reader)
    return pa.RecordBatch.from_arrays([pa.array([], item.type) for item in columns], schema=columns)


def columnar_node(node: Node) -> Node:
    """The type to read in columns instead of a writer's top-level type: plain, without logical types.

    An enum is read as its index and an int as a long, because the columnar codec takes any index and wraps
    ints that do not fit 32 bits; `Resolution` checks the ranges.
    """
    if isinstance(node, list):
        return [columnar_node(branch) for branch in node]
    if node["type"] in {"int", "long", "enum"}:
        return {"type": "long"}
    if node["type"] == "array":
        return {"type": "array", "items": columnar_node(node["items"])}
    return node


def columnar_type(node: Node) -> pa.DataType:
    """The Arrow type of a column read as `columnar_node(node)`, where the type is one that can be resolved."""
    kind = without_null(columnar_node(node))
    if isinstance(kind, list):
        raise TypeError("a union of several types is no column")
    if kind["type"] == "array":
        return pa.list_(columnar_type(kind["items"]))
    return pa.null() if kind["type"] == "null" else _ARROW[kind["type"]]


def is_columnar(node: Node) -> bool:
    """Whether the columnar codec knows the type, and knows it for a column."""
    if isinstance(node, list):
        return len(node) == 2 and is_nullable(node) and all(is_columnar(branch) for branch in node)
    if node["type"] == "array":
        return is_columnar(node["items"])
    return node["type"] in _COLUMNAR_KINDS


def reads_in_columns(node: Node) -> bool:
    """Whether `Resolution` can also check what the columnar codec does not."""
    if not is_columnar(node):
        return False
    kind = without_null(node)
    if isinstance(kind, dict) and kind["type"] == "array":
        item = without_null(kind["items"])
        return isinstance(item, dict) and item["type"] in _READABLE_ITEMS
    return True
