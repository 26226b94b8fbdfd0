"""Columns → model inputs, or rejected rows.

A plan is compiled once from the manifest's feature mapping and the reader schema, and applied to every batch.
Rows are looked at one by one only to say why they were rejected.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import pyarrow as pa

from app.errors import ModelFailed, Stage
from app.pipeline.features.categories import category_step
from app.pipeline.features.cells import Array, Refused
from app.pipeline.features.numbers import numbers_step
from app.pipeline.features.tensors import tensor_step
from app.records import Columns, IntArray, Rejection
from app.specs import InputSpec, NumberFeature, OneHotFeature, OrdinalFeature, TensorFeature


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
            yield numbers_step(numbers, spec, start, schema)
        for feature in features:
            if isinstance(feature, TensorFeature):
                yield tensor_step(feature, spec, start, schema)
            elif isinstance(feature, OneHotFeature | OrdinalFeature):
                yield category_step(feature, spec, start, schema)
            start += feature.width
