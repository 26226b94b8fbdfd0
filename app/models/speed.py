"""How fast models score, measured side by side: in turn, so that a busy machine slows them alike."""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from app.ports import Model

BATCH = 512  # the default of batch.max_records
ROUNDS, ROUND_S = 31, 0.02  # of each model: over half a second of each, and the median shrugs off a stall


def rows_per_second(models: Sequence[Model], tensors: Mapping[str, npt.NDArray[Any]]) -> list[float]:
    """Rows per second of each model on batches of 512, the median of many interleaved rounds.

    tensors: inputs that all of them take; the rows are repeated or cut to fill a batch.
    """
    batch = {name: np.resize(tensor, (BATCH, *tensor.shape[1:])) for name, tensor in tensors.items()}
    repeats = [_repeats(model, batch) for model in models]
    rounds: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for model, count, times in zip(models, repeats, rounds, strict=True):
            times.append(_seconds(model, batch, count) / count)
    return [BATCH / median(times) for times in rounds]


def _repeats(model: Model, batch: Mapping[str, npt.NDArray[Any]]) -> int:
    """How many batches fill a round; the first ones also warm the model up."""
    once = min(_seconds(model, batch, 1) for _ in range(3))
    return max(1, int(ROUND_S / once))


def _seconds(model: Model, batch: Mapping[str, npt.NDArray[Any]], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        model.run(batch)
    return time.perf_counter() - started
