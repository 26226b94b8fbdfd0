"""Checked outputs → framed Avro datums, with the provenance that makes each prediction verifiable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.avro.columns import may_have_null_items
from app.avro.datum_writer import DatumWriter
from app.errors import SchemaIncompatible
from app.ports import Model
from app.records import Columns, IntArray, Origin
from app.specs import Output, ProbabilitiesOutput


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answers: the model version and the rollout that chose it."""

    model: Model
    answered_by: str = "stable"
    rollout_revision: int = 1

    def constants(self) -> dict[str, str | int]:
        """Provenance fields that are the same in every row of a batch."""
        return {
            "model_name": self.model.name,
            "model_version": self.model.version,
            "model_digest": self.model.digest,
            "answered_by": self.answered_by,
            "rollout_revision": self.rollout_revision,
        }


# Every provenance field, and the narrowest type that holds it.
PROVENANCE = {
    "model_name": pa.string(),
    "model_version": pa.string(),
    "model_digest": pa.string(),
    "answered_by": pa.string(),
    "rollout_revision": pa.int32(),
    "source_topic": pa.string(),
    "source_partition": pa.int32(),
    "source_offset": pa.int64(),
    "predicted_at": pa.timestamp("ms"),
}


class PredictionEncoder:
    """Fills each field of the output schema from the model's outputs, the provenance, or the event.

    A field is looked for in that order, by name; a nullable field found nowhere is null.
    """

    def __init__(self, writer: DatumWriter, model: Model, event: pa.Schema) -> None:
        """Raises SchemaIncompatible, naming the field that nothing can fill or that has another type."""
        self._writer = writer
        self._types: dict[str, pa.DataType] = {item.name: item.type for item in writer.fields}
        outputs = {name: output_type(spec, name) for spec in model.outputs for name in spec.fields}
        self._from_event: list[str] = []
        self._nulls: list[str] = []
        for item in writer.fields:
            if item.name in outputs:
                _check_type(item.name, outputs[item.name], item.type)
            elif item.name in PROVENANCE:
                _check_type(item.name, PROVENANCE[item.name], item.type)
            elif item.name in event.names:
                _check_type(item.name, event.field(item.name).type, item.type)
                if event.field(item.name).nullable and not item.nullable:
                    raise SchemaIncompatible(f"prediction schema field {item.name!r} takes no null, the event's does")
                if item.name in writer.full_lists and may_have_null_items(event.field(item.name)):
                    msg = f"prediction schema field {item.name!r} takes no null items, the event's does"
                    raise SchemaIncompatible(msg)
                self._from_event.append(item.name)
            elif item.nullable:
                self._nulls.append(item.name)
            else:
                filled = ", ".join(sorted(outputs))
                msg = (
                    f"prediction schema field {item.name!r} is filled by nothing: the model's outputs fill {filled}; "
                    f"the event has {', '.join(event.names)}"
                )
                raise SchemaIncompatible(msg)
        for name, symbols in writer.symbols.items():
            if name not in self._nulls:
                _check_symbols(name, set(symbols), model)
        if missing := sorted(outputs.keys() - self._types.keys()):
            raise SchemaIncompatible(f"the prediction schema lacks {', '.join(missing)}, which the model fills")
        self._repeated: dict[tuple[str, str | int], pa.Array] = {}

    def encode(
        self,
        columns: Columns,
        fields: Mapping[str, npt.NDArray[Any]],
        rows: IntArray,
        origin: Origin,
        answerer: Answerer,
        now_ms: int,
    ) -> list[bytes]:
        """One framed datum per answered row.

        fields: (m,) or (m, k) arrays of the rows `rows`, a subset of `columns.rows`, both rising.
        """
        count = len(rows)
        arrays: dict[str, pa.Array] = {name: _arrow(value, self._types[name]) for name, value in fields.items()}
        table = columns.table
        if count != len(columns.rows):
            table = table.take(pa.array(np.searchsorted(columns.rows, rows)))
        for name in self._from_event:
            column = table.column(name)
            # safe=False: no event may stop the worker; what `_check_type` lets through loses at most precision
            arrays[name] = column if column.type == self._types[name] else column.cast(self._types[name], safe=False)
        for name in self._nulls:
            arrays[name] = pa.nulls(count, self._types[name])
        provenance = self._provenance(rows, origin, answerer, now_ms)
        for name in PROVENANCE.keys() & self._types.keys() - arrays.keys():
            arrays[name] = provenance[name]()
        return self._writer.write(arrays, count)

    def _provenance(
        self, rows: IntArray, origin: Origin, answerer: Answerer, now_ms: int
    ) -> dict[str, Callable[[], pa.Array]]:
        count = len(rows)
        types = self._types

        def constant(name: str, value: str | int) -> Callable[[], pa.Array]:
            return lambda: self._repeat(name, value, count)

        made = {name: constant(name, value) for name, value in answerer.constants().items()}
        topics = {source.topic for source in origin.sources}
        if len(topics) == 1:
            made["source_topic"] = constant("source_topic", next(iter(topics)))
        else:
            names = np.array([source.topic for source in origin.sources])
            made["source_topic"] = lambda: pa.array(names[origin.source[rows]], pa.string())
        made["source_partition"] = lambda: _arrow(origin.partitions()[rows], types["source_partition"])
        made["source_offset"] = lambda: _arrow(origin.offsets[rows], types["source_offset"])
        made["predicted_at"] = lambda: _arrow(np.full(count, now_ms), types["predicted_at"])
        return made

    def _repeat(self, name: str, value: str | int, count: int) -> pa.Array:
        """`count` times `value`; a slice of what was made before if that was longer."""
        known = self._repeated.get((name, value))
        if known is None or len(known) < count:
            if len(self._repeated) > 64:  # versions come and go; the few current ones are made again
                self._repeated.clear()
            known = pa.repeat(pa.scalar(value, self._types[name]), count)
            self._repeated[name, value] = known
        return known.slice(0, count)


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


