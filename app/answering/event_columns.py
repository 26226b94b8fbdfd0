"""Rows as people write them → columns of events, or rejected rows; the stream's own feature step takes it from there.

A row has either fields by name (an instance) or numbers by position (a vector: the fields of the model's features in
the order of its manifest, a category as its index, an array field as its elements, NaN or null for what is missing).
Columns are made of all rows at once; rows are looked at one by one only to say why they were refused, and each message
begins with the field. A number is a number: text, true and false are none, and a whole-number field takes 34.0 but not
34.5. Arrow follows nested lists by recursion: rows are nested no deeper than the JSON parser lets them (1,024).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from reprlib import Repr
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.errors import Reason, Stage
from app.records import Columns, Rejection
from app.specs import Feature, InputSpec, OneHotFeature, OrdinalFeature, TensorFeature

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
# What Arrow raises at values that are of another type than it was told, or than their neighbours.
ODD = (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError)
LONGEST_VALUE = 64  # characters of a refused value quoted in a message
_NUMBERS = (int, float, np.number, type(None))
DEEPEST_VALUE = 4  # lists in lists that a message shows: repr() itself follows them until the stack is full


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a vector one field of the events is: `width` numbers from `start` on."""

    feature: Feature
    start: int
    width: int

    @property
    def field(self) -> str:
        """Its name."""
        return self.feature.field

    @property
    def categories(self) -> tuple[str, ...]:
        """What the indices of a category mean; empty for numbers."""
        return self.feature.categories if isinstance(self.feature, OneHotFeature | OrdinalFeature) else ()


@dataclass(frozen=True, slots=True)
class Made:
    """The rows that are events, and why the others are none: local row → rejection."""

    columns: Columns
    refused: Mapping[int, Rejection]


