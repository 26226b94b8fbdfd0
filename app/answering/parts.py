"""A batch as parts: the rows of each version, and its inputs made of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from app.answering.lineup import Lane
from app.errors import ModelFailed
from app.records import Columns, IntArray, Rejection


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a batch that are one lane's, and what it needs to be asked about them.

    columns: those that decoded. tensors, rows: those of them that it can be asked about. rejected: the others,
    with those that did not decode. timestamps_ms: of all its rows, `skipped` tombstones included.
    failure: why it cannot be asked at all; then there are no tensors.
    """

    lane: Lane
    columns: Columns
    tensors: dict[str, np.ndarray]
    rows: IntArray
    rejected: list[Rejection]
    skipped: int
    timestamps_ms: IntArray
    failure: ModelFailed | None = None


def part_of(lane: Lane, columns: Columns, rejected: list[Rejection], skipped: int, timestamps_ms: IntArray) -> Part:
    """All rows of a batch as this lane's. rejected: those that are no columns; timestamps_ms: (n,), of every row."""
    features = lane.plan.apply(columns)
    out = rejected + features.rejected
    return Part(lane, columns, features.tensors, features.rows, out, skipped, timestamps_ms, features.failure)


def parts_of(
    lanes: Sequence[Lane], choice: IntArray, columns: Columns, rejected: list[Rejection], timestamps_ms: IntArray
) -> tuple[Part, ...]:
    """A part for each lane that has rows in this batch, whatever becomes of them. choice: (n,) indices into `lanes`."""
    parts = []
    for index, lane in enumerate(lanes):
        chosen = choice == index
        if not chosen.any():
            continue
        decoded = chosen[columns.rows]
        its_columns = Columns(columns.table.filter(pa.array(decoded)), columns.rows[decoded])
        its_rejected = [item for item in rejected if chosen[item.row]]
        skipped = int(np.count_nonzero(chosen)) - len(its_columns.rows) - len(its_rejected)
        parts.append(part_of(lane, its_columns, its_rejected, skipped, timestamps_ms[chosen]))
    return tuple(parts)
