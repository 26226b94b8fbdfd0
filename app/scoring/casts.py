"""What the columns of files go through to become columns that features are made of.

Files say things that events do not: numbers as text (CSV), whole numbers as fractions (pandas, wherever one is
missing), decimals, lists of a fixed size, bytes that are text. A cell that cannot become what the model takes
rejects its row. A column that has the right type already is passed on as it is.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.errors import Reason, SchemaIncompatible, Stage
from app.records import Columns, IntArray, Rejection
from app.specs import Feature, InputSpec, NumberFeature, TensorFeature

LONGEST_VALUE = 64  # characters of a rejected cell quoted in a message

Refused = dict[int, tuple[Reason, str]]


@dataclass(frozen=True, slots=True)
class _Cast:
    field: str
    target: pa.DataType


class ColumnCasts:
    """The casts of one model's fields for the columns of one schema.

    Fields that are absent, or that no cast helps, are left alone: the feature step names them. Not for two threads
    at once.
    """

    def __init__(self, inputs: tuple[InputSpec, ...], schema: pa.Schema) -> None:
        self._fields = fields_of(inputs)
        self._wanted = {feature.field: (feature, spec.dtype) for spec in inputs for feature in spec.features}
        self._bind(schema)

    def _bind(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._present = [name for name in self._fields if schema.get_field_index(name) >= 0]
        found = ((name, _target(*self._wanted[name], schema.field(name).type)) for name in self._present)
        self._casts = {name: target for name, target in found if target is not None}

    @property
    def schema(self) -> pa.Schema:
        """Of what `apply` gives."""
        return pa.schema([(name, self._casts.get(name, self._schema.field(name).type)) for name in self._present])

    def apply(self, columns: Columns) -> tuple[Columns, list[Rejection]]:
        """The fields of the model, cast; and the rows that hold what cannot be cast, in order.

        Raises pa.ArrowInvalid for a dictionary column whose indices point outside its dictionary.
        """
        table = columns.table
        if not table.schema.equals(self._schema):
            self._bind(table.schema)
        refused: Refused = {}
        arrays = []
        for name in self._present:
            column = _undamaged(table.column(name))
            target = self._casts.get(name)
            arrays.append(column if target is None else _cast_all(name, column, target, refused))
        return _without(refused, pa.RecordBatch.from_arrays(arrays, schema=self.schema), columns.rows)


class EventCasts:
    """The casts of the columns of files to those of events, all of them; null where a file has none.

    Not for two threads at once.
    """

    def __init__(self, event: pa.Schema) -> None:
        self._event = event
        self._checked: pa.Schema | None = None

    def check(self, schema: pa.Schema) -> None:
        """Raises SchemaIncompatible if no column is an event's, or if one never becomes what the event has."""
        if not set(self._event.names) & set(schema.names):
            raise SchemaIncompatible(f"there is none of the events' columns: {', '.join(self._event.names)}")
        for item in self._event:
            if schema.get_field_index(item.name) < 0:
                continue
            given = schema.field(item.name).type
            try:
                _to_event(item, pa.array([], given), {})
            except pa.ArrowException as exc:
                raise SchemaIncompatible(f"the column {item.name!r} is {given}, events have {item.type}") from exc

    def apply(self, columns: Columns) -> tuple[Columns, list[Rejection]]:
        """The events, and the rows that hold what cannot be cast, in order.

        Raises SchemaIncompatible as `check`, and pa.ArrowInvalid as `ColumnCasts.apply`.
        """
        table = columns.table
        if self._checked is None or not table.schema.equals(self._checked):
            self.check(table.schema)
            self._checked = table.schema
        refused: Refused = {}
        arrays = []
        for item in self._event:
            index = table.schema.get_field_index(item.name)
            if index < 0:
                arrays.append(pa.nulls(table.num_rows, item.type))
            else:
                arrays.append(_to_event(item, _undamaged(table.column(index)), refused))
        events = pa.RecordBatch.from_arrays(arrays, schema=self._event)
        return _without(refused, events, columns.rows)


def fields_of(inputs: tuple[InputSpec, ...]) -> list[str]:
    """Names of the columns a model is fed from, in manifest order, each once."""
    return list(dict.fromkeys(feature.field for spec in inputs for feature in spec.features))


def castable(column: pa.Array, target: pa.DataType) -> tuple[pa.Array, IntArray]:
    """The column cast, null where a value cannot be; and which rows those are, (k,), rising.

    Halved until the bad ones are alone, so a column without any costs one cast.
    """
    done: list[pa.Array] = []
    bad: list[int] = []
    parts = [(0, len(column))]
    while parts:
        start, end = parts.pop()
        try:
            done.append(column.slice(start, end - start).cast(target))
        except pa.ArrowInvalid:
            if end - start == 1:
                done.append(pa.nulls(1, target))
                bad.append(start)
            else:
                middle = (start + end) // 2
                parts += [(middle, end), (start, middle)]  # the first half comes off first: rows stay in order
    whole = done[0] if len(done) == 1 else pa.concat_arrays(done)
    return whole, np.array(bad, np.int64)


