"""Schema resolution in columns: what a writer's columns must go through to become the reader's.

The rules are those of the Avro 1.12 specification, "Schema Resolution": fields match by name or by the
reader's aliases, a missing field takes the reader's default, int → long → float → double and string promote,
enum symbols match by name. Fields the reader does not name are dropped.

A reader's top-level fields become columns when they are numbers, booleans, strings, enums, timestamps or
arrays of those, nullable or not; others cannot be features and are left out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.avro.schemas import Node, Schema, is_nullable, without_null
from app.errors import DecodeFailed, Reason

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
_PROMOTIONS = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "double": {"double"},
    "boolean": {"boolean"},
    "string": {"string"},
}
_INT32 = np.iinfo(np.int32)

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BadRows:
    """Rows whose datum is well formed or nearly so, but cannot become the reader's value."""

    mask: BoolArray
    reason: Reason
    message: str


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
    fields = [(item, arrow_type(item["type"])) for item in reader.fields]
    return pa.schema(
        [pa.field(item["name"], kind, is_nullable(item["type"])) for item, kind in fields if kind is not None]
    )


def no_columns(reader: Schema) -> pa.RecordBatch:
    """The reader's columns with no rows."""
    columns = reader_columns(reader)
    return pa.RecordBatch.from_arrays([pa.array([], item.type) for item in columns], schema=columns)


def columnar_node(node: Node) -> Node:
    """The type to read in columns instead of a writer's top-level type.

    An enum is read as its index and an int as a long, because the columnar codec takes any index and wraps
    ints that do not fit 32 bits; `Resolution` checks the ranges.
    """
    if isinstance(node, list):
        # only beside null: a union of two integer types would name long twice
        return [columnar_node(branch) for branch in node] if len(node) == 2 and is_nullable(node) else node
    if node["type"] == "enum" or (node["type"] == "int" and "logicalType" not in node):
        return {"type": "long"}
    if node["type"] == "array":
        return {"type": "array", "items": columnar_node(node["items"])}
    return node


class Resolution:
    """From one writer's columns, read as `columnar_node` says, to the reader's columns."""

    def __init__(self, writer: Schema, reader: Schema) -> None:
        """Raises DecodeFailed (unsupported_schema) if the two do not resolve."""
        names = {reader.name, *reader.inlined["aliases"]}
        if writer.name not in names:
            raise _unresolved(f"record {writer.name!r} is not {reader.name!r}")
        self.nothing = no_columns(reader)
        self._schema = self.nothing.schema
        positions = {item["name"]: index for index, item in enumerate(writer.fields)}
        self._steps: list[_Column | _Default] = []
        for item in reader.fields:
            candidates = [item["name"], *item.get("aliases", ())]
            found = next((name for name in candidates if name in positions), None)
            if found is None and "default" not in item:
                raise _unresolved(f"the writer lacks {item['name']!r}, which has no default")
            if item["name"] not in self._schema.names:
                continue
            if found is None:
                self._steps.append(_Default(item, self._schema.field(item["name"]).type))
            else:
                position = positions[found]
                self._steps.append(_Column(position, writer.fields[position]["type"], item))

    def resolve(self, arrays: list[pa.Array], rows: int) -> tuple[pa.RecordBatch, list[BadRows]]:
        """Columns of `rows` rows in the writer's field order → the reader's, and which rows have no answer.

        A bad row's values are arbitrary; drop it.
        """
        bad: list[BadRows] = []
        columns = [
            step.repeat(rows) if isinstance(step, _Default) else step.convert(arrays[step.position], bad)
            for step in self._steps
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema), bad


class _Default:
    """A field that the writer lacks: the reader's default in every row."""

    def __init__(self, item: dict[str, Any], kind: pa.DataType) -> None:
        branch = item["type"][0] if isinstance(item["type"], list) else item["type"]
        value = None if branch["type"] == "null" else item["default"]
        try:
            if pa.types.is_dictionary(kind):
                symbols = pa.array(without_null(item["type"])["symbols"], pa.string())  # type: ignore[call-overload]
                index = None if value is None else symbols.to_pylist().index(value)
                self._one = pa.DictionaryArray.from_arrays(pa.array([index], pa.int32()), symbols)
            else:
                self._one = (
                    pa.array([value], pa.int64()).cast(kind) if pa.types.is_timestamp(kind) else pa.array([value], kind)
                )
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as exc:
            raise _unresolved(f"{item['name']!r}: default {value!r} is not of its type") from exc

    def repeat(self, rows: int) -> pa.Array:
        return self._one.take(pa.array(np.zeros(rows, np.int32)))


