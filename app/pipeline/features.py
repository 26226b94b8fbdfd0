"""Columns → model inputs, or rejected rows.

A plan is compiled once from the manifest's feature mapping and the reader schema, and applied to every batch.
Rows are looked at one by one only to say why they were rejected. Numbers are compared with their bounds as
float64 (as int64 for integer inputs) before they are narrowed to the input's dtype, so a value that only
rounding would bring into range is rejected, and one the dtype cannot hold is not finite.

One file past the usual length: the four kinds of feature share one rule for what is missing, what is refused
and in which order, and that rule is the decision this file hides.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.errors import ModelFailed, Reason, SchemaIncompatible, Stage
from app.records import Columns, IntArray, Rejection
from app.specs import Feature, Impute, InputSpec, NumberFeature, OneHotFeature, OrdinalFeature, TensorFeature

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
# Local row -> why it cannot be predicted. Features are visited in manifest order and the first entry stays.
Refused = dict[int, tuple[Reason, str]]

# The largest float64 that still rounds to a finite float32: just below max + half a unit in the last place.
FLOAT32_LIMIT = math.nextafter(2.0**128 - 2.0**103, 0.0)
LONGEST_VALUE = 64  # characters of a rejected value quoted in a message; it travels in a record header


@dataclass(frozen=True, slots=True)
class Features:
    """Model inputs of the rows that can be scored, and the rows that cannot.

    tensors: by input name, (len(rows), width) or (len(rows), *shape), C-contiguous, finite.
    rows: (m,) int64, the batch rows of the tensors' rows, in the order of the columns.
    rejected: one per other row, in the same order; `row` is the batch row.
    failure: why there are no tensors, though no row is to blame: a handler that is at fault. Then `rows` are all.
    """

    tensors: dict[str, Array]
    rows: IntArray
    rejected: list[Rejection]
    failure: ModelFailed | None = None


class FeaturePlan:
    """The feature mapping of a model's inputs, compiled for the columns of one schema.

    Batches whose columns are laid out differently (an enum as plain strings, say) are followed by compiling
    anew. Raises SchemaIncompatible, naming the field, if a field is absent or of a type that cannot feed the
    model. Not for two threads at once.
    """

    def __init__(self, inputs: tuple[InputSpec, ...], schema: pa.Schema) -> None:
        self._inputs = inputs
        self._bind(schema)

    def _bind(self, schema: pa.Schema) -> None:
        self._steps = [(spec, spec.width, tuple(_steps(spec, schema))) for spec in self._inputs]
        self._schema = schema

    def apply(self, columns: Columns) -> Features:
        """Build the tensors of one batch.

        The first failing feature in manifest order names a row's reason; what a row becomes does not depend
        on its neighbours. Dictionary indices are trusted to be within their dictionary: the decode step saw
        to it.
        """
        table = columns.table
        if not table.schema.equals(self._schema):
            self._bind(table.schema)
        n = table.num_rows
        tensors: dict[str, Array] = {}
        refused: Refused = {}
        with np.errstate(invalid="ignore"):  # a signalling NaN off the wire warns when it is widened
            for spec, width, steps in self._steps:
                tensor = np.empty((n, width), spec.dtype)
                if n:
                    for step in steps:
                        step.fill(table, tensor, refused)
                tensors[spec.name] = tensor if spec.shape is None else tensor.reshape(n, *spec.shape)
        if not refused:
            return Features(tensors, columns.rows, [])
        kept = np.ones(n, np.bool_)
        kept[list(refused)] = False
        rejected = [
            Rejection(int(columns.rows[row]), Stage.FEATURES, reason, "BadFeatures", message)
            for row, (reason, message) in sorted(refused.items())
        ]
        return Features({name: tensor[kept] for name, tensor in tensors.items()}, columns.rows[kept], rejected)


def features_of(columns: Columns, inputs: tuple[InputSpec, ...]) -> Features:
    """Compile a plan for these columns and apply it once: for training and tests, where nothing repeats."""
    return FeaturePlan(inputs, columns.table.schema).apply(columns)


def check_fields(inputs: tuple[InputSpec, ...], schema: pa.Schema) -> None:
    """Raise SchemaIncompatible, naming the field, if a feature cannot be built from such columns."""
    FeaturePlan(inputs, schema)


class _Step(Protocol):
    def fill(self, table: pa.RecordBatch, tensor: Array, refused: Refused) -> None:
        """Write this step's columns of `tensor` for every row; rows it refuses get any finite number."""
        ...


