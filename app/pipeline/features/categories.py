"""Categories: one-hot, or as their index."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.errors import Reason, SchemaIncompatible
from app.pipeline.features.cells import Array, Mask, Refused, column_index, nulls_of, numbers_of
from app.records import IntArray
from app.specs import InputSpec, OneHotFeature, OrdinalFeature

LONGEST_VALUE = 64  # characters of a rejected value quoted in a message; it travels in a record header


@dataclass(slots=True)
class CategoryStep:
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
        """Write the columns of this category; zeros where it is refused, unknown or missing."""
        column = table.column(self.index)
        codes, nulls = self._codes(column)
        tensor[:, self.start : self.start + self.table.shape[1]] = np.take(self.table, codes, axis=0)
        if codes.min() < 0:
            self._refuse(column, codes < 0, nulls, refused)

    def _codes(self, column: pa.Array) -> tuple[IntArray, Mask | None]:
        if not isinstance(column, pa.DictionaryArray):
            codes = pc.index_in(column, value_set=self.categories).fill_null(-1).to_numpy()
            return codes, nulls_of(column) if column.null_count else None
        if not column.dictionary.equals(self.dictionary):
            self.dictionary = column.dictionary
            found = pc.index_in(self.dictionary, value_set=self.categories).fill_null(-1).to_numpy()
            self.codes_of_entries = np.append(found, -1)
        indices, nulls = numbers_of(column.indices)
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


def category_step(
    feature: OneHotFeature | OrdinalFeature, spec: InputSpec, start: int, schema: pa.Schema
) -> CategoryStep:
    """The step of one category. start: the first of its columns. Raises SchemaIncompatible."""
    index = column_index(feature, schema)
    arrow_type = schema.field(index).type
    text = arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type
    if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
        raise SchemaIncompatible(f"the field {feature.field!r} is {arrow_type}, the model needs categories")
    count = len(feature.categories)
    rows = np.eye(count) if isinstance(feature, OneHotFeature) else np.arange(count).reshape(-1, 1)
    table = np.vstack([rows, np.zeros((1, rows.shape[1]))]).astype(spec.dtype)
    categories = pa.array(feature.categories, text)
    return CategoryStep(feature, index, table, start, categories, pa.array([], text), np.array([-1]))


def _short(value: object) -> str:
    """Quote a rejected value, at most LONGEST_VALUE characters of it."""
    text = str(value)
    return repr(text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…")