def output_type(spec: Output, name: str) -> pa.DataType:
    """The Arrow type that the quantity behind an output field needs."""
    if not isinstance(spec, ProbabilitiesOutput):
        return pa.float64()
    quantity = spec.fields[name]
    if quantity == "class":
        if isinstance(spec.classes[0], str):
            return pa.string()
        return pa.int32() if all(-(2**31) <= int(label) < 2**31 for label in spec.classes) else pa.int64()
    if quantity == "positive":
        return pa.bool_()
    return pa.list_(pa.float64()) if quantity == "probabilities" else pa.float64()


def _check_symbols(name: str, symbols: set[str], model: Model) -> None:
    """An enum is filled by class labels it knows; by anything else one event could stop the worker."""
    labels = [spec.classes for spec in model.outputs if isinstance(spec, ProbabilitiesOutput) and name in spec.fields]
    if not labels:
        raise SchemaIncompatible(f"prediction schema field {name!r} is an enum, only class labels can fill one")
    if unknown := sorted({str(label) for label in labels[0]} - symbols):
        raise SchemaIncompatible(f"prediction schema field {name!r}: the enum lacks {', '.join(unknown)}")


def _check_type(name: str, given: pa.DataType, wanted: pa.DataType) -> None:
    """Whole numbers become numbers that are no narrower, fractions fractions; all else must be the same type."""
    kinds = [
        (pa.types.is_integer, lambda kind: pa.types.is_integer(kind) and kind.bit_width >= given.bit_width),
        (pa.types.is_floating, pa.types.is_floating),
        (pa.types.is_integer, pa.types.is_floating),
        (pa.types.is_boolean, pa.types.is_boolean),
        (pa.types.is_string, pa.types.is_string),
        (pa.types.is_timestamp, pa.types.is_timestamp),
        (pa.types.is_date, pa.types.is_date),
    ]
    if pa.types.is_list(given) and pa.types.is_list(wanted):
        _check_type(f"{name}[]", given.value_type, wanted.value_type)
        return
    if pa.types.is_dictionary(given):
        given = given.value_type
    if not any(of_given(given) and of_wanted(wanted) for of_given, of_wanted in kinds):
        raise SchemaIncompatible(f"prediction schema field {name!r} is {wanted}, what fills it is {given}")
