"""Two versions' answers to the same rows, side by side: the same class, and how far apart the numbers are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.errors import SchemaIncompatible
from app.pipeline.infer import Inference
from app.records import IntArray
from app.specs import Output, ValueOutput

FloatArray = npt.NDArray[np.float64]

VALUE_TOLERANCE = 0.01  # regressions agree within 1 % of the larger: they have no class that could be the same


@dataclass(frozen=True, slots=True)
class Answer:
    """What one version said of n rows.

    numbers: (n, k) float64. Of a classification the probability of each label, or the winner's alone where the version
    tells no more; of a regression its values. labels: of the classes. winner: (n,) index into labels, None for a
    regression.
    """

    numbers: FloatArray
    labels: tuple[str, ...] = ()
    winner: IntArray | None = None

    def of(self, rows: IntArray) -> "Answer":
        """Only these rows."""
        return Answer(self.numbers[rows], self.labels, None if self.winner is None else self.winner[rows])

    def classes(self) -> npt.NDArray[np.str_] | None:
        """(n,) label of the class predicted, None for a regression."""
        return None if self.winner is None else np.array(self.labels, np.str_)[self.winner]


@dataclass(frozen=True, slots=True)
class Difference:
    """By row: whether they agree; mean and maximum of the absolute differences of their numbers."""

    agreed: npt.NDArray[np.bool_]
    mean: FloatArray
    most: FloatArray


def answer_of(inference: Inference, outputs: Sequence[Output]) -> Answer:
    """The answer in an inference of a model with these outputs, as far as its prediction fields tell it.

    Raises SchemaIncompatible if they tell nothing.
    """
    names = {quantity: name for spec in outputs for name, quantity in spec.fields.items()}
    fields = inference.fields
    if inference.winner is None:
        values = [fields[name] for spec in outputs if isinstance(spec, ValueOutput) for name in [*spec.fields][:1]]
        if not values:  # a handler's own fields may be anything
            raise SchemaIncompatible("its predictions have neither a class nor a value that could be compared")
        return Answer(np.column_stack(values).astype(np.float64))
    labels = tuple(str(label) for label in inference.classes)
    if "probabilities" in names and fields[names["probabilities"]].shape[1:] == (len(labels),):
        numbers = fields[names["probabilities"]]
    elif "probability" in names and len(labels) == 2:
        second = fields[names["probability"]].astype(np.float64)
        numbers = np.stack([1 - second, second], axis=1)
    elif inference.confidence is None:  # a handler's, that says no more than the class
        numbers = np.ones((len(inference.winner), 1))
    else:
        numbers = inference.confidence.reshape(-1, 1)
    return Answer(numbers.astype(np.float64), labels, inference.winner.astype(np.int64))


def compare(stable: Answer, candidate: Answer) -> Difference:
    """Row by row. Raises SchemaIncompatible for what has nothing to be compared: a class and a value, say."""
    if (stable.winner is None) != (candidate.winner is None):
        raise SchemaIncompatible("a classification and a regression have nothing to be compared")
    if stable.winner is None:
        if stable.numbers.shape != candidate.numbers.shape:
            found = (stable.numbers.shape[1], candidate.numbers.shape[1])
            raise SchemaIncompatible(f"{found[0]} and {found[1]} values a row have nothing to be compared")
        apart = np.abs(stable.numbers - candidate.numbers)
        scale = np.maximum(np.abs(stable.numbers), np.abs(candidate.numbers))
        close = np.asarray((apart <= VALUE_TOLERANCE * scale).all(axis=1), np.bool_)
        return Difference(close, apart.mean(axis=1), apart.max(axis=1))
    if _by_label(stable) and _by_label(candidate):
        labels = tuple(dict.fromkeys(stable.labels + candidate.labels))
        apart = np.abs(_spread(stable, labels) - _spread(candidate, labels))
    else:
        apart = np.abs(_winners(stable) - _winners(candidate))[:, None]
    same = np.asarray(stable.classes() == candidate.classes(), np.bool_)
    return Difference(same, apart.mean(axis=1), apart.max(axis=1))


def _by_label(answer: Answer) -> bool:
    return bool(answer.numbers.shape[1] == len(answer.labels))


def _spread(answer: Answer, labels: tuple[str, ...]) -> FloatArray:
    """The probability of each of these labels; 0 for one that the version does not know."""
    if answer.labels == labels:
        return answer.numbers
    spread = np.zeros((len(answer.numbers), len(labels)))
    spread[:, [labels.index(label) for label in answer.labels]] = answer.numbers
    return spread


def _winners(answer: Answer) -> FloatArray:
    if not _by_label(answer):
        return answer.numbers[:, 0]
    return answer.numbers[np.arange(len(answer.numbers)), answer.winner]
