"""How far two versions of a model agree, and how often one is right: numbers over held-out rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import BadSettings
from app.specs import Output, ProbabilitiesOutput

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Over `rows` rows: the largest absolute difference of any output, inf if a value is not finite.

    same_class: share of rows that every probabilities output puts into the same class; 1.0 if there is none.
    row: where the largest difference is.
    """

    rows: int
    max_difference: float
    same_class: float
    row: int


def agreement(outputs: tuple[Output, ...], one: Mapping[str, Array], other: Mapping[str, Array]) -> Agreement:
    """Compare what two models say about the same rows. Each output: (n, …) with the same numbers in both."""
    n = len(one[outputs[0].name])
    worst, same = np.zeros(n), np.ones(n, np.bool_)
    for output in outputs:
        left = one[output.name].reshape(n, -1).astype(np.float64)
        right = other[output.name].reshape(n, -1).astype(np.float64)
        with np.errstate(invalid="ignore"):  # inf - inf
            difference = np.abs(left - right).max(axis=1)
        worst = np.maximum(worst, np.where(np.isfinite(difference), difference, np.inf))
        if isinstance(output, ProbabilitiesOutput):
            same &= output.winners(left) == output.winners(right)
    row = int(worst.argmax())
    return Agreement(n, float(worst[row]), float(same.mean()), row)


def accuracy(output: ProbabilitiesOutput, probabilities: Array, labels: Array) -> float:
    """Share of rows whose predicted class is their label. Raises BadSettings if a label is none of the classes."""
    index_of = {label: index for index, label in enumerate(output.classes)}
    truth = np.array([index_of.get(label, -1) for label in labels.tolist()])
    if (truth < 0).any():
        stranger = labels[int(np.argmax(truth < 0))]
        raise BadSettings(f"the label {str(stranger)!r} is none of the classes of {output.name!r}")
    return float((output.winners(probabilities) == truth).mean())