class EventColumns:
    """Makes events of a schema of rows, for a model's inputs. Any thread.

    positions: of the vectors' numbers; a field that several features use is there once.
    """

    def __init__(self, schema: pa.Schema, inputs: Sequence[InputSpec]) -> None:
        self.schema = schema
        self.inputs = tuple(inputs)
        self._kinds = {field.name: field.type for field in schema}
        positions: dict[str, Position] = {}
        start = 0
        for feature in (feature for spec in inputs for feature in spec.features):
            if feature.field not in positions:
                width = feature.length if isinstance(feature, TensorFeature) else 1
                positions[feature.field] = Position(feature, start, width)
                start += width
        self.positions = tuple(positions.values())
        self.width = start

    def of_instances(self, rows: Sequence[object]) -> Made:
        """rows: mappings from field to value; a field that is absent or null is missing."""
        refused = {row: _bad(row, "features", given, "an object with fields") for row, given in _not_mappings(rows)}
        known = cast("Sequence[Mapping[str, object]]", rows)
        if refused:
            known = [given if row not in refused else {} for row, given in enumerate(known)]
        present: set[str] = set().union(*known)
        if strange := present - self._kinds.keys():
            for row, given in enumerate(known):
                for name in sorted(strange.intersection(given), key=str)[:1]:
                    refused.setdefault(row, self._strange(row, name))
        arrays = []
        for field in self.schema:
            if field.name not in present:
                arrays.append(pa.nulls(len(rows), field.type))
                continue
            values = [given.get(field.name) for given in known]
            arrays.append(_array(field.name, values, field.type, refused))
        return _made(arrays, self.schema, refused)

    def _strange(self, row: int, name: object) -> Rejection:
        shown = _short(str(name).encode("utf-8", "replace").decode(), quoted=False)
        message = f"{shown} is no field of the events, which have {', '.join(self.schema.names)}"
        return _rejection(row, Reason.BAD_SHAPE, message)

    def of_vectors(self, rows: Sequence[object] | Array) -> Made:
        """rows: sequences of `width` numbers, or an array of them, (n, width)."""
        refused: dict[int, Rejection] = {}
        matrix = rows if isinstance(rows, np.ndarray) else self._matrix(rows, refused)
        if matrix.shape[1:] != (self.width,):
            given = matrix.shape[1] if matrix.ndim == 2 else f"of shape {matrix.shape[1:]}"
            refused = {row: self._bad_width(row, given) for row in range(len(matrix))}
            matrix = np.zeros((len(matrix), self.width))
        arrays = {
            position.field: self._of_position(
                position, matrix[:, position.start : position.start + position.width], refused
            )
            for position in self.positions
        }
        n = len(matrix)
        columns = [arrays[name] if name in arrays else pa.nulls(n, kind) for name, kind in self._kinds.items()]
        return _made(columns, self.schema, refused)

    def _matrix(self, rows: Sequence[object], refused: dict[int, Rejection]) -> Array:
        """(n, width) float64, NaN where nothing is; rows that are no vectors are refused and zero."""
        lists_only = set(map(type, rows)) <= {list, tuple}
        if not lists_only or set(map(len, cast("Sequence[list[object]]", rows))) - {self.width}:
            return self._matrix_row_by_row(rows, refused)  # before a long row becomes a long column
        try:
            lists = _lists(rows)
        except ODD:
            return self._matrix_row_by_row(rows, refused)
        return _floats(lists.flatten()).reshape(len(rows), self.width)

    def _matrix_row_by_row(self, rows: Sequence[object], refused: dict[int, Rejection]) -> Array:
        matrix = np.zeros((len(rows), self.width))
        for row, given in enumerate(rows):
            if not isinstance(given, Sequence) or isinstance(given, str | bytes):
                refused[row] = _bad(row, "features", given, f"a list of {self.width} numbers")
                continue
            if len(given) != self.width:
                refused[row] = self._bad_width(row, len(given))
                continue
            try:
                matrix[row] = _floats(_lists([given]).flatten())
            except ODD:
                at = next((at for at, value in enumerate(given) if not _is_number(value)), None)
                if at is None:  # each is one, and Arrow has no type for all of them: 2**62 + 1 beside 0.5
                    matrix[row] = _as_floats(given)
                else:
                    refused[row] = _bad(row, f"features[{at}]", given[at], "a number or null")
        return matrix

    def _bad_width(self, row: int, given: object) -> Rejection:
        names = [position.field for position in self.positions]
        message = f"features has length {given}, allowed {self.width}: {', '.join(names)}"
        return _rejection(row, Reason.BAD_SHAPE, message)

    def _of_position(self, position: Position, block: Array, refused: dict[int, Rejection]) -> pa.Array:
        """One field of all rows. block: (n, width), NaN where nothing is."""
        kind = self._kinds.get(position.field, pa.float64())
        if position.categories:
            return _categories(position, block[:, 0], kind, refused)
        if isinstance(position.feature, TensorFeature):
            values = _from_floats(position.field, block.reshape(-1), kind.value_type, position.width, refused)
            offsets = np.arange(len(block) + 1, dtype=np.int32) * np.int32(position.width)
            return pa.ListArray.from_arrays(pa.array(offsets), values).cast(kind)
        return _from_floats(position.field, block[:, 0], kind, 1, refused)


def _made(arrays: Sequence[pa.Array], schema: pa.Schema, refused: dict[int, Rejection]) -> Made:
    table = pa.RecordBatch.from_arrays(arrays, schema=schema)
    rows = np.arange(table.num_rows)
    if refused:
        kept = np.ones(table.num_rows, np.bool_)
        kept[list(refused)] = False
        table, rows = table.filter(pa.array(kept)), rows[kept]
    return Made(Columns(table, rows), refused)


# ------------------------------------------------------------------------------------- fields by name


def _not_mappings(rows: Sequence[object]) -> list[tuple[int, object]]:
    if set(map(type, rows)) <= {dict}:
        return []
    return [(row, given) for row, given in enumerate(rows) if not isinstance(given, Mapping)]


