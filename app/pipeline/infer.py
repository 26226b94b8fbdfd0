"""Model inputs → checked outputs, and the quantities derived from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import ModelFailed, Reason, Stage
from app.ports import Model, Tensors
from app.records import IntArray, Rejection
from app.specs import Output, ProbabilitiesOutput, Quantity

Array = npt.NDArray[Any]

# float32 soft-max and forest averages miss 1 by a few units in the seventh digit
PROBABILITY_SLACK = 1e-4


@dataclass(frozen=True, slots=True)
class Inference:
    """Answers to the rows of a batch.

    fields: by prediction-schema field, (m,) or (m, k). rows: (m,) batch rows answered, in order.
    results: what was predicted → how often, for the metrics. confidence: (m,) or None.
    """

    fields: dict[str, Array]
    rows: IntArray
    rejected: list[Rejection]
    results: dict[str, int]
    confidence: Array | None = None


@dataclass(slots=True)
class _Derived:
    fields: dict[str, Array] = field(default_factory=dict)
    results: dict[str, int] = field(default_factory=dict)
    confidence: Array | None = None


def infer(model: Model, tensors: Tensors, rows: IntArray) -> Inference:
    """Score the rows; `rows[i]` is the batch row that row i of each tensor came from.

    A row whose output is not finite or out of bounds is rejected as bad_output. Raises ModelFailed if the
    model failed or answered with a wrong shape.
    """
    outputs = dict(model.run(tensors))
    if missing := [spec.name for spec in model.outputs if spec.name not in outputs]:
        raise ModelFailed(f"the model did not answer with {', '.join(missing)}")
    count = len(rows)
    for spec in model.outputs:
        outputs[spec.name] = _shaped(spec, outputs[spec.name], count)
    rejected: list[Rejection] = []
    if not all(_is_sound(spec, outputs[spec.name]) for spec in model.outputs):
        bad = np.logical_or.reduce([_bad_rows(spec, outputs[spec.name]) for spec in model.outputs])
        rejected = [_rejection(model, outputs, index, int(rows[index])) for index in np.flatnonzero(bad).tolist()]
        outputs = {spec.name: outputs[spec.name][~bad] for spec in model.outputs}
        rows = rows[~bad]
    derived = _Derived()
    for spec in model.outputs:
        if isinstance(spec, ProbabilitiesOutput):
            _derive_class(spec, outputs[spec.name], derived)
        else:
            derived.fields |= dict.fromkeys(spec.fields, outputs[spec.name])
    if not derived.results and len(rows):
        derived.results["value"] = len(rows)
    return Inference(derived.fields, rows, rejected, derived.results, derived.confidence)


def _shaped(spec: Output, output: Array, count: int) -> Array:
    expected = (count, len(spec.classes)) if isinstance(spec, ProbabilitiesOutput) else (count,)
    if output.shape not in {expected, (*expected, 1)}:
        raise ModelFailed(f"output {spec.name!r} has shape {output.shape}, expected {expected}")
    return output.reshape(expected)


def _is_sound(spec: Output, output: Array) -> bool:
    """Whether no row is bad; comparisons are written so that NaN fails them."""
    if isinstance(spec, ProbabilitiesOutput):
        in_range = output.min() >= -PROBABILITY_SLACK and output.max() <= 1 + PROBABILITY_SLACK
        return bool(in_range and np.abs(output.sum(axis=1) - 1).max() <= PROBABILITY_SLACK * len(spec.classes))
    return not _bad_rows(spec, output).any()


def _bad_rows(spec: Output, output: Array) -> npt.NDArray[np.bool_]:
    """Rows not finite or out of bounds; comparisons are written so that NaN fails them."""
    if isinstance(spec, ProbabilitiesOutput):
        inside = (output >= -PROBABILITY_SLACK) & (output <= 1 + PROBABILITY_SLACK)
        with np.errstate(over="ignore", invalid="ignore"):  # huge and infinite ones are what this looks for
            off = np.abs(output.sum(axis=1) - 1)
        sums_to_one: npt.NDArray[np.bool_] = off <= PROBABILITY_SLACK * len(spec.classes)
        return ~(inside.all(axis=1) & sums_to_one)
    low = -np.inf if spec.min is None else spec.min
    high = np.inf if spec.max is None else spec.max
    return ~(np.isfinite(output) & (output >= low) & (output <= high))


def _rejection(model: Model, outputs: Mapping[str, Array], index: int, row: int) -> Rejection:
    values = ", ".join(f"{spec.name}={np.array2string(outputs[spec.name][index])}" for spec in model.outputs)
    message = f"model {model.name} version {model.version} answered {values}"
    return Rejection(row, Stage.OUTPUT, Reason.BAD_OUTPUT, "OutputInvalid", message)


def _derive_class(spec: ProbabilitiesOutput, output: Array, derived: _Derived) -> None:
    winner = output.argmax(axis=1) if spec.threshold is None else (output[:, 1] >= spec.threshold).astype(np.intp)
    confidence = output[np.arange(len(output)), winner]
    quantities: dict[Quantity, Callable[[], Array]] = {
        "class": lambda: np.asarray(spec.classes)[winner],
        "positive": lambda: winner == 1,
        "probability": lambda: output[:, 1],
        "confidence": lambda: confidence,
        "probabilities": lambda: output,
    }
    derived.fields |= {name: quantities[quantity]() for name, quantity in spec.fields.items()}
    counts = np.bincount(winner, minlength=len(spec.classes)).tolist()
    derived.results = {str(label): count for label, count in zip(spec.classes, counts, strict=True) if count}
    derived.confidence = confidence


def derivable(outputs: tuple[Output, ...]) -> dict[str, Output]:
    """Prediction-schema fields that the model's outputs fill, and which output fills each."""
    return {name: spec for spec in outputs for name in spec.fields}
