"""A row scores the same alone, in any batch and in any position; and what is tried when it does not.

Which batch a record falls into depends on timing, on the rollout and on a cache: an answer that depended on it could
not be verified, and after a restart the same record could be answered otherwise. So a version is tried before it
serves. The tolerance is absolute and the golden rows' own (`golden.atol`), for every number of every output, against
the answer that the row gets alone.

A graph may look at its whole batch (a mean over rows; dynamic quantization, whose scale is the batch's largest
value): nothing makes up for that, and it is refused. Or it may depend on the number of rows only: then its batches
are padded to a few fixed sizes with copies of one of their own rows, and it is tried again like that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import ModelFailed
from app.ports import Tensors

Array = npt.NDArray[Any]
Run = Callable[[Tensors], dict[str, Array]]

# Odd, even, around the widths of vector instructions; each is tried in two random arrangements.
BATCHES = (2, 3, 7, 16, 33) * 2
MOST_ROWS = 32  # golden rows that are tried: each is scored once alone


@dataclass(frozen=True, slots=True)
class Difference:
    """The worst of a trial. why: empty, or that the model failed, and then `by` is infinite."""

    by: float
    output: str
    batch: int
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"it fails on a batch of {self.batch} rows: {self.why}"
        return f"output {self.output!r} by {self.by:.3g} in a batch of {self.batch} rows"


def worst_difference(run: Run, golden: Tensors, more_batches: Sequence[int] = ()) -> Difference:
    """How far a golden row's answer in some batch is from the one it gets alone.

    golden: by input name, (n, …). The neighbours in a batch are other golden rows, and halves of them, at random
    but always the same. more_batches: sizes to try as well.
    """
    count = min(MOST_ROWS, len(next(iter(golden.values()))))
    rows = {name: tensor[:count] for name, tensor in golden.items()}
    pool = {name: np.concatenate([tensor, _halves(tensor)]) for name, tensor in rows.items()}
    worst = Difference(0.0, "", 1)
    size = 1
    try:
        single = [run({name: tensor[row : row + 1] for name, tensor in rows.items()}) for row in range(count)]
        alone = {name: np.concatenate([answer[name] for answer in single]) for name in single[0]}
        rng = np.random.default_rng(0)
        for size in (*BATCHES, *more_batches):
            picks = _picks(rng, size, count)
            answers = run({name: tensor[picks] for name, tensor in pool.items()})
            is_golden = picks < count
            for name, answer in answers.items():
                apart = np.abs(answer[is_golden].astype(np.float64) - alone[name][picks[is_golden]])
                by = float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
                if by > worst.by:
                    worst = Difference(by, name, size)
    except ModelFailed as exc:
        return Difference(np.inf, "", size, str(exc))
    return worst


def in_buckets(run: Run, tensors: Tensors, sizes: Sequence[int]) -> dict[str, Array]:
    """The same answers from batches of these sizes only, rising: the next larger one, filled with the first row."""
    n = len(next(iter(tensors.values())))
    answers = []
    for start in range(0, n, sizes[-1]):
        count = min(n - start, sizes[-1])
        size = next(size for size in sizes if size >= count)
        padded = {name: _padded(tensor[start : start + count], size) for name, tensor in tensors.items()}
        answers.append({name: answer[:count] for name, answer in run(padded).items()})
    if len(answers) == 1:
        return answers[0]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _halves(tensor: Array) -> Array:
    """Other rows in the same range, should all golden ones be equal."""
    return (tensor // 2 if np.issubdtype(tensor.dtype, np.integer) else tensor * 0.5).astype(tensor.dtype)


def _picks(rng: np.random.Generator, size: int, count: int) -> npt.NDArray[np.int64]:
    """`size` rows out of twice `count`, in any order, some of the first `count` among them."""
    picks = rng.integers(0, 2 * count, size)
    golden = rng.permutation(count)[: max(1, size // 2)]
    picks[rng.permutation(size)[: len(golden)]] = golden
    return picks


def _padded(tensor: Array, size: int) -> Array:
    missing = size - len(tensor)
    return np.concatenate([tensor, np.repeat(tensor[:1], missing, axis=0)]) if missing else tensor