class _Column:
    """One writer column → one reader column."""

    def __init__(self, position: int, writer: Node, item: dict[str, Any]) -> None:
        self.position = position
        self._name = item["name"]
        source, target = without_null(writer), without_null(item["type"])
        if isinstance(source, list) or isinstance(target, list):
            raise _unresolved(f"{self._name!r}: a union of several types")
        self._target = arrow_type(target)
        self._rejects_null = is_nullable(writer) and not is_nullable(item["type"])
        self._symbols: pa.Array | None = None
        self._writer_symbols: list[str] = []
        self._index_map: npt.NDArray[np.int32] | None = None
        if source["type"] == target["type"] == "enum":
            self._map_symbols(source, target)
        elif not _promotes(source, target):
            raise _unresolved(f"{self._name!r}: {source['type']} does not become {target['type']}")
        number = without_null(source["items"]) if source["type"] == "array" else source
        self._is_int = isinstance(number, dict) and number["type"] == "int" and "logicalType" not in number

    def _map_symbols(self, writer: dict[str, Any], reader: dict[str, Any]) -> None:
        self._symbols = pa.array(reader["symbols"], pa.string())
        self._writer_symbols = writer["symbols"]
        if writer["symbols"] != reader["symbols"]:
            fallback = reader["symbols"].index(reader["default"]) if "default" in reader else -1
            known = {symbol: index for index, symbol in enumerate(reader["symbols"])}
            self._index_map = np.array([known.get(symbol, fallback) for symbol in writer["symbols"]], np.int32)

    def convert(self, column: pa.Array, bad: list[BadRows]) -> pa.Array:
        if self._rejects_null and column.null_count:
            mask = column.is_null().to_numpy(zero_copy_only=False)
            bad.append(BadRows(mask, Reason.MISSING_VALUE, f"{self._name}: null, the reader's field is not nullable"))
        if self._symbols is not None:
            return self._convert_enum(column, bad)
        if self._is_int and len(column):
            self._check_int32(column, bad)
        if column.type == self._target:
            return column
        return column.cast(self._target, safe=False)

    def _convert_enum(self, column: pa.Array, bad: list[BadRows]) -> pa.Array:
        nulls = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        index = (column.fill_null(0) if nulls is not None else column).to_numpy()
        count = len(self._writer_symbols)
        # one comparison for both ends: a negative index is a huge unsigned one
        outside = index.view(np.uint64) >= count
        if outside.any():
            message = f"{self._name}: enum index out of range, allowed 0 to {count - 1}"
            bad.append(BadRows(outside, Reason.BAD_INDEX, message))
            index = np.where(outside, 0, index)
        index = index.astype(np.int32)
        if self._index_map is not None:
            index = self._index_map[index]
            if (unknown := index < 0).any():
                message = f"{self._name}: a symbol that the reader's enum does not have"
                bad.append(BadRows(unknown, Reason.UNKNOWN_CATEGORY, message))
                index = np.where(unknown, 0, index).astype(np.int32)
        indices = pa.array(index, mask=nulls) if nulls is not None else pa.array(index)
        return pa.DictionaryArray.from_arrays(indices, self._symbols, safe=False)

    def _check_int32(self, column: pa.Array, bad: list[BadRows]) -> None:
        is_list = pa.types.is_list(column.type)
        flat = column.flatten() if is_list else column
        numbers = (flat.fill_null(0) if flat.null_count else flat).to_numpy()
        outside = numbers != numbers.astype(np.int32)
        if not outside.any():
            return
        if is_list:
            row_of = np.repeat(np.arange(len(column)), column.value_lengths().fill_null(0).to_numpy())
            outside = np.isin(np.arange(len(column)), row_of[outside])
        message = f"{self._name}: does not fit int, allowed {_INT32.min} to {_INT32.max}"
        bad.append(BadRows(outside, Reason.OUT_OF_RANGE, message))


def _promotes(source: Node, target: Node) -> bool:
    if isinstance(source, list) or isinstance(target, list):
        return False
    if source["type"] == target["type"] == "array":
        items, wanted = without_null(source["items"]), without_null(target["items"])
        return (is_nullable(target["items"]) or not is_nullable(source["items"])) and _promotes(items, wanted)
    if source["type"] == "enum":
        return False
    return target["type"] in _PROMOTIONS.get(source["type"], ())


def _unresolved(why: str) -> DecodeFailed:
    return DecodeFailed(Reason.UNSUPPORTED_SCHEMA, f"the writer's schema does not resolve to the reader's: {why}")