def _array(name: str, values: list[object], kind: pa.DataType, refused: dict[int, Rejection]) -> pa.Array:
    """A column of these; null where a row has none, or another kind of value, and then the row is refused."""
    convert, expected = _conversion(kind)
    try:
        return convert(values, kind)
    except ODD:
        pass
    singles = []  # and joined: values that are good alone may be odd beside one another, as 2**62 and 0.5
    for row, value in enumerate(values):
        try:
            singles.append(convert([value], kind))
        except ODD:
            refused.setdefault(row, _bad(row, name, value, expected))
            singles.append(pa.nulls(1, kind))
    if pa.types.is_dictionary(kind):  # each has a dictionary of its own
        return pa.concat_arrays([one.cast(kind.value_type) for one in singles]).cast(kind)
    return pa.concat_arrays(singles)


def _conversion(kind: pa.DataType) -> tuple[Callable[[list[object], pa.DataType], pa.Array], str]:
    """What makes a column of this type, raising one of ODD, and what it expects, for people."""
    is_ = pa.types
    found: tuple[Callable[[list[object], pa.DataType], pa.Array], str] = (_typed, f"a value of type {kind}")
    if is_.is_boolean(kind):
        found = _typed, "true or false"
    elif is_.is_integer(kind):
        found = _numbers, f"a whole number of at most {kind.bit_width} bits"
    elif is_.is_floating(kind):
        found = _numbers, "a number"
    elif is_.is_dictionary(kind) or is_.is_string(kind) or is_.is_large_string(kind):
        found = _texts, "text"
    elif is_.is_list(kind) and (is_.is_floating(kind.value_type) or is_.is_integer(kind.value_type)):
        found = _number_lists, "a list of numbers"
    elif is_.is_timestamp(kind):
        found = _times, "milliseconds since 1970, a whole number"
    return found


def _typed(values: list[object], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind)


def _texts(values: list[object], kind: pa.DataType) -> pa.Array:
    if not set(map(type, values)) <= {str, type(None)}:  # bytes would be taken for text
        raise TypeError
    return pa.array(values, kind)


def _numbers(values: list[object], kind: pa.DataType) -> pa.Array:
    found = _own_type(values, values)  # for pa.array(values, kind) takes 34.5 for 34
    if pa.types.is_null(found.type):
        return pa.nulls(len(values), kind)
    if not (pa.types.is_integer(found.type) or pa.types.is_floating(found.type)):
        raise TypeError
    return found.cast(kind, safe=pa.types.is_integer(kind))


def _number_lists(values: list[object], kind: pa.DataType) -> pa.Array:
    if not set(map(type, values)) <= {list, tuple, np.ndarray, type(None)}:
        raise TypeError
    try:
        found = _own_type(values, _elements(values))
    except ODD:
        alone = values[0] if len(values) == 1 and pa.types.is_floating(kind.value_type) else None
        if not isinstance(alone, list) or not all(map(_is_number, alone)):
            raise
        found = pa.array([[None if number is None else float(number) for number in alone]])
    if pa.types.is_null(found.type):
        return pa.nulls(len(values), kind)
    if not pa.types.is_list(found.type) or not _is_numeric(found.type.value_type):
        raise TypeError
    return found.cast(kind, safe=pa.types.is_integer(kind.value_type))


def _own_type(values: Sequence[object], scalars: Iterable[object]) -> pa.Array:
    """As the type that Arrow finds in numbers and None. Raises one of ODD for all else.

    Said before Arrow looks: it would take true beside 2.5 for 1.0, and seconds for lists in lists in lists.
    """
    if not all(issubclass(kind, _NUMBERS) and kind is not bool for kind in set(map(type, scalars))):
        raise TypeError
    return pa.array(values)


def _elements(rows: Sequence[object]) -> Iterable[object]:
    return chain.from_iterable(row for row in rows if isinstance(row, Sequence))


def _times(values: list[object], kind: pa.DataType) -> pa.Array:
    return _numbers(values, pa.int64()).cast(pa.timestamp("ms")).cast(kind)


# --------------------------------------------------------------------------------- numbers by position


