"""Checked outputs → framed Avro datums, with the provenance that makes each prediction verifiable."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.avro.columns import may_have_null_items
from app.avro.datum_writer import DatumWriter
from app.errors import SchemaIncompatible
from app.pipeline.encode.fills import PROVENANCE, AnsweredRows, Fill, FromEvent, FromModel, Nulls
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


class PredictionEncoder:
    """Fills each field of the output schema from the model's outputs, the provenance, or the event.

    A field is looked for in that order, by name; a nullable field found nowhere is null.
    """

    def __init__(self, writer: DatumWriter, model: Model, event: pa.Schema) -> None:
        """Raises SchemaIncompatible, naming the field that nothing can fill or that has another type."""
        self._writer = writer
        self._fills: list[Fill] = []
        outputs = {name: output_type(spec, name) for spec in model.outputs for name in spec.fields}
        for item in writer.fields:
            if item.name in outputs:
                _check_type(item.name, outputs[item.name], item.type)
                fill: type[Fill] = FromModel
            elif item.name in PROVENANCE:
                kind, fill = PROVENANCE[item.name]
                _check_type(item.name, kind, item.type)
            elif item.name in event.names:
                _check_type(item.name, event.field(item.name).type, item.type)
                if event.field(item.name).nullable and not item.nullable:
                    raise SchemaIncompatible(f"prediction schema field {item.name!r} takes no null, the event's does")
                if item.name in writer.full_lists and may_have_null_items(event.field(item.name)):
                    msg = f"prediction schema field {item.name!r} takes no null items, the event's does"
                    raise SchemaIncompatible(msg)
                fill = FromEvent
            elif item.nullable:
                fill = Nulls
            else:
                filled = ", ".join(sorted(outputs))
                msg = (
                    f"prediction schema field {item.name!r} is filled by nothing: the model's outputs fill {filled}; "
                    f"the event has {', '.join(event.names)}"
                )
                raise SchemaIncompatible(msg)
            if item.name in writer.symbols and fill is not Nulls:
                _check_symbols(item.name, set(writer.symbols[item.name]), model)
            self._fills.append(fill(item.name, item.type))
        if missing := sorted(outputs.keys() - set(writer.fields.names)):
            raise SchemaIncompatible(f"the prediction schema lacks {', '.join(missing)}, which the model fills")

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
        count, table = len(rows), columns.table
        if count != len(columns.rows):
            table = table.take(pa.array(np.searchsorted(columns.rows, rows)))
        answered = AnsweredRows(table, fields, rows, origin, answerer.constants(), now_ms)
        if self._writer.takes_values(count):
            return self._writer.write_values([fill.values(answered) for fill in self._fills], count)
        return self._writer.write({fill.name: fill.column(answered) for fill in self._fills}, count)


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
