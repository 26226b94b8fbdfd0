"""A version's inputs of the columns of files: cast first, then made by the manifest's mapping or by its handler.

A handler is given events, with the columns that it has in the stream, all of them: those that a file does not have
are null, as fields that a request leaves out.
"""

from typing import Protocol

import pyarrow as pa

from app.answering.handled_inputs import HandledPlan
from app.errors import BadSettings
from app.pipeline.features.plan import FeaturePlan, Features, check_fields
from app.records import Columns, Rejection
from app.scoring.casts import ColumnCasts, EventCasts, fields_of
from app.specs import InputSpec


class FileInputs(Protocol):
    """An `answering.lineup.InputPlan` for columns as files have them. Not for two threads at once."""

    @property
    def fields(self) -> list[str]:
        """What it may be made of, in order."""
        ...

    @property
    def categories(self) -> list[str]:
        """Those that hold categories: few values, many times each."""
        ...

    def absent(self, names: list[str]) -> list[str]:
        """Which fields cannot be done without, and are not among these."""
        ...

    def check(self, schema: pa.Schema) -> None:
        """Raises SchemaIncompatible, naming the field, if nothing can be made of such columns."""
        ...

    def apply(self, columns: Columns) -> Features:
        """Raises BadSettings for columns that are damaged."""
        ...


class MappedInputs:
    """As the manifest says."""

    def __init__(self, inputs: tuple[InputSpec, ...]) -> None:
        self._inputs = inputs
        self._casts: ColumnCasts | None = None
        self._plan: FeaturePlan | None = None

    @property
    def fields(self) -> list[str]:
        """As `FileInputs.fields`."""
        return fields_of(self._inputs)

    @property
    def categories(self) -> list[str]:
        """As `FileInputs.categories`."""
        kinds = {feature.field: feature.kind for spec in self._inputs for feature in spec.features}
        return [name for name, kind in kinds.items() if kind in {"one_hot", "ordinal"}]

    def absent(self, names: list[str]) -> list[str]:
        """As `FileInputs.absent`: all are needed."""
        return [name for name in self.fields if name not in names]

    def check(self, schema: pa.Schema) -> None:
        """As `FileInputs.check`."""
        check_fields(self._inputs, ColumnCasts(self._inputs, schema).schema)

    def apply(self, columns: Columns) -> Features:
        """As `FileInputs.apply`; compiled when the first columns come."""
        if self._casts is None:
            self._casts = ColumnCasts(self._inputs, columns.table.schema)
        made, refused = _cast(self._casts, columns)
        if self._plan is None:
            self._plan = FeaturePlan(self._inputs, made.table.schema)
        features = self._plan.apply(made)
        return Features(features.tensors, features.rows, refused + features.rejected)


class HandledFileInputs:
    """By a handler's `preprocess`."""

    def __init__(self, plan: HandledPlan, event: pa.Schema) -> None:
        self._plan, self._event = plan, event
        self._casts = EventCasts(event)

    @property
    def fields(self) -> list[str]:
        """As `FileInputs.fields`: all that events have."""
        return list(self._event.names)

    @property
    def categories(self) -> list[str]:
        """As `FileInputs.categories`."""
        return [item.name for item in self._event if pa.types.is_dictionary(item.type)]

    def absent(self, names: list[str]) -> list[str]:
        """As `FileInputs.absent`: nobody knows which of them the handler looks at, only that none will not do."""
        return [] if set(names) & set(self.fields) else self.fields

    def check(self, schema: pa.Schema) -> None:
        """As `FileInputs.check`."""
        self._casts.check(schema)

    def apply(self, columns: Columns) -> Features:
        """As `FileInputs.apply`; a handler at fault is its `failure`."""
        events, refused = _cast(self._casts, columns)
        features = self._plan.apply(events)
        return Features(features.tensors, features.rows, refused + features.rejected, features.failure)


def _cast(casts: ColumnCasts | EventCasts, columns: Columns) -> tuple[Columns, list[Rejection]]:
    try:
        return casts.apply(columns)
    except pa.ArrowInvalid as exc:
        raise BadSettings(f"the columns are damaged: {exc}") from exc
