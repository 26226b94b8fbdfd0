"""What the feature step saw of the rows, predicted or not: how many values are there, missing or unknown."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.ports import Tensors
from app.records import Columns, IntArray

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class LookedAt:
    """What the feature step saw of a batch and made of it.

    columns: the rows it looked at. tensors: of those that it refused nothing of, `rows`. Both rise.
    """

    columns: Columns
    tensors: Tensors
    rows: IntArray


class SeenTogether:
    """What the feature step saw of several batches, put together as far as it is asked for."""

    def __init__(self, several: Sequence[tuple[IntArray, LookedAt]]) -> None:
        """several: of each batch, the rows that were predicted, rising, and what was seen; at least one."""
        self._several = several
        tables = [looked.columns.table for _, looked in self._several]
        # an enum may come as a dictionary or as strings: columns of one type are looked at together
        self._tables = [pa.Table.from_batches(list(run)) for _, run in groupby(tables, key=lambda table: table.schema)]
        self.seen = sum(len(table) for table in tables)
        self._predicted = self._positions()

    def tensor(self, name: str, width: int) -> Array:
        """(m, width) of the rows predicted."""
        parts = []
        for rows, looked in self._several:
            tensor = looked.tensors[name]
            tensor = tensor.reshape(len(tensor), width)
            whole = len(rows) == len(looked.rows)
            parts.append(tensor if whole else tensor[np.searchsorted(looked.rows, rows)])
        return np.concatenate(parts)

    def missing(self, field: str) -> int:
        """How many rows have no value."""
        return sum(int(table.column(field).null_count) for table in self._tables)

    def has(self, field: str) -> npt.NDArray[np.bool_]:
        """(m,) whether a row that was predicted has a value."""
        valid = np.concatenate([table.column(field).is_valid().to_numpy() for table in self._tables])
        return valid if self._predicted is None else valid[self._predicted]

    def _positions(self) -> IntArray | None:
        """(m,) where in all tables together those rows are that were predicted; None if all are."""
        if all(len(rows) == len(looked.columns.rows) for rows, looked in self._several):
            return None
        before, parts = 0, []
        for rows, looked in self._several:
            parts.append(before + np.searchsorted(looked.columns.rows, rows))
            before += len(looked.columns.rows)
        return np.concatenate(parts)

    def known_elsewhere(self, field: str, categories: Sequence[str]) -> int:
        """How many of the rows that were not predicted have one of these categories."""
        known = 0
        for rows, looked in self._several:
            if len(rows) == len(looked.columns.rows):
                continue
            others = np.flatnonzero(~np.isin(looked.columns.rows, rows, assume_unique=True))
            values = looked.columns.table.column(field).take(pa.array(others)).cast(pa.string())
            known += pc.sum(pc.is_in(values, value_set=pa.array(categories, pa.string()))).as_py() or 0
        return known
