"""Numbers and their bounds.

They are compared with their bounds as float64 (as int64 for integer inputs) before they are narrowed to the input's
dtype, so a value that only rounding would bring into range is rejected, and one the dtype cannot hold is not finite.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from app.errors import Reason, SchemaIncompatible
from app.pipeline.features.cells import Array, Mask, Refused, column_index, numbers_of
from app.specs import Feature, Impute, InputSpec, NumberFeature, TensorFeature

# The largest float64 that still rounds to a finite float32: just below max + half a unit in the last place.
FLOAT32_LIMIT = math.nextafter(2.0**128 - 2.0**103, 0.0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Inclusive bounds as they are compared: the feature's own, narrowed to what the input's dtype holds."""

    low: np.float64 | np.int64
    high: np.float64 | np.int64

    @classmethod
    def of(cls, feature: NumberFeature | TensorFeature, dtype: str) -> "Bounds":
        """dtype: of the input."""
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
class NumbersStep:
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
        """Write the columns of these numbers; 0 where one is refused."""
        block = np.empty((len(self.indices), len(tensor)), self.low.dtype)
        absent: list[tuple[int, Mask]] = []
        for i, index in enumerate(self.indices):
            values, nulls = numbers_of(table.column(index))
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
                    refused[row] = why_refused(feature, feature.field, column[row].as_py())


def numbers_step(features: tuple[NumberFeature, ...], spec: InputSpec, start: int, schema: pa.Schema) -> NumbersStep:
    """The step of neighbouring numbers. start: the first of their columns. Raises SchemaIncompatible."""
    indices = tuple(column_index(feature, schema) for feature in features)
    for feature, index in zip(features, indices, strict=True):
        check_number(feature, schema.field(index).type, spec)
    bounds = [Bounds.of(feature, spec.dtype) for feature in features]
    missing = tuple(feature.missing.impute if isinstance(feature.missing, Impute) else None for feature in features)
    low, high = np.array([[b.low] for b in bounds]), np.array([[b.high] for b in bounds])
    return NumbersStep(features, indices, missing, low, high, start)


def check_number(feature: Feature, arrow_type: pa.DataType, spec: InputSpec) -> None:
    """Raises SchemaIncompatible, naming the field, if such a column cannot feed the input."""
    whole = pa.types.is_integer(arrow_type) or pa.types.is_boolean(arrow_type)
    if arrow_type == pa.uint64() or not (whole or pa.types.is_floating(arrow_type)):
        raise SchemaIncompatible(f"the field {feature.field!r} is {arrow_type}, the model needs numbers")
    if not whole and spec.dtype in {"int32", "int64"}:
        raise SchemaIncompatible(
            f"the field {feature.field!r} is {arrow_type}, the input {spec.name!r} takes {spec.dtype} only"
        )


def why_refused(feature: NumberFeature | TensorFeature, where: str, value: float) -> tuple[Reason, str]:
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