def _lists(rows: Sequence[object]) -> pa.ListArray:
    """Raises one of ODD unless these are lists of numbers and nulls."""
    found = _own_type(rows, _elements(rows))
    if not pa.types.is_list(found.type) or not _is_numeric(found.type.value_type):
        raise TypeError
    return found


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _is_number(value: object) -> bool:
    """Or None. Whole numbers of more than 64 bits are none."""
    if type(value) is int:
        return -(2**63) <= value < 2**64
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)


def _as_floats(numbers: Sequence[object]) -> list[float]:
    """NaN for None. Each of them is a number."""
    return [math.nan if number is None else float(cast("float", number)) for number in numbers]


def _floats(values: pa.Array) -> Array:
    floats: Array = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return floats


def _from_floats(name: str, numbers: Array, kind: pa.DataType, per_row: int, refused: dict[int, Rejection]) -> pa.Array:
    """Numbers of this type, null for NaN. A row with one that the type cannot hold exactly is refused."""
    absent = np.isnan(numbers)
    if pa.types.is_floating(kind):
        with np.errstate(over="ignore"):  # infinite is what the feature step refuses
            return pa.array(numbers.astype(kind.to_pandas_dtype()), mask=absent)
    low, high = (0, 1) if pa.types.is_boolean(kind) else _limits(kind)
    bad = ~absent & ~((numbers == np.floor(numbers)) & (numbers >= low) & (numbers <= high))
    for at in np.flatnonzero(bad).tolist():
        where = name if per_row == 1 else f"{name}[{at % per_row}]"
        expected = "0 or 1" if pa.types.is_boolean(kind) else f"a whole number of at most {kind.bit_width} bits"
        refused.setdefault(at // per_row, _bad(at // per_row, where, numbers[at].item(), expected))
    whole = np.where(bad | absent, 0, numbers).astype(np.int64)
    return pa.array(whole, mask=absent).cast(kind)


def _limits(kind: pa.DataType) -> tuple[float, float]:
    held = np.iinfo(kind.to_pandas_dtype())
    # the nearest float64 above the largest int64 is not one
    return float(held.min), float(held.max) if held.bits < 64 else float(np.nextafter(2.0**63, 0.0))


def _categories(position: Position, indices: Array, kind: pa.DataType, refused: dict[int, Rejection]) -> pa.Array:
    """Text, by the index in the manifest's categories."""
    absent = np.isnan(indices)
    count = len(position.categories)
    bad = ~absent & ~((indices == np.floor(indices)) & (indices >= 0) & (indices < count))
    for row in np.flatnonzero(bad).tolist():
        allowed = ", ".join(f"{at} ({name})" for at, name in enumerate(position.categories[:8])) + ", …" * (count > 8)
        message = f"{position.field} is {_short(indices[row].item())}, allowed {allowed}"
        refused.setdefault(row, _rejection(row, Reason.UNKNOWN_CATEGORY, message))
    codes = pa.array(np.where(bad | absent, 0, indices).astype(np.int32), mask=absent)
    return pa.DictionaryArray.from_arrays(codes, pa.array(position.categories, pa.string())).cast(kind)


def _bad(row: int, where: str, value: object, expected: str) -> Rejection:
    return _rejection(row, Reason.BAD_SHAPE, f"{where} is {_short(value)}, expected {expected}")


def _rejection(row: int, reason: Reason, message: str) -> Rejection:
    return Rejection(row, Stage.FEATURES, reason, "BadFeatures", message)


def _short(value: object, *, quoted: bool = True) -> str:
    """A refused value for a message, at most LONGEST_VALUE characters of it, however large or deep it is."""
    shown = Repr()
    shown.maxlevel, shown.maxlist, shown.maxdict = DEEPEST_VALUE, LONGEST_VALUE, LONGEST_VALUE
    shown.maxstring = shown.maxlong = shown.maxother = 4 * LONGEST_VALUE  # it cuts in the middle, this at the end
    text = shown.repr(value) if quoted else str(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
