"""Events whose truth is known, framed as a producer would, with some broken on purpose."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.avro.datum_writer import DatumWriter
from app.avro.framing import SingleObjectFraming
from app.avro.schemas import SchemaDirectory
from app.train.churn_data import ChurnFormula

SEED = 11  # not the training seed: the model has not seen these customers
BROKEN_EVERY = 200  # one event in this many is cut short
PATIENCE = 0.05  # how far below its promise a model may answer before the demo calls it insane

DemoPipeline = Literal["churn", "digits"]


@dataclass(frozen=True, slots=True)
class DemoEvents:
    """Framed events and their true classes; `broken` of them cannot be decoded."""

    values: list[bytes]
    keys: list[bytes]
    truth: npt.NDArray[np.int64]
    broken: int


class EventMaker:
    """Makes the events of one pipeline; event i is a function of i alone."""

    def __init__(self, pipeline: DemoPipeline, schemas: Path) -> None:
        self._make: Callable[[int, int], tuple[dict[str, pa.Array], npt.NDArray[Any]]]
        if pipeline == "churn":
            self._formula = ChurnFormula.load(schemas)
            self._make = self._churn
            schema = "ChurnEvent"
        else:
            from app.train.digits import digits_data  # noqa: PLC0415 - needs scikit-learn

            self._digits = digits_data()
            self._make = self._handwritten
            schema = "DigitEvent"
        directory = SchemaDirectory(schemas)
        event = directory.named(schema)
        framing = SingleObjectFraming()
        self._writer = DatumWriter(framing, framing.header(event.fingerprint), event)
        self._key = event.fields[0]["name"]

    def make(self, first: int, count: int, now_ms: int) -> DemoEvents:
        """Events `first` to `first + count - 1`, stamped with this time."""
        columns, truth = self._make(first, count)
        columns["event_time"] = pa.array(np.full(count, now_ms)).view(pa.timestamp("ms"))
        typed = {item.name: _as(columns[item.name], item.type) for item in self._writer.fields}
        values = self._writer.write(typed, count)
        broken = range(-first % BROKEN_EVERY, count, BROKEN_EVERY)
        for row in broken:
            values[row] = values[row][:-1]
        keys = [key.encode() for key in columns[self._key].to_pylist()]
        return DemoEvents(values, keys, truth, len(broken))

    def _churn(self, first: int, count: int) -> tuple[dict[str, pa.Array], npt.NDArray[Any]]:
        customers = self._formula.customers(SEED, first, count)
        table = customers.table
        return {name: table.column(name) for name in table.schema.names}, customers.churned.astype(np.int64)

    def _handwritten(self, first: int, count: int) -> tuple[dict[str, pa.Array], npt.NDArray[Any]]:
        """Only digits the model was not trained on, over and over."""
        unseen = np.flatnonzero(self._digits.held_out)
        chosen = unseen[np.arange(first, first + count) % len(unseen)]
        ids = pa.array([f"digit-{index}-{first + row}" for row, index in enumerate(chosen.tolist())])
        pixels = self._digits.table.column("pixels").take(pa.array(chosen))
        return {"digit_id": ids, "pixels": pixels}, self._digits.labels[chosen]


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else column.cast(kind)
