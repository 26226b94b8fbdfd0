"""Rows as people write them → columns of events, or rejected rows; the stream's own feature step takes it from there.

A row has either fields by name (an instance, or its place in one column for each field) or numbers by position (a
vector: the fields of the model's features in the order of its manifest, a category as its index, an array field as its
elements, NaN or null for what is missing). Columns are made of all rows at once: `column_values` makes those of JSON's
values, `column_numbers` those of NumPy's numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.answering.column_numbers import from_array, from_floats, from_indices, lists_of
from app.answering.column_values import ODD, as_floats, column_of, is_number, lists_of_numbers
from app.answering.meant import as_meant
from app.answering.row_refusals import bad_value, rejection, short
from app.errors import Reason
from app.records import Columns, Rejection
from app.specs import Feature, InputSpec, OneHotFeature, OrdinalFeature, TensorFeature

Array = npt.NDArray[Any]
# One field's values: as JSON has them, or (n,) numbers, or (n, length) of an array field.
Column = Sequence[object] | Array


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
        refused = {
            row: bad_value(row, "features", given, "an object with fields") for row, given in _not_mappings(rows)
        }
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
            arrays.append(column_of(field.name, values, field.type, refused))
        return _made(arrays, self.schema, refused)

    def of_columns(self, columns: Mapping[str, Column]) -> Made:
        """columns: one for each of some fields, equally long; the others are missing, and so is a null or NaN.

        The same events as `of_instances` makes of their rows, without making the rows.
        """
        n = len(next(iter(columns.values())))
        refused: dict[int, Rejection] = {}
        for name in sorted(columns.keys() - self._kinds.keys(), key=str):
            refused = refused or {row: self._strange(row, name) for row in range(n)}
        arrays = []
        for name, kind in self._kinds.items():
            column = columns.get(name)
            if column is None:
                arrays.append(pa.nulls(n, kind))
            elif isinstance(column, np.ndarray):
                arrays.append(from_array(name, column, kind, refused))
            else:
                arrays.append(column_of(name, column, kind, refused))
        return _made(arrays, self.schema, refused)

    def _strange(self, row: int, name: object) -> Rejection:
        shown = short(str(name).encode("utf-8", "replace").decode(), quoted=False)
        message = f"{shown} is no field of the events, which have {', '.join(self.schema.names)}"
        return rejection(row, Reason.BAD_SHAPE, message)

    def of_vectors(self, rows: Sequence[object] | Array) -> Made:
        """rows: sequences of `width` numbers, or an array of them, (n, width); see `as_meant` for one of 32 bits."""
        refused: dict[int, Rejection] = {}
        if not isinstance(rows, np.ndarray):
            matrix = self._matrix(rows, refused)
        elif rows.shape[1:] == (self.width,):
            matrix = as_meant(rows)
        else:  # before each of its numbers, and there may be a million, becomes several of 64 bits
            given = rows.shape[1] if rows.ndim == 2 else f"of shape {rows.shape[1:]}"
            refused = {row: self._bad_width(row, given) for row in range(len(rows))}
            matrix = np.zeros((len(rows), self.width))
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
            lists = lists_of_numbers(rows)
        except ODD:
            return self._matrix_row_by_row(rows, refused)
        return _floats(lists.flatten()).reshape(len(rows), self.width)

    def _matrix_row_by_row(self, rows: Sequence[object], refused: dict[int, Rejection]) -> Array:
        matrix = np.zeros((len(rows), self.width))
        for row, given in enumerate(rows):
            if not isinstance(given, Sequence) or isinstance(given, str | bytes):
                refused[row] = bad_value(row, "features", given, f"a list of {self.width} numbers")
                continue
            if len(given) != self.width:
                refused[row] = self._bad_width(row, len(given))
                continue
            try:
                matrix[row] = _floats(lists_of_numbers([given]).flatten())
            except ODD:
                at = next((at for at, value in enumerate(given) if not is_number(value)), None)
                if at is None:  # each is one, and Arrow has no type for all of them: 2**62 + 1 beside 0.5
                    matrix[row] = as_floats(given)
                else:
                    refused[row] = bad_value(row, f"features[{at}]", given[at], "a number or null")
        return matrix

    def _bad_width(self, row: int, given: object) -> Rejection:
        names = [position.field for position in self.positions]
        message = f"features has length {given}, allowed {self.width}: {', '.join(names)}"
        return rejection(row, Reason.BAD_SHAPE, message)

    def _of_position(self, position: Position, block: Array, refused: dict[int, Rejection]) -> pa.Array:
        """One field of all rows. block: (n, width), NaN where nothing is."""
        kind = self._kinds.get(position.field, pa.float64())
        if position.categories:
            return from_indices(position.field, position.categories, block[:, 0], kind, refused)
        if isinstance(position.feature, TensorFeature):
            values = from_floats(position.field, block.reshape(-1), kind.value_type, position.width, refused)
            return lists_of(values, position.width).cast(kind)
        return from_floats(position.field, block[:, 0], kind, 1, refused)


def _made(arrays: Sequence[pa.Array], schema: pa.Schema, refused: dict[int, Rejection]) -> Made:
    table = pa.RecordBatch.from_arrays(arrays, schema=schema)
    rows = np.arange(table.num_rows)
    if refused:
        kept = np.ones(table.num_rows, np.bool_)
        kept[list(refused)] = False
        table, rows = table.filter(pa.array(kept)), rows[kept]
    return Made(Columns(table, rows), refused)


def _not_mappings(rows: Sequence[object]) -> list[tuple[int, object]]:
    if set(map(type, rows)) <= {dict}:
        return []
    return [(row, given) for row, given in enumerate(rows) if not isinstance(given, Mapping)]


def _floats(values: pa.Array) -> Array:
    floats: Array = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return floats
