"""Bins: which values are counted together, and how a sorted column is counted into them.

To sort floats takes a fraction of looking each of them up among the edges.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.records import IntArray
from app.specs import ValueOutput

Array = npt.NDArray[Any]

SHARES = tuple(step / 20 for step in range(21))
# Tenths of a decade: a percentile read off these is within an eighth of its value.
LATENCIES_S = tuple(float(f"{10 ** (step / 10):.6g}") for step in range(-30, 31))
# Of a regression whose manifest gives no bounds: 1, 2, 5, 10, … on both sides of zero.
_ONE_SIDE = tuple(float(f"{digit}e{power}") for power in range(-3, 10) for digit in (1, 2, 5))
VALUES = (*(-edge for edge in reversed(_ONE_SIDE)), 0.0, *_ONE_SIDE)


class Bins:
    """The bins between rising edges, and those below and above them: one more than edges."""

    def __init__(self, edges: Sequence[float], dtype: npt.DTypeLike = np.float64) -> None:
        """dtype: of the values. Edges are rounded as values were, so that a value that is an edge is one still."""
        self.edges = tuple(edges)
        with np.errstate(over="ignore"):
            self._edges = np.array(self.edges, dtype)

    def __len__(self) -> int:
        return len(self.edges) + 1

    def count(self, ascending: Array) -> IntArray:
        """How many of these values, which rise, are in each bin. The last edge belongs to the bin below it."""
        counts = np.full(len(self), len(ascending), np.int64)
        if len(self._edges):
            counts[:-1] = np.searchsorted(ascending, self._edges)
            counts[-2] = np.searchsorted(ascending, self._edges[-1], side="right")
            counts[1:] -= counts[:-1].copy()
        return counts


def score_edges(classes: int, value: ValueOutput | None) -> Sequence[float]:
    """For the score of so many classes, or of a regression's value; of anything else there is none."""
    if classes or value is None:
        return SHARES if classes == 2 else ()
    if value.min is None or value.max is None or value.min == value.max:
        return VALUES
    return tuple(np.linspace(value.min, value.max, len(SHARES)).tolist())
