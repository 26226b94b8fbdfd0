"""What is asked: the pipelines' events without their ids, as JSON instances or as vectors of numbers.

Request `number` asks about rows number * rows and on, of a ring of events that is made before the run, so that
making them takes nothing from it. The key is the event's: a rollout treats a customer as it does in the stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadgen.errors import BadOption
from loadgen.pipeline import Pipeline
from loadgen.schemas import AvroSchema

RING = 16_384  # different events: more than the worker's caches and branch predictors remember, 20 MB as JSON
MAX_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Ring:
    """Events in columns; all have `len(keys)` rows. Fields in the schema's order, categories by symbol."""

    keys: list[str]
    fields: pa.RecordBatch
    vectors: NDArray[np.float32]  # (n, numbers): categories as indices, NaN where a value is missing

    @staticmethod
    def of(pipeline: Pipeline, schema: AvroSchema, events: int = RING) -> "Ring":
        """The first events of a pipeline. schema: the event's, for the symbols of its enums."""
        columns = pipeline.columns(np.arange(events, dtype=np.int64))
        keys: list[str] = columns.column(pipeline.id_field).to_pylist()
        columns = columns.drop_columns([pipeline.id_field])
        vectors = np.column_stack([_numbers(column) for column in columns.columns])
        return Ring(keys=keys, fields=_with_symbols(columns, schema), vectors=vectors)

    def rows(self, number: int, rows: int) -> list[int]:
        """Which events request `number` asks about."""
        first = number * rows % len(self.keys)
        return [(first + row) % len(self.keys) for row in range(rows)]


def requests_in(ring: Ring, rows: int) -> int:
    """How many different requests the ring makes, before the first comes again.

    Raises BadOption for a number of rows that no request may have.
    """
    if not 1 <= rows <= MAX_ROWS:
        raise BadOption(f"--rows: 1 to {MAX_ROWS:,} in each request")
    return max(len(ring.keys) // rows, 1)


def _numbers(column: pa.Array) -> NDArray[np.float32]:
    if pa.types.is_list(column.type):
        numbers: NDArray[np.float32] = column.values.to_numpy(zero_copy_only=False).astype(np.float32)
        return numbers.reshape(len(column), -1)
    found: NDArray[np.float32] = column.to_numpy(zero_copy_only=False).astype(np.float32)
    return found.reshape(-1, 1)


def _with_symbols(columns: pa.RecordBatch, schema: AvroSchema) -> pa.RecordBatch:
    """Enums by their symbol, as people write them in JSON."""
    for field in schema.fields:
        kind: Any = field["type"]
        if isinstance(kind, dict) and kind["type"] == "enum":
            symbols: Sequence[str] = kind["symbols"]
            place = columns.schema.get_field_index(field["name"])
            named = pa.array(symbols).take(columns.column(place))
            columns = columns.set_column(place, field["name"], named)
    return columns
