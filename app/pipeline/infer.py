"""Model inputs → checked outputs, and the quantities derived from them.

A batch that the model fails on, or answers with nonsense, has a bad row or a bad model. The model's own golden
rows tell which: a model that fails on them as well is at fault, and no record is rejected for it. Otherwise
the batch is halved until the rows that it fails on are alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.errors import ModelFailed, OutputRefused, Reason, Stage
from app.ports import Model, Tensors
from app.records import IntArray, Rejection
from app.specs import Constant, Output, ProbabilitiesOutput, Quantity

Array = npt.NDArray[Any]

# float32 soft-max and forest averages miss 1 by a few units in the seventh digit
PROBABILITY_SLACK = 1e-4


@dataclass(frozen=True, slots=True)
class OutputPolicy:
    """What becomes of a row whose output is not finite or outside the manifest's bounds.

    dead_letter: the row is rejected as bad_output. clip: a finite value outside its bounds becomes the nearest
    bound, everything else is rejected. stop: ModelFailed.
    """

    bad_output: Literal["dead_letter", "clip", "stop"] = "dead_letter"


@dataclass(frozen=True, slots=True)
class Inference:
    """Answers to the rows of a batch.

    fields: by prediction-schema field, (m,) or (m, k). rows: (m,) batch rows answered, in order.
    winner: (m,) index into `classes` of what was predicted, or None for a regression. confidence: (m,) or None.
    probabilities: (m, len(classes)), or None where nothing has them all.
    """

    fields: dict[str, Array]
    rows: IntArray
    rejected: list[Rejection]
    classes: Sequence[str | int] = ()
    winner: Array | None = None
    confidence: Array | None = None
    probabilities: Array | None = None

    @property
    def results(self) -> dict[str, int]:
        """What was predicted → how often, for the metrics."""
        if self.winner is None:
            return {"value": len(self.rows)} if len(self.rows) else {}
        counts = np.bincount(self.winner, minlength=len(self.classes)).tolist()
        return {str(label): count for label, count in zip(self.classes, counts, strict=True) if count}

    def without(self, unwanted: npt.NDArray[np.bool_]) -> "Inference":
        """Less the answers marked in `unwanted`, (m,)."""
        kept = ~unwanted
        return replace(
            self,
            fields={name: column[kept] for name, column in self.fields.items()},
            rows=self.rows[kept],
            winner=None if self.winner is None else self.winner[kept],
            confidence=None if self.confidence is None else self.confidence[kept],
            probabilities=None if self.probabilities is None else self.probabilities[kept],
        )


@dataclass(slots=True)
class _Derived:
    fields: dict[str, Array] = field(default_factory=dict)
    classes: Sequence[str | int] = ()
    winner: Array | None = None
    confidence: Array | None = None
    probabilities: Array | None = None


def infer(model: Model, tensors: Tensors, rows: IntArray, policy: OutputPolicy) -> Inference:
    """Score the rows; `rows[i]` is the batch row that row i of each tensor came from.

    Rows the model fails on are rejected as model_error, rows with bad outputs by the policy. Raises ModelFailed
    if the golden rows say that the model is at fault, and OutputRefused if the policy is to stop.
    """
    outputs, rows, rejected = answers_of(model, tensors, rows)
    if policy.bad_output == "clip":
        outputs = {spec.name: _clipped(spec, outputs[spec.name]) for spec in model.outputs}
    if len(rows) and not all(_is_sound(spec, outputs[spec.name]) for spec in model.outputs):
        bad = np.logical_or.reduce([_bad_rows(spec, outputs[spec.name]) for spec in model.outputs])
        found = [_bad_output(model, outputs, index, int(rows[index])) for index in np.flatnonzero(bad).tolist()]
        model.check()
        if policy.bad_output == "stop":
            raise OutputRefused(f"{found[0].message}, and bad_output is stop")
        rejected += found
        outputs = {spec.name: outputs[spec.name][~bad] for spec in model.outputs}
        rows = rows[~bad]
    derived = _Derived()
    for spec in model.outputs:
        if isinstance(spec, ProbabilitiesOutput):
            _derive_class(spec, outputs[spec.name], derived)
        else:
            derived.fields |= dict.fromkeys(spec.fields, outputs[spec.name])
    return Inference(
        derived.fields, rows, rejected, derived.classes, derived.winner, derived.confidence, derived.probabilities
    )


def answers_of(model: Model, tensors: Tensors, rows: IntArray) -> tuple[dict[str, Array], IntArray, list[Rejection]]:
    """What the model answers, by output name (m,) or (m, classes), to which rows, and why not to the others.

    The answers are not looked at yet. Raises ModelFailed as `infer` does.
    """
    try:
        return _answers(model, tensors, len(rows)), rows, []
    except ModelFailed:
        return _isolated(model, tensors, rows)


def constant_answer(outputs: Sequence[Output], values: Mapping[str, Constant], rows: IntArray) -> Inference:
    """The same answer to every row, without a model. values: one for each field the outputs fill."""
    fields = {name: np.repeat(np.asarray(value)[None], len(rows), axis=0) for name, value in values.items()}
    quantities = {quantity: name for spec in outputs for name, quantity in spec.fields.items()}
    confidence, probabilities = quantities.get("confidence"), quantities.get("probabilities")
    label = values[quantities["class"]] if "class" in quantities else None
    return Inference(
        fields,
        rows,
        [],
        classes=() if label is None else (str(label),),
        winner=None if label is None else np.zeros(len(rows), np.intp),
        confidence=None if confidence is None else fields[confidence],
        probabilities=None if probabilities is None else fields[probabilities],
    )


def _answers(model: Model, tensors: Tensors, count: int) -> dict[str, Array]:
    """By output name, (count,) or (count, classes). Raises ModelFailed, also for a wrong shape."""
    outputs = model.run(tensors)
    if missing := [spec.name for spec in model.outputs if spec.name not in outputs]:
        raise ModelFailed(f"the model did not answer with {', '.join(missing)}")
    return {spec.name: _shaped(spec, outputs[spec.name], count) for spec in model.outputs}


def _isolated(model: Model, tensors: Tensors, rows: IntArray) -> tuple[dict[str, Array], IntArray, list[Rejection]]:
    """What the model answers without the rows it fails on, those rows, and a rejection for each of the others.

    Raises ModelFailed if the golden rows fail too, before or afterwards: a model may break for good in mid-way.
    """
    model.check()
    answered: list[dict[str, Array]] = []
    kept: list[IntArray] = []
    rejected: list[Rejection] = []
    parts = [(0, len(rows))]
    while parts:
        start, end = parts.pop()
        try:
            answer = _answers(model, {name: tensor[start:end] for name, tensor in tensors.items()}, end - start)
        except ModelFailed as exc:
            if end - start == 1:
                rejected.append(
                    Rejection(int(rows[start]), Stage.MODEL, Reason.MODEL_ERROR, type(exc).__name__, str(exc))
                )
            else:
                middle = (start + end) // 2
                parts += [(middle, end), (start, middle)]  # the first half comes off first: rows stay in order
        else:
            answered.append(answer)
            kept.append(rows[start:end])
    model.check()
    if not answered:
        return {spec.name: _nothing(spec) for spec in model.outputs}, rows[:0], rejected
    outputs = {spec.name: np.concatenate([answer[spec.name] for answer in answered]) for spec in model.outputs}
    return outputs, np.concatenate(kept), rejected


def _nothing(spec: Output) -> Array:
    return np.empty((0, len(spec.classes)) if isinstance(spec, ProbabilitiesOutput) else 0, np.float32)


def _clipped(spec: Output, output: Array) -> Array:
    if isinstance(spec, ProbabilitiesOutput) or (spec.min is None and spec.max is None):
        return output
    return np.where(np.isfinite(output), np.clip(output, spec.min, spec.max), output)


def _shaped(spec: Output, output: Array, count: int) -> Array:
    expected = (count, len(spec.classes)) if isinstance(spec, ProbabilitiesOutput) else (count,)
    if output.shape not in {expected, (*expected, 1)}:
        raise ModelFailed(f"output {spec.name!r} has shape {output.shape}, expected {expected}")
    return output.reshape(expected)


def _is_sound(spec: Output, output: Array) -> bool:
    """Whether no row is bad; comparisons are written so that NaN fails them."""
    if isinstance(spec, ProbabilitiesOutput):
        in_range = output.min() >= -PROBABILITY_SLACK and output.max() <= 1 + PROBABILITY_SLACK
        return bool(in_range and np.abs(_row_sums(output) - 1).max() <= PROBABILITY_SLACK * len(spec.classes))
    return not _bad_rows(spec, output).any()


def _bad_rows(spec: Output, output: Array) -> npt.NDArray[np.bool_]:
    """Rows not finite or out of bounds; comparisons are written so that NaN fails them."""
    if isinstance(spec, ProbabilitiesOutput):
        inside = (output >= -PROBABILITY_SLACK) & (output <= 1 + PROBABILITY_SLACK)
        with np.errstate(over="ignore", invalid="ignore"):  # huge and infinite ones are what this looks for
            off = np.abs(_row_sums(output) - 1)
        sums_to_one: npt.NDArray[np.bool_] = off <= PROBABILITY_SLACK * len(spec.classes)
        return ~(inside.all(axis=1) & sums_to_one)
    low = -np.inf if spec.min is None else spec.min
    high = np.inf if spec.max is None else spec.max
    return ~(np.isfinite(output) & (output >= low) & (output <= high))


def _row_sums(output: Array) -> Array:
    # sum(axis=1) is slow for short rows; a product with ones would wake BLAS's threads
    sums: Array = np.einsum("ij->i", output)
    return sums


def _bad_output(model: Model, outputs: Mapping[str, Array], index: int, row: int) -> Rejection:
    values = ", ".join(f"{spec.name}={np.array2string(outputs[spec.name][index])}" for spec in model.outputs)
    message = f"model {model.name} version {model.version} answered {values}"
    return Rejection(row, Stage.OUTPUT, Reason.BAD_OUTPUT, "OutputInvalid", message)


def _derive_class(spec: ProbabilitiesOutput, output: Array, derived: _Derived) -> None:
    winner = spec.winners(output)
    count, width = output.shape
    confidence = output.take(np.arange(0, count * width, width) + winner)
    quantities: dict[Quantity, Callable[[], Array]] = {
        "class": lambda: np.asarray(spec.classes)[winner],
        "positive": lambda: winner == 1,
        "probability": lambda: output[:, 1],
        "confidence": lambda: confidence,
        "probabilities": lambda: output,
    }
    derived.fields |= {name: quantities[quantity]() for name, quantity in spec.fields.items()}
    derived.classes, derived.winner, derived.confidence = spec.classes, winner, confidence
    derived.probabilities = output
