"""Events ready to send: keys, values and which of them are poison."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadgen.encode import Writer, write_mixed
from loadgen.pipeline import Pipeline
from loadgen.poison import Poisoner, PoisonShare
from loadgen.skew import KeyNumbers


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive events. poison: row to kind, for the rows that are poison."""

    keys: list[bytes]
    values: list[bytes]
    poison: dict[int, str]


class EventStream:
    """Event i is a pure function of the seed, i and its event_time."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        numbers: KeyNumbers,
        writers: Sequence[Writer],
        everything: Writer,
        poison_share: PoisonShare,
        poisoner: Poisoner,
    ) -> None:
        """`writers` take turns; `everything` is today's version, which can express every event."""
        self._pipeline = pipeline
        self._numbers = numbers
        self._writers = writers
        self._everything = everything
        self._poison_share = poison_share
        self._poisoner = poisoner

    def chunk(self, first: int, event_times_ms: NDArray[np.int64]) -> Chunk:
        """Events first to first + n - 1, n being the number of event times."""
        count = len(event_times_ms)
        events = self._pipeline.columns(self._numbers.numbers(first, count))
        keys: list[bytes] = events.column(self._pipeline.id_field).cast(pa.binary()).to_pylist()
        events = events.append_column("event_time", pa.array(event_times_ms))
        values = write_mixed(self._writers, self._everything, events, first)

        kinds = self._pipeline.poison_kinds
        ordinals = self._poison_share.ordinals(first, count)
        poison = {}
        for row in np.flatnonzero(ordinals >= 0).tolist():
            kind = kinds[int(ordinals[row]) % len(kinds)]
            poison[row] = kind
            values[row] = self._poisoner.spoil(kind, self._row(events, row))
        return Chunk(keys=keys, values=values, poison=poison)

    def _row(self, events: pa.RecordBatch, row: int) -> dict[str, object]:
        """One event as the record codec wants it: enums by symbol."""
        values: dict[str, object] = events.slice(row, 1).to_pylist()[0]
        for field in self._everything.schema.fields:
            if isinstance(field["type"], dict) and field["type"]["type"] == "enum":
                index = events.column(field["name"])[row].as_py()
                values[field["name"]] = field["type"]["symbols"][index]
        return values