def _undamaged(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.DictionaryArray):
        column.validate(full=True)
    return column


def _without(refused: Refused, table: pa.RecordBatch, rows: IntArray) -> tuple[Columns, list[Rejection]]:
    if not refused:
        return Columns(table, rows), []
    rejected = [
        Rejection(int(rows[row]), Stage.DECODE, reason, "DecodeFailed", message)
        for row, (reason, message) in sorted(refused.items())
    ]
    kept = np.delete(np.arange(table.num_rows), list(refused))
    return Columns(table.take(pa.array(kept)), rows[kept]), rejected


def _to_event(item: pa.Field, column: pa.Array, refused: Refused) -> pa.Array:
    """Text becomes an enum's dictionary, whatever it says: what it may say is the handler's business."""
    if column.type == item.type:
        return column
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    plain = item.type.value_type if pa.types.is_dictionary(item.type) else item.type
    if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(plain) and _is_finer(column.type, plain):
        made = column.cast(plain, safe=False)  # less than the unit is lost, as on its way into an event
    else:
        made = column if column.type == plain else _cast_all(item.name, column, plain, refused)
    return made.dictionary_encode().cast(item.type) if pa.types.is_dictionary(item.type) else made


def _cast_all(name: str, column: pa.Array, target: pa.DataType, refused: Refused) -> pa.Array:
    try:
        return column.cast(target)
    except pa.ArrowInvalid:  # only now: most files have neither bad cells nor blanks around their numbers
        trimmed = pc.utf8_trim_whitespace(column) if pa.types.is_string(column.type) else column
        if pa.types.is_string(trimmed.type) and pa.types.is_integer(target):
            # whole numbers as programs write them whose columns of them become floats at the first gap
            trimmed = pc.replace_substring_regex(trimmed, pattern=r"^([+-]?[0-9]+)\.0*$", replacement=r"\1")
    cast_column, bad = castable(trimmed, target)
    for row in bad.tolist():
        if pa.types.is_string(target):
            refused.setdefault(row, (Reason.BAD_UTF8, f"{name} is not UTF-8"))
            continue
        value = _value(column[row])
        if isinstance(value, str) and (pa.types.is_integer(target) or pa.types.is_floating(target)):
            refused.setdefault(row, (Reason.NOT_FINITE, f"{name} is {_short(value)}, allowed are finite numbers"))
        elif isinstance(value, str):
            refused.setdefault(row, (Reason.BAD_SHAPE, f"{name} is {_short(value)}, which is no {target}"))
        else:
            refused.setdefault(
                row, (Reason.OUT_OF_RANGE, f"{name} is {_short(str(value))}, not what {target} can hold")
            )
    return cast_column


def _is_finer(given: pa.DataType, target: pa.DataType) -> bool:
    units = ("s", "ms", "us", "ns")
    return units.index(given.unit) > units.index(target.unit)


def _value(scalar: pa.Scalar) -> object:
    """For a message; Python has no word for times of the year 20,000 or of nanoseconds."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return scalar.value


def _short(value: str) -> str:
    return repr(value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "…")


def _target(feature: Feature, dtype: str, given: pa.DataType) -> pa.DataType | None:
    """What a column of this type has to be cast to, None if nothing."""
    if pa.types.is_dictionary(given) and not _is_text(given.value_type):
        given = given.value_type
        return _target(feature, dtype, given) or given
    if isinstance(feature, TensorFeature):
        if pa.types.is_null(given):
            return pa.list_(pa.float64())
        fixed = pa.types.is_fixed_size_list(given) or pa.types.is_list_view(given)
        return pa.list_(given.value_type) if fixed else None
    if isinstance(feature, NumberFeature):
        return _number_target(dtype, given)
    if pa.types.is_dictionary(given) or _is_text(given):
        return None
    bytes_or_codes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_integer, pa.types.is_boolean)
    views = (pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_null)
    return pa.string() if any(kind(given) for kind in (*bytes_or_codes, *views)) else None


def _number_target(dtype: str, given: pa.DataType) -> pa.DataType | None:
    whole = dtype in {"int32", "int64"}
    target = pa.int64() if whole else pa.float64()
    if pa.types.is_dictionary(given):
        return target
    if pa.types.is_floating(given):
        return target if whole else None
    if pa.types.is_boolean(given) or (pa.types.is_integer(given) and given != pa.uint64()):
        return None
    others = (pa.types.is_decimal, pa.types.is_string_view, pa.types.is_null)
    return target if _is_text(given) or given == pa.uint64() or any(kind(given) for kind in others) else None


def _is_text(given: pa.DataType) -> bool:
    return cast("bool", pa.types.is_string(given) or pa.types.is_large_string(given))
