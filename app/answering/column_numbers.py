"""One field's numbers as NumPy has them → an Arrow column; a number that the field cannot hold refuses its row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.answering.column_values import column_of
from app.answering.meant import as_meant
from app.answering.row_refusals import bad_value, rejection, short
from app.errors import Reason
from app.records import Rejection

Array = npt.NDArray[Any]


def from_array(name: str, array: Array, kind: pa.DataType, refused: dict[int, Rejection]) -> pa.Array:
    """A column of these: (n,), or (n, length) where the field is an array. NaN is null; see `as_meant`.

    What there is no quick way for (text among them) goes value by value, with the same result.
    """
    is_list = pa.types.is_list(kind)
    if array.ndim == 2 and array.shape[1] == 1 and not is_list:
        array = array[:, 0]
    if array.ndim == (2 if is_list else 1):
        per_row = array.shape[1] if is_list else 1
        found = _of_numbers(name, array.reshape(-1), kind.value_type if is_list else kind, per_row, refused)
        if found is not None:
            return lists_of(found, per_row).cast(kind) if is_list else found
    values = array
    if array.dtype.kind == "f":
        values = as_meant(array).astype(object)
        values[np.isnan(array)] = None
    return column_of(name, values.tolist(), kind, refused)


def _of_numbers(
    name: str, numbers: Array, kind: pa.DataType, per_row: int, refused: dict[int, Rejection]
) -> pa.Array | None:
    """None if these are not numbers for this type, or not all of them."""
    if pa.types.is_boolean(kind) and numbers.dtype.kind == "b":
        return pa.array(numbers)
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        return None
    if numbers.dtype.kind == "f":
        return from_floats(name, as_meant(numbers), kind, per_row, refused)
    try:
        return pa.array(numbers).cast(kind, safe=pa.types.is_integer(kind)) if numbers.dtype.kind in "iu" else None
    except pa.ArrowInvalid:  # one is too large
        return None


def lists_of(values: pa.Array, length: int) -> pa.ListArray:
    """So many of them in each row."""
    offsets = np.arange(len(values) // length + 1, dtype=np.int32) * np.int32(length)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def from_floats(name: str, numbers: Array, kind: pa.DataType, per_row: int, refused: dict[int, Rejection]) -> pa.Array:
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
        refused.setdefault(at // per_row, bad_value(at // per_row, where, numbers[at].item(), expected))
    whole = np.where(bad | absent, 0, numbers).astype(np.int64)
    return pa.array(whole, mask=absent).cast(kind)


def _limits(kind: pa.DataType) -> tuple[float, float]:
    held = np.iinfo(kind.to_pandas_dtype())
    # the nearest float64 above the largest int64 is not one
    return float(held.min), float(held.max) if held.bits < 64 else float(np.nextafter(2.0**63, 0.0))


def from_indices(
    name: str, categories: Sequence[str], indices: Array, kind: pa.DataType, refused: dict[int, Rejection]
) -> pa.Array:
    """Text, by the index in the manifest's categories."""
    absent = np.isnan(indices)
    count = len(categories)
    bad = ~absent & ~((indices == np.floor(indices)) & (indices >= 0) & (indices < count))
    for row in np.flatnonzero(bad).tolist():
        allowed = ", ".join(f"{at} ({category})" for at, category in enumerate(categories[:8])) + ", …" * (count > 8)
        message = f"{name} is {short(indices[row].item())}, allowed {allowed}"
        refused.setdefault(row, rejection(row, Reason.UNKNOWN_CATEGORY, message))
    codes = pa.array(np.where(bad | absent, 0, indices).astype(np.int32), mask=absent)
    return pa.DictionaryArray.from_arrays(codes, pa.array(categories, pa.string())).cast(kind)
