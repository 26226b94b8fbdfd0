"""What fills each field of a prediction: the model's outputs, the event, or the provenance.

A fill gives a column, or, of a handful of rows, plain values: making and reading a column costs more than they do.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from typing_extensions import override

from app.avro.few_rows import plain_values
from app.records import IntArray, Origin

MOST_KNOWN = 64  # constants kept as columns; versions come and go, and the few current ones are made again


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """Rows to be encoded.

    table: (m,) their events. outputs: by field, (m,) or (m, k). rows: (m,) their places in `origin`.
    constants: provenance that is the same in every row.
    """

    table: pa.RecordBatch
    outputs: Mapping[str, npt.NDArray[Any]]
    rows: IntArray
    origin: Origin
    constants: Mapping[str, str | int]
    now_ms: int


class Fill(ABC):
    """Of the field `name`, whose column is of type `kind`."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self.name, self.kind = name, kind

    @abstractmethod
    def column(self, answered: AnsweredRows) -> pa.Array:
        """(m,) of `kind`."""

    def values(self, answered: AnsweredRows) -> list[Any]:
        """The same as Avro writes it; numbers for times."""
        return plain_values(self.column(answered))


class _FromArray(Fill):
    """What NumPy has."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        super().__init__(name, kind)
        self._dtype = None if pa.types.is_string(kind) or pa.types.is_list(kind) else kind.to_pandas_dtype()

    @abstractmethod
    def array(self, answered: AnsweredRows) -> npt.NDArray[Any]:
        """(m,) or, for a field of arrays, (m, k)."""

    @override
    def column(self, answered: AnsweredRows) -> pa.Array:
        return _arrow(self.array(answered), self.kind)

    @override
    def values(self, answered: AnsweredRows) -> list[Any]:
        array = self.array(answered)
        values: list[Any] = (array if self._dtype is None else array.astype(self._dtype, copy=False)).tolist()
        return values


class FromModel(_FromArray):
    """An output."""

    @override
    def array(self, answered: AnsweredRows) -> npt.NDArray[Any]:
        return answered.outputs[self.name]


class SourcePartition(_FromArray):
    """The event's partition."""

    @override
    def array(self, answered: AnsweredRows) -> npt.NDArray[Any]:
        return answered.origin.partitions()[answered.rows]


class SourceOffset(_FromArray):
    """The event's offset."""

    @override
    def array(self, answered: AnsweredRows) -> npt.NDArray[Any]:
        return answered.origin.offsets[answered.rows]


class FromEvent(Fill):
    """A field of the event."""

    @override
    def column(self, answered: AnsweredRows) -> pa.Array:
        column = answered.table.column(self.name)
        # safe=False: no event may stop the worker; what start-up lets through loses at most precision
        return column if column.type == self.kind else column.cast(self.kind, safe=False)


class Nulls(Fill):
    """Nothing."""

    @override
    def column(self, answered: AnsweredRows) -> pa.Array:
        return pa.nulls(len(answered.rows), self.kind)

    @override
    def values(self, answered: AnsweredRows) -> list[Any]:
        return [None] * len(answered.rows)


class Constant(Fill):
    """Provenance that is the same in every row."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        super().__init__(name, kind)
        self.known: dict[str | int, pa.Array] = {}

    @override
    def column(self, answered: AnsweredRows) -> pa.Array:
        return self.repeated(answered.constants[self.name], len(answered.rows))

    @override
    def values(self, answered: AnsweredRows) -> list[Any]:
        return [answered.constants[self.name]] * len(answered.rows)

    def repeated(self, value: str | int, count: int) -> pa.Array:
        """`count` times `value`; a slice of what was made before if that was longer."""
        known = self.known.get(value)
        if known is None or len(known) < count:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()
            known = self.known[value] = pa.repeat(pa.scalar(value, self.kind), count)
        return known.slice(0, count)


class SourceTopic(Constant):
    """The event's topic, which most batches have one of."""

    @override
    def column(self, answered: AnsweredRows) -> pa.Array:
        sources = answered.origin.sources
        first = sources[0].topic
        if all(source.topic == first for source in sources):
            return self.repeated(first, len(answered.rows))
        topics = pa.array([source.topic for source in sources], self.kind)
        return topics.take(pa.array(answered.origin.source[answered.rows]))

    @override
    def values(self, answered: AnsweredRows) -> list[Any]:
        sources = answered.origin.sources
        return [sources[index].topic for index in answered.origin.source[answered.rows].tolist()]


class PredictedAt(Fill):
    """When."""

    @override
    def column(self, answered: AnsweredRows) -> pa.Array:
        return _arrow(np.full(len(answered.rows), answered.now_ms), self.kind)


# Every provenance field, the narrowest type that holds it, and what fills it.
PROVENANCE: dict[str, tuple[pa.DataType, type[Fill]]] = {
    "model_name": (pa.string(), Constant),
    "model_version": (pa.string(), Constant),
    "model_digest": (pa.string(), Constant),
    "answered_by": (pa.string(), Constant),
    "rollout_revision": (pa.int32(), Constant),
    "source_topic": (pa.string(), SourceTopic),
    "source_partition": (pa.int32(), SourcePartition),
    "source_offset": (pa.int64(), SourceOffset),
    "predicted_at": (pa.timestamp("ms"), PredictedAt),
}


def _arrow(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        rows, width = values.shape
        flat = _arrow(np.ascontiguousarray(values).reshape(-1), kind.value_type)
        return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width)), flat)
    if pa.types.is_timestamp(kind):
        milliseconds = pa.array(values).view(pa.timestamp("ms"))  # a seventh of the time of pa.array with a type
        return milliseconds if kind == milliseconds.type else milliseconds.cast(kind)
    if pa.types.is_string(kind):
        return pa.array(values.tolist(), pa.string())
    return pa.array(values.astype(kind.to_pandas_dtype(), copy=False), kind)
