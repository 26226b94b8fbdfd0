"""Arrays of a fixed length, whose elements are bounded numbers."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from app.errors import Reason, SchemaIncompatible
from app.pipeline.features.cells import Array, Refused, column_index, nulls_of, numbers_of
from app.pipeline.features.numbers import Bounds, check_number, why_refused
from app.specs import InputSpec, TensorFeature


@dataclass(frozen=True, slots=True)
class TensorStep:
    """An array field: every row has exactly `feature.length` elements, none null, all within the bounds."""

    feature: TensorFeature
    index: int
    bounds: Bounds
    start: int

    def fill(self, table: pa.RecordBatch, tensor: Array, refused: Refused) -> None:
        """Write the columns of this array; zeros where it is refused."""
        column = table.column(self.index)
        length, n = self.feature.length, len(tensor)
        offsets = column.offsets.to_numpy()
        values, absent = numbers_of(column.values)
        target = tensor[:, self.start : self.start + length]
        if not column.null_count and absent is None and (np.diff(offsets) == length).all():
            elements = values[offsets[0] : offsets[-1]]
            if elements.min() >= self.bounds.low and elements.max() <= self.bounds.high:  # NaN fails both
                target[:] = elements.reshape(n, length)
                return
        target[:] = 0
        lengths = np.diff(offsets)
        nulls = nulls_of(column)
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
        return why_refused(self.feature, where, value)


def tensor_step(feature: TensorFeature, spec: InputSpec, start: int, schema: pa.Schema) -> TensorStep:
    """The step of one array. start: the first of its columns. Raises SchemaIncompatible."""
    index = column_index(feature, schema)
    arrow_type = schema.field(index).type
    if not (pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type)):
        raise SchemaIncompatible(f"the field {feature.field!r} is {arrow_type}, the model needs an array")
    check_number(feature, arrow_type.value_type, spec)
    return TensorStep(feature, index, Bounds.of(feature, spec.dtype), start)
