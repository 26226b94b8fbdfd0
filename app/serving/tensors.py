"""What the Open Inference Protocol calls our rows and answers, over REST and over gRPC.

Rows come as one tensor `features`, (n, width), numbers in the order of the manifest (also by the name that the model's
only input has), or as one tensor for each field, (n,) or (n, length); NaN is what is missing. A tensor `key`, (n,) of
BYTES, is what rollouts choose by. Answers are `prediction`, `probabilities` and `confidence`.

A number of 32 bits is taken as the shortest decimal that it is, see `meant.as_meant`, however it came here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from app.answering.answers import Answers
from app.answering.event_columns import Column, EventColumns
from app.serving.datatypes import Most, check_size
from app.serving.in_force import InForce
from app.serving.question import Question
from app.serving.refusals import BadRequest
from app.specs import ProbabilitiesOutput

Array = npt.NDArray[Any]

FEATURES, KEY = "features", "key"
OUTPUTS = ("prediction", "probabilities", "confidence")


def asked_by_tensors(
    inputs: Mapping[str, Array],
    in_force: InForce,
    most: Most,
    *,
    version: str | None = None,
    within_s: float | None = None,
) -> Question:
    """The rows of these tensors. Text is `str` or `bytes` objects.

    Raises BadRequest, naming the tensor, and NotFound for a version that does not answer.
    """
    for name, array in inputs.items():
        if array.ndim:
            check_size(array.shape, most, name[:64])
    rows = dict(inputs)
    keys = _keys(rows.pop(KEY, None))
    if not rows:
        raise BadRequest(f"inputs: {FEATURES!r}, or one for each field, is needed", field="inputs")
    events = in_force.events_of(version)
    specs = events.inputs
    of_vectors = {FEATURES} | ({specs[0].name} if len(specs) == 1 else set())
    lengths = {name: len(array) if array.ndim else -1 for name, array in rows.items()}
    if len(set(lengths.values())) > 1 or -1 in lengths.values():
        raise BadRequest(f"inputs: they have {lengths} rows, expected the same number of each", field="inputs")
    if len(rows) == 1 and (name := next(iter(rows))) in of_vectors and name not in events.schema.names:
        vectors = rows[name]
        if vectors.dtype.kind not in "iuf":
            raise BadRequest(f"{name}: a tensor of numbers is expected", field=name)
        numbers = vectors if vectors.dtype.kind == "f" else vectors.astype(np.float64)
        return Question(vectors=numbers, keys=keys, version=version, within_s=within_s)
    columns = {name: _column(name, array, events) for name, array in rows.items()}
    return Question(columns=columns, keys=keys, version=version, within_s=within_s)


def tensors_of(answers: Answers) -> dict[str, Array]:
    """By name, first axis n; text is `str`. Columns that a model has not are absent. No row may be rejected."""
    found = zip(OUTPUTS, (answers.predictions, answers.probabilities, answers.confidence), strict=True)
    return {name: column for name, column in found if column is not None}


def metadata_of(
    in_force: InForce, version: str | None = None
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Inputs and outputs of a version, or of stable, as the protocol's model metadata has them: name, datatype, shape.

    Raises NotFound if the version does not answer.
    """
    events = in_force.events_of(version)
    inputs: list[dict[str, object]] = [
        {"name": FEATURES, "datatype": "FP64", "shape": [-1, events.width]},
        {"name": KEY, "datatype": "BYTES", "shape": [-1], "parameters": {"optional": True}},
    ]
    outputs: list[dict[str, object]] = []
    for spec in in_force.lane_of(version).answerer.model.outputs:
        if isinstance(spec, ProbabilitiesOutput):
            kind = "BYTES" if isinstance(spec.classes[0], str) else "INT64"
            outputs = [
                {"name": "prediction", "datatype": kind, "shape": [-1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(spec.classes)]},
                {"name": "confidence", "datatype": "FP32", "shape": [-1]},
            ]
            break
        outputs = [{"name": "prediction", "datatype": "FP32", "shape": [-1]}]
    return inputs, outputs


def _keys(array: Array | None) -> list[str | None] | None:
    if array is None:
        return None
    if array.dtype.kind not in "OU" or array.ndim != 1:
        raise BadRequest(f"{KEY}: a tensor of BYTES with one element for each row is expected", field=KEY)
    return [_text(KEY, item) for item in array.tolist()]


def _column(name: str, array: Array, events: EventColumns) -> Column:
    """Numbers as they came, text as `str`."""
    known = events.schema.names
    if name not in known:
        raise BadRequest(f"{name[:64]} is no input; inputs are {FEATURES}, {KEY}, {', '.join(known)}", field="inputs")
    if array.dtype.kind not in "OU":
        return array
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise BadRequest(f"{name}: one element for each row is expected", field=name)
    return [_text(name, item) for item in array.tolist()]


def _text(name: str, item: object) -> str:
    try:
        return item.decode() if isinstance(item, bytes) else str(item)
    except UnicodeDecodeError:
        raise BadRequest(f"{name}: an element is not UTF-8", field=name) from None
