"""One field's values as JSON has them → an Arrow column; a value of another kind refuses its row.

A column is made of all rows at once; rows are looked at one by one only to say why they were refused. A number is a
number: text, true and false are none, and a whole-number field takes 34.0 but not 34.5. Arrow follows nested lists by
recursion: rows are nested no deeper than the JSON parser lets them (1,024).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import cast

import numpy as np
import pyarrow as pa

from app.answering.row_refusals import bad_value
from app.records import Rejection

# What Arrow raises at values that are of another type than it was told, or than their neighbours.
ODD = (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError)
_NUMBERS = (int, float, np.number, type(None))


def column_of(name: str, values: Sequence[object], kind: pa.DataType, refused: dict[int, Rejection]) -> pa.Array:
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
            refused.setdefault(row, bad_value(row, name, value, expected))
            singles.append(pa.nulls(1, kind))
    if pa.types.is_dictionary(kind):  # each has a dictionary of its own
        return pa.concat_arrays([one.cast(kind.value_type) for one in singles]).cast(kind)
    return pa.concat_arrays(singles)


def _conversion(kind: pa.DataType) -> tuple[Callable[[Sequence[object], pa.DataType], pa.Array], str]:
    """What makes a column of this type, raising one of ODD, and what it expects, for people."""
    is_ = pa.types
    found: tuple[Callable[[Sequence[object], pa.DataType], pa.Array], str] = (_typed, f"a value of type {kind}")
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


def _typed(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind)


def _texts(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    if not set(map(type, values)) <= {str, type(None)}:  # bytes would be taken for text
        raise TypeError
    return pa.array(values, kind)


def _numbers(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    try:
        found = _own_type(values, values)  # for pa.array(values, kind) takes 34.5 for 34
    except (OverflowError, pa.ArrowInvalid):  # 2**63 is a number all the same, and so is 2**62 beside 0.5
        if not pa.types.is_floating(kind):
            raise
        found = pa.array([None if number is None else float(cast("float", number)) for number in values], pa.float64())
    if pa.types.is_null(found.type):
        return pa.nulls(len(values), kind)
    if not (pa.types.is_integer(found.type) or pa.types.is_floating(found.type)):
        raise TypeError
    return found.cast(kind, safe=pa.types.is_integer(kind))


def _number_lists(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    if not set(map(type, values)) <= {list, tuple, np.ndarray, type(None)}:
        raise TypeError
    try:
        found = _own_type(values, _elements(values))
    except ODD:
        alone = values[0] if len(values) == 1 and pa.types.is_floating(kind.value_type) else None
        if not isinstance(alone, list) or not all(map(is_number, alone)):
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


def _times(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    return _numbers(values, pa.int64()).cast(pa.timestamp("ms")).cast(kind)


def lists_of_numbers(rows: Sequence[object]) -> pa.ListArray:
    """Raises one of ODD unless these are lists of numbers and nulls."""
    found = _own_type(rows, _elements(rows))
    if not pa.types.is_list(found.type) or not _is_numeric(found.type.value_type):
        raise TypeError
    return found


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def is_number(value: object) -> bool:
    """Or None. Whole numbers of more than 64 bits are none."""
    if type(value) is int:
        return -(2**63) <= value < 2**64
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)


def as_floats(numbers: Sequence[object]) -> list[float]:
    """NaN for None. Each of them is a number."""
    return [math.nan if number is None else float(cast("float", number)) for number in numbers]
