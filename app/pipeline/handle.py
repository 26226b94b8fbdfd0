"""A handler's step is called, what it gives is checked, and the rows that it fails on are found.

Nothing a handler does gets past here but three things: checked columns, its own verdict on rows, and BadStep. What
it gives is copied: it may keep a buffer and fill it again with the next batch while this one is being scored.
"""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from app.errors import Reason, Stage
from app.handler import RejectRows
from app.records import IntArray, Rejection
from app.specs import InputSpec, Output, ProbabilitiesOutput, Quantity

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Given = TypeVar("Given")
Arrays = dict[str, Array]

SHOWN = 8  # names or rows listed in a message


class BadStep(Exception):
    """A handler raised, or gave what is none of its rows' answers; error: the class name for the dead letter."""

    def __init__(self, reason: Reason, error: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.error = reason, error


class Verdict(Exception):
    """A handler's RejectRows, read: the rows marked in `rows`, (n,) and at least one, it does not want."""

    def __init__(self, rows: Mask, reason: Reason, error: str, message: str) -> None:
        super().__init__(message)
        self.rows, self.reason, self.error = rows, reason, error


class Refused(NamedTuple):
    """Why a row, by its position in what the step was given, cannot be predicted."""

    position: int
    reason: Reason
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Handled:
    """What a step made of the rows it was given.

    columns: by name, row i is that of positions[i]; empty if no row is left. positions rise; each other position is
    in `refused` once, in order.
    """

    columns: Arrays
    positions: IntArray
    refused: list[Refused]


def isolated(step: Callable[[IntArray], Arrays], count: int, check: Callable[[], None]) -> Handled:
    """Call a step with ever fewer of `count` rows, until those it fails on are alone.

    step: positions → checked columns; raises Verdict or BadStep. check: whether it is the step that is at fault;
    asked before the first row is given up and after the last, as a step may break for good in mid-way. Raises what
    check raises; then no row was given up.
    """
    answered: list[Arrays] = []
    kept: list[IntArray] = []
    refused: list[Refused] = []
    parts = [np.arange(count)]
    failed = False
    while parts:
        positions = parts.pop()
        try:
            columns = step(positions)
        except Verdict as verdict:
            unwanted = positions[verdict.rows].tolist()
            refused += [Refused(row, verdict.reason, verdict.error, str(verdict)) for row in unwanted]
            if len(unwanted) < len(positions):
                parts.append(positions[~verdict.rows])
        except BadStep as exc:
            if not failed:
                check()
            failed = True
            if len(positions) == 1:
                refused.append(Refused(int(positions[0]), exc.reason, exc.error, str(exc)))
            else:
                middle = len(positions) // 2
                parts += [positions[middle:], positions[:middle]]  # the first half comes off first: rows stay in order
        else:
            answered.append(columns)
            kept.append(positions)
    if failed:
        check()
    refused.sort()
    if not answered:
        return Handled({}, np.arange(0), refused)
    if len(answered) == 1:
        return Handled(answered[0], kept[0], refused)
    together = {name: np.concatenate([columns[name] for columns in answered]) for name in answered[0]}
    return Handled(together, np.concatenate(kept), refused)


def called(step: Callable[[Given], object], given: Given, count: int, check: Callable[[object], Arrays]) -> Arrays:
    """What `check` makes of the answer to `count` rows. Raises Verdict or BadStep only, whatever was raised."""
    try:
        return check(step(given))
    except BadStep:
        raise
    except RejectRows as verdict:
        raise _read(verdict, count) from verdict
    except BaseException as exc:  # SystemExit too: it is for operators to end the worker
        name = getattr(step, "__name__", "the step")
        message = f"{name} raised {said(exc)} ({_where(exc)})"
        raise BadStep(Reason.MODEL_ERROR, type(exc).__name__, message) from exc


def said(exc: BaseException) -> str:
    """Class and message of any exception on one line, even of one that cannot be written."""
    return " ".join("".join(traceback.format_exception_only(exc)).split())


def _where(exc: BaseException) -> str:
    """File and line: a dead letter has no room for a traceback."""
    frame, line = list(traceback.walk_tb(exc.__traceback__))[-1]
    return f"{Path(frame.f_code.co_filename).name}, line {line}"


def tensors_of(answer: object, inputs: Sequence[InputSpec], count: int) -> Arrays:
    """Copies of a model's inputs, by name, C-contiguous. Raises BadStep unless each is as its InputSpec says."""
    given = _named(answer, [spec.name for spec in inputs], "input")
    tensors = {}
    for spec in inputs:
        array = _array(given[spec.name], f"input {spec.name!r}")
        if array.dtype != np.dtype(spec.dtype):
            raise _bad_shape(f"input {spec.name!r} is {array.dtype}, the model takes {spec.dtype}")
        wanted = (count, spec.width) if spec.shape is None else (count, *spec.shape)
        if array.shape != wanted:
            raise _bad_shape(f"input {spec.name!r} has the shape {array.shape}, expected {wanted}")
        tensors[spec.name] = np.array(array, order="C")
    return tensors


def fields_of(answer: object, outputs: Sequence[Output], count: int) -> Arrays:
    """Copies of the columns of predictions, by field. Raises BadStep unless each has its quantity's type and shape."""
    quantities = {name: (spec, quantity) for spec in outputs for name, quantity in spec.fields.items()}
    given = _named(answer, list(quantities), "field")
    fields = {}
    for name, (spec, quantity) in quantities.items():
        array = _array(given[name], f"field {name!r}")
        if not _is_of(array.dtype, spec, quantity):
            raise _bad_shape(f"field {name!r} is {array.dtype}, which is no {_described(spec, quantity)}")
        wanted: tuple[int, ...] = (count,)
        if quantity == "probabilities" and isinstance(spec, ProbabilitiesOutput):
            wanted = (count, len(spec.classes))
        if array.shape != wanted:
            raise _bad_shape(f"field {name!r} has the shape {array.shape}, expected {wanted}")
        fields[name] = np.array(array, order="C")
    return fields


def not_finite(arrays: Mapping[str, Array]) -> Mask:
    """(n,) which rows have a NaN or an infinity anywhere. Arrays of numbers, n >= 1."""
    finite = [np.isfinite(array.reshape(len(array), -1)).all(axis=1) for array in arrays.values()]
    return np.asarray(~np.logical_and.reduce(finite))


def rejections_of(handled: Handled, rows: IntArray, stage: Stage) -> list[Rejection]:
    """The refused ones, for the batch rows that the positions stand for."""
    return [
        Rejection(int(rows[item.position]), stage, item.reason, item.error, item.message) for item in handled.refused
    ]


def _read(verdict: RejectRows, count: int) -> Verdict | BadStep:
    """Which of `count` rows a handler rejects, at least one, and why; BadStep if it does not say that."""
    error = type(verdict).__name__
    try:
        named, reason = np.asarray(verdict.rows), Reason(verdict.reason)
        message: object = verdict.message
        shown = np.array2string(named, threshold=SHOWN) if named.dtype.kind in "biuf" else type(verdict.rows).__name__
    except BaseException as exc:  # noqa: BLE001 - whatever a class of its own has there
        return _bad_shape(f"{error} cannot be read: {said(exc)}")
    if isinstance(message, str) and named.ndim == 1 and named.size:
        if named.dtype == np.bool_ and named.shape == (count,) and named.any():
            return Verdict(named.copy(), reason, error, message)
        if named.dtype.kind in "iu" and 0 <= named.min() <= named.max() < count:
            unwanted = np.zeros(count, np.bool_)
            unwanted[named] = True
            return Verdict(unwanted, reason, error, message)
    expected = f"positions from 0 to {count - 1} or a mask of {count}, at least one row, and a text"
    return _bad_shape(f"{error} names the rows {shown}, expected {expected}")


def _named(answer: object, names: list[str], what: str) -> dict[str, object]:
    if inspect.iscoroutine(answer):
        answer.close()  # nobody will await it
    if not isinstance(answer, Mapping):
        raise _bad_shape(f"a {type(answer).__name__} was returned, expected a mapping of {what} to array")
    given = dict(answer)
    if given.keys() != set(names):
        found = ", ".join(map(str, list(given)[:SHOWN])) or "nothing"
        raise _bad_shape(f"{found} was returned, expected {', '.join(names)}")
    return given


def _array(value: object, what: str) -> Array:
    if type(value) is not np.ndarray:  # a masked array, say, hides rows
        raise _bad_shape(f"{what} is a {type(value).__name__}, expected a numpy array")
    return value


def _bad_shape(message: str) -> BadStep:
    return BadStep(Reason.BAD_SHAPE, "BadHandlerOutput", message)


def _is_of(dtype: np.dtype[Any], spec: Output, quantity: Quantity) -> bool:
    if quantity == "positive":
        return dtype == np.bool_
    if quantity == "class" and isinstance(spec, ProbabilitiesOutput):
        if isinstance(spec.classes[0], str):
            return dtype.kind == "U"
        return dtype.kind in "iu" and np.can_cast(dtype, np.int64)
    return dtype.kind == "f"


def _described(spec: Output, quantity: Quantity) -> str:
    if quantity == "positive":
        return "array of bool"
    if quantity == "class" and isinstance(spec, ProbabilitiesOutput):
        return "array of text (class labels)" if isinstance(spec.classes[0], str) else "array of int (class labels)"
    return f"array of floats ({quantity})"
