"""A handler's `postprocess` in the place of the output step (docs/HANDLERS.md).

It is isolated as the model is. Rows that it fails on are found and rejected; if it fails on what the model answers to
its golden rows as well, it is at fault itself and no record is rejected for it: that is the model version failing.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import HandlerFailed, HandlerInvalid, OutputRefused, Reason, Stage
from app.handler import AnyHandler
from app.pipeline.handle import BadStep, Verdict, called, fields_of, isolated, not_finite, rejections_of
from app.pipeline.infer import PROBABILITY_SLACK, Inference, OutputPolicy, answers_of
from app.ports import Model, Tensors
from app.records import IntArray, Rejection
from app.specs import Output, ProbabilitiesOutput, Quantity, ValueOutput

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

TELLING: set[Quantity] = {"class", "positive", "probability", "probabilities"}  # each says which class was predicted


class HandledOutputs:
    """A handler's `postprocess` in the place of what `infer` derives. Any thread; one at a time is inside.

    golden: inputs of the model, and what it answers to them must be handled. Raises HandlerInvalid.
    """

    def __init__(self, handler: AnyHandler, model: Model, lock: Lock, golden: Tensors) -> None:
        self._handler, self._specs, self._lock = handler, model.outputs, lock
        for spec in self._specs:
            if isinstance(spec, ProbabilitiesOutput) and not TELLING & set(spec.fields.values()):
                wanted = ", ".join(sorted(TELLING))
                raise HandlerInvalid(f"no field of the manifest's output {spec.name!r} tells the class: {wanted}")
        rows = np.arange(len(next(iter(golden.values()))))
        self._golden, _, _ = answers_of(model, golden, rows)
        try:
            self._judge()
        except BadStep as exc:
            raise HandlerInvalid(f"it fails on what the model answers to its golden rows: {exc}") from exc

    def infer(self, model: Model, tensors: Tensors, rows: IntArray, policy: OutputPolicy) -> Inference:
        """As `infer.infer`. Raises HandlerFailed too, if the golden rows fail as well; then no row was rejected."""
        outputs, rows, rejected = answers_of(model, tensors, rows)
        if len(rows) and (bad := not_finite(outputs)).any():
            model.check()
            rejected += _refused_outputs(outputs, bad, rows, policy, "the model")
            outputs, rows = {name: array[~bad] for name, array in outputs.items()}, rows[~bad]
        if not len(rows):
            return Inference({}, rows, rejected)
        with self._lock:
            handled = isolated(lambda positions: self._made(_picked(outputs, positions)), len(rows), self.check)
            rejected += rejections_of(handled, rows, Stage.OUTPUT)
            fields, rows = handled.columns, rows[handled.positions]
            if len(rows) and policy.bad_output == "clip":
                fields = _clipped(fields, self._specs)
            if len(rows) and (bad := _bad_fields(fields, self._specs)).any():
                self.check()
                rejected += _refused_outputs(fields, bad, rows, policy, "the handler")
                fields, rows = {name: column[~bad] for name, column in fields.items()}, rows[~bad]
        return _inference(fields, rows, rejected, self._specs)

    def check(self) -> None:
        """Raises HandlerFailed if the golden rows fail now."""
        try:
            self._judge()
        except BadStep as exc:
            raise HandlerFailed(f"the handler is at fault, not the records: the golden rows fail too: {exc}") from exc

    def _judge(self) -> None:
        try:
            fields = self._made(self._golden)
        except Verdict:
            return  # a golden row may be one that it gives no prediction for
        if (bad := _bad_fields(fields, self._specs)).any():
            raise BadStep(Reason.BAD_OUTPUT, "OutputInvalid", f"postprocess gave {_shown(fields, int(np.argmax(bad)))}")

    def _made(self, outputs: Tensors) -> dict[str, Array]:
        count = len(next(iter(outputs.values())))
        given = _read_only(outputs)
        return called(self._handler.postprocess, given, count, lambda made: fields_of(made, self._specs, count))


def _picked(outputs: Tensors, positions: IntArray) -> Tensors:
    return {name: array if len(array) == len(positions) else array[positions] for name, array in outputs.items()}


def _read_only(outputs: Tensors) -> Tensors:
    views = {name: array.view() for name, array in outputs.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def _refused_outputs(
    columns: Mapping[str, Array], bad: Mask, rows: IntArray, policy: OutputPolicy, who: str
) -> list[Rejection]:
    """A rejection for each bad row. Raises OutputRefused if the policy is to stop."""
    found = [
        Rejection(int(rows[index]), Stage.OUTPUT, Reason.BAD_OUTPUT, "OutputInvalid", f"{who} gave {shown}")
        for index, shown in ((index, _shown(columns, index)) for index in np.flatnonzero(bad).tolist())
    ]
    if policy.bad_output == "stop":
        raise OutputRefused(f"{found[0].message}, and bad_output is stop")
    return found


def _shown(columns: Mapping[str, Array], index: int) -> str:
    return ", ".join(f"{name}={np.array2string(column[index], threshold=8)}" for name, column in columns.items())


def _quantities(specs: tuple[Output, ...]) -> dict[str, tuple[Output, Quantity]]:
    return {name: (spec, quantity) for spec in specs for name, quantity in spec.fields.items()}


def _clipped(fields: dict[str, Array], specs: tuple[Output, ...]) -> dict[str, Array]:
    """Finite values brought to the nearest bound."""
    bounds = {name: (spec.min, spec.max) for spec in specs if isinstance(spec, ValueOutput) for name in spec.fields}
    return {
        name: np.where(np.isfinite(column), np.clip(column, *bounds[name]), column)
        if bounds.get(name, (None, None)) != (None, None)
        else column
        for name, column in fields.items()
    }


def _bad_fields(fields: Mapping[str, Array], specs: tuple[Output, ...]) -> Mask:
    """(n,) which predictions have a field that is not what the manifest promises of it."""
    marks = [_bad_field(fields[name], *what) for name, what in _quantities(specs).items()]
    return np.asarray(np.logical_or.reduce(marks))


def _bad_field(column: Array, spec: Output, quantity: Quantity) -> Mask:
    """Comparisons are written so that NaN fails them."""
    if quantity == "positive":
        return np.zeros(len(column), np.bool_)
    if isinstance(spec, ValueOutput):
        low = -np.inf if spec.min is None else spec.min
        high = np.inf if spec.max is None else spec.max
        return ~(np.isfinite(column) & (column >= low) & (column <= high))
    if quantity == "class":
        return ~np.isin(column, np.asarray(spec.classes))
    inside = (column >= -PROBABILITY_SLACK) & (column <= 1 + PROBABILITY_SLACK)
    if quantity != "probabilities":
        return np.asarray(~inside)
    with np.errstate(over="ignore", invalid="ignore"):  # huge and infinite ones are what this looks for
        off = np.abs(column.sum(axis=1) - 1)
    return np.asarray(~(inside.all(axis=1) & (off <= PROBABILITY_SLACK * len(spec.classes))))


def _inference(
    fields: dict[str, Array], rows: IntArray, rejected: list[Rejection], specs: tuple[Output, ...]
) -> Inference:
    """With what metrics, comparisons and requests are told: which class was predicted, and how sure, if a field has it.

    Where there are two classes the probability of one says that of the other.
    """
    classifying = [spec for spec in specs if isinstance(spec, ProbabilitiesOutput)]
    if not classifying or not len(rows):
        return Inference(fields, rows, rejected)
    spec = classifying[-1]  # as where the manifest says how
    columns = {quantity: fields[name] for name, quantity in spec.fields.items()}
    winner = _winner(columns, spec)
    confidence: Array | None = None
    if "confidence" in columns:
        confidence = columns["confidence"]
    elif "probabilities" in columns:
        confidence = columns["probabilities"][np.arange(len(rows)), winner]
    elif "probability" in columns:
        confidence = np.where(winner == 1, columns["probability"], 1 - columns["probability"])
    probabilities = columns.get("probabilities")
    if probabilities is None and "probability" in columns:
        probabilities = np.stack([1 - columns["probability"], columns["probability"]], axis=1)
    return Inference(fields, rows, rejected, spec.classes, winner, confidence, probabilities)


def _winner(columns: Mapping[Quantity, Array], spec: ProbabilitiesOutput) -> Array:
    """(n,) index into the classes; columns: by quantity, one of TELLING at least."""
    if "class" in columns:
        classes = np.asarray(spec.classes)
        order = np.argsort(classes)
        return np.asarray(order[np.searchsorted(classes, columns["class"], sorter=order)])
    if "positive" in columns:
        return columns["positive"].astype(np.intp)
    if "probabilities" in columns and spec.threshold is None:
        return np.asarray(columns["probabilities"].argmax(axis=1))
    second = columns["probability"] if "probability" in columns else columns["probabilities"][:, 1]
    return np.asarray(second >= (0.5 if spec.threshold is None else spec.threshold), np.intp)