def _steps(spec: InputSpec, schema: pa.Schema) -> Iterator[_Step]:
    """Yield the steps of one input in manifest order; neighbouring numbers are checked together."""
    start = 0
    for _, run in groupby(spec.features, key=lambda feature: isinstance(feature, NumberFeature)):
        features = tuple(run)
        numbers = tuple(feature for feature in features if isinstance(feature, NumberFeature))
        if numbers:
            yield _numbers_step(numbers, spec, start, schema)
        for feature in features:
            if isinstance(feature, TensorFeature):
                yield _tensor_step(feature, spec, start, schema)
            elif isinstance(feature, OneHotFeature | OrdinalFeature):
                yield _category_step(feature, spec, start, schema)
            start += feature.width


def _column_index(feature: Feature, schema: pa.Schema) -> int:
    index: int = schema.get_field_index(feature.field)
    if index < 0:
        raise SchemaIncompatible(
            f"the model needs the field {feature.field!r}, the schema has {', '.join(schema.names)}"
        )
    return index


# ---------------------------------------------------------------------------------------------- numbers


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Inclusive bounds as they are compared: the feature's own, narrowed to what the input's dtype holds."""

    low: np.float64 | np.int64
    high: np.float64 | np.int64

    @classmethod
    def of(cls, feature: NumberFeature | TensorFeature, dtype: str) -> "_Bounds":
        low = -math.inf if feature.min is None else feature.min
        high = math.inf if feature.max is None else feature.max
        if np.dtype(dtype).kind == "i":
            held = np.iinfo(dtype)
            least = held.min if low <= held.min else min(math.ceil(low), held.max)
            most = held.max if high >= held.max else max(math.floor(high), held.min)
            return cls(np.int64(least), np.int64(most))
        limit = FLOAT32_LIMIT if dtype == "float32" else float(np.finfo(np.float64).max)
        return cls(np.float64(max(low, -limit)), np.float64(min(high, limit)))


@dataclass(frozen=True, slots=True)
class _NumbersStep:
    """Neighbouring number features: one row of `block` per feature, checked in one sweep.

    low, high: (k, 1), of the block's dtype. missing: by feature, what replaces a null, or None to refuse it.
    """

    features: tuple[NumberFeature, ...]
    indices: tuple[int, ...]
    missing: tuple[float | None, ...]
    low: Array
    high: Array
    start: int

    def fill(self, table: pa.RecordBatch, tensor: Array, refused: Refused) -> None:
        block = np.empty((len(self.indices), len(tensor)), self.low.dtype)
        absent: list[tuple[int, Mask]] = []
        for i, index in enumerate(self.indices):
            values, nulls = _numbers(table.column(index))
            block[i] = values
            if nulls is not None:
                block[i, nulls] = self.missing[i] or 0
                absent.append((i, nulls))
        good = (block >= self.low) & (block <= self.high)  # NaN is never good
        for i, nulls in absent:
            good[i, nulls] = self.missing[i] is not None  # a replacement may lie outside the bounds, as a flag
        if not good.all():
            self._refuse(table, good, dict(absent), refused)
            block[~good] = 0
        tensor[:, self.start : self.start + len(block)] = block.T

    def _refuse(self, table: pa.RecordBatch, good: Mask, absent: dict[int, Mask], refused: Refused) -> None:
        for i in np.flatnonzero(~good.all(axis=1)).tolist():
            feature, nulls = self.features[i], absent.get(i)
            column = table.column(self.indices[i])
            for row in np.flatnonzero(~good[i]).tolist():
                if row in refused:
                    continue
                if nulls is not None and nulls[row]:
                    refused[row] = Reason.MISSING_VALUE, f"{feature.field} is missing"
                else:
                    refused[row] = _why(feature, feature.field, column[row].as_py())


def _numbers_step(features: tuple[NumberFeature, ...], spec: InputSpec, start: int, schema: pa.Schema) -> _NumbersStep:
    indices = tuple(_column_index(feature, schema) for feature in features)
    for feature, index in zip(features, indices, strict=True):
        _check_number(feature, schema.field(index).type, spec)
    bounds = [_Bounds.of(feature, spec.dtype) for feature in features]
    missing = tuple(feature.missing.impute if isinstance(feature.missing, Impute) else None for feature in features)
    low, high = np.array([[b.low] for b in bounds]), np.array([[b.high] for b in bounds])
    return _NumbersStep(features, indices, missing, low, high, start)


def _check_number(feature: Feature, arrow_type: pa.DataType, spec: InputSpec) -> None:
    whole = pa.types.is_integer(arrow_type) or pa.types.is_boolean(arrow_type)
    if arrow_type == pa.uint64() or not (whole or pa.types.is_floating(arrow_type)):
        raise SchemaIncompatible(f"the field {feature.field!r} is {arrow_type}, the model needs numbers")
    if not whole and spec.dtype in {"int32", "int64"}:
        raise SchemaIncompatible(
            f"the field {feature.field!r} is {arrow_type}, the input {spec.name!r} takes {spec.dtype} only"
        )


def _numbers(array: pa.Array) -> tuple[Array, Mask | None]:
    """View the array's own memory; and where it is null, None for nowhere. Values at nulls mean nothing."""
    if array.type == pa.bool_():
        array = array.cast(pa.uint8())
    if not array.null_count:
        return array.to_numpy(), None
    valid, data = array.buffers()
    start, n = array.offset, len(array)
    first_byte, first_bit = divmod(start, 8)
    octets = np.frombuffer(valid, np.uint8, (first_bit + n + 7) // 8, first_byte)
    dtype = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(data, dtype, n, start * dtype.itemsize)
    return values, np.unpackbits(octets, bitorder="little")[first_bit : first_bit + n] == 0


def _why(feature: NumberFeature | TensorFeature, where: str, value: float) -> tuple[Reason, str]:
    """Reason and message for a number that is not within its bounds."""
    low, high = feature.min, feature.max
    if not math.isfinite(value):
        return Reason.NOT_FINITE, f"{where} is {value}, allowed are finite numbers"
    if (low is None or value >= low) and (high is None or value <= high):
        reason = Reason.OUT_OF_RANGE if isinstance(value, int) else Reason.NOT_FINITE
        return reason, f"{where} is {_plain(value)}, more than the model's input can hold"
    if low is None or high is None:
        allowed = f"at most {_plain(high)}" if high is not None else f"at least {_plain(low)}"
    else:
        allowed = f"{_plain(low)} to {_plain(high)}"
    return Reason.OUT_OF_RANGE, f"{where} is {_plain(value)}, allowed {allowed}"


def _plain(value: object) -> str:
    """Write a number without a needless `.0`."""
    return str(value).removesuffix(".0")


# ------------------------------------------------------------------------------------------- categories


@dataclass(slots=True)
class _CategoryStep:
    """A category as a row of `table`: one-hot or its index; the last row is for what is unknown or missing.

    A code is a row of `table`, -1 for none. The codes of a dictionary's entries are kept until a batch brings
    another dictionary, which for an enum is never.
    """

    feature: OneHotFeature | OrdinalFeature
    index: int
    table: Array
    start: int
    categories: pa.Array
    dictionary: pa.Array
    codes_of_entries: IntArray

    def fill(self, table: pa.RecordBatch, tensor: Array, refused: Refused) -> None:
        column = table.column(self.index)
        codes, nulls = self._codes(column)
        tensor[:, self.start : self.start + self.table.shape[1]] = np.take(self.table, codes, axis=0)
        if codes.min() < 0:
            self._refuse(column, codes < 0, nulls, refused)

    def _codes(self, column: pa.Array) -> tuple[IntArray, Mask | None]:
        if not isinstance(column, pa.DictionaryArray):
            codes = pc.index_in(column, value_set=self.categories).fill_null(-1).to_numpy()
            return codes, _nulls(column) if column.null_count else None
        if not column.dictionary.equals(self.dictionary):
            self.dictionary = column.dictionary
            found = pc.index_in(self.dictionary, value_set=self.categories).fill_null(-1).to_numpy()
            self.codes_of_entries = np.append(found, -1)
        indices, nulls = _numbers(column.indices)
        if nulls is not None:
            indices = np.where(nulls, len(self.dictionary), indices)
        return np.take(self.codes_of_entries, indices), nulls

    def _refuse(self, column: pa.Array, bad: Mask, nulls: Mask | None, refused: Refused) -> None:
        field, categories = self.feature.field, self.feature.categories
        if nulls is not None:
            if self.feature.missing == "reject":
                for row in np.flatnonzero(nulls).tolist():
                    refused.setdefault(row, (Reason.MISSING_VALUE, f"{field} is missing"))
            bad &= ~nulls
        if self.feature.unknown == "reject":
            allowed = ", ".join(categories[:8]) + (f", … ({len(categories)})" if len(categories) > 8 else "")
            for row in np.flatnonzero(bad).tolist():
                if row not in refused:
                    value = _short(column[row].as_py())
                    refused[row] = Reason.UNKNOWN_CATEGORY, f"{field} is {value}, allowed {allowed}"


def _category_step(
    feature: OneHotFeature | OrdinalFeature, spec: InputSpec, start: int, schema: pa.Schema
) -> _CategoryStep:
    index = _column_index(feature, schema)
    arrow_type = schema.field(index).type
    text = arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type
    if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
        raise SchemaIncompatible(f"the field {feature.field!r} is {arrow_type}, the model needs categories")
    count = len(feature.categories)
    rows = np.eye(count) if isinstance(feature, OneHotFeature) else np.arange(count).reshape(-1, 1)
    table = np.vstack([rows, np.zeros((1, rows.shape[1]))]).astype(spec.dtype)
    categories = pa.array(feature.categories, text)
    return _CategoryStep(feature, index, table, start, categories, pa.array([], text), np.array([-1]))


def _nulls(array: pa.Array) -> Mask:
    nulls: Mask = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _short(value: object) -> str:
    """Quote a rejected value, at most LONGEST_VALUE characters of it."""
    text = str(value)
    return repr(text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…")


# ---------------------------------------------------------------------------------------------- tensors


@dataclass(frozen=True, slots=True)
class _TensorStep:
    """An array field: every row has exactly `feature.length` elements, none null, all within the bounds."""

    feature: TensorFeature
    index: int
    bounds: _Bounds
    start: int

    def fill(self, table: pa.RecordBatch, tensor: Array, refused: Refused) -> None:
        column = table.column(self.index)
        length, n = self.feature.length, len(tensor)
        offsets = column.offsets.to_numpy()
        values, absent = _numbers(column.values)
        target = tensor[:, self.start : self.start + length]
        if not column.null_count and absent is None and (np.diff(offsets) == length).all():
            elements = values[offsets[0] : offsets[-1]]
            if elements.min() >= self.bounds.low and elements.max() <= self.bounds.high:  # NaN fails both
                target[:] = elements.reshape(n, length)
                return
        target[:] = 0
        lengths = np.diff(offsets)
        nulls = _nulls(column)
        for row in np.flatnonzero(nulls | (lengths != length)).tolist():
            if nulls[row]:
                why = Reason.MISSING_VALUE, f"{self.feature.field} is missing"
            else:
                why = Reason.BAD_SHAPE, f"{self.feature.field} has length {lengths[row]}, allowed {length}"
            refused.setdefault(row, why)
        shaped = np.flatnonzero(~nulls & (lengths == length))
        picked = offsets[shaped][:, None] + np.arange(length)
        elements = values[picked]
        good = (elements >= self.bounds.low) & (elements <= self.bounds.high)
        if absent is not None:
            good &= ~absent[picked]
        clean = good.all(axis=1)
        target[shaped[clean]] = elements[clean]
        for at in np.flatnonzero(~clean).tolist():
            row = int(shaped[at])
            if row not in refused:
                element = int(np.argmin(good[at]))
                refused[row] = self._why_element(element, column.values[int(picked[at, element])].as_py())

    def _why_element(self, element: int, value: float | None) -> tuple[Reason, str]:
        where = f"{self.feature.field}[{element}]"
        if value is None:
            return Reason.MISSING_VALUE, f"{where} is missing"
        return _why(self.feature, where, value)


def _tensor_step(feature: TensorFeature, spec: InputSpec, start: int, schema: pa.Schema) -> _TensorStep:
    index = _column_index(feature, schema)
    arrow_type = schema.field(index).type
    if not (pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type)):
        raise SchemaIncompatible(f"the field {feature.field!r} is {arrow_type}, the model needs an array")
    _check_number(feature, arrow_type.value_type, spec)
    return _TensorStep(feature, index, _Bounds.of(feature, spec.dtype), start)
