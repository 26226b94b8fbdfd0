"""The Open Inference Protocol, version 2, over HTTP, see https://github.com/kserve/open-inference-protocol.

Health, metadata and inference, with and without a version. A request is answered whole or not at all; errors are
`{"error": …}`.
"""

import math
from collections.abc import Mapping
from importlib.metadata import version as version_of_package
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.responses import Response

from app.serving.core import OnlineCore
from app.serving.datatypes import (
    BYTES,
    MOST_DIMENSIONS,
    NUMBERS,
    Most,
    check_datatype,
    check_size,
    checked_shape,
    datatype_of,
    most_of,
)
from app.serving.refusals import BadRequest, NotFound
from app.serving.rest_calls import Call, json_response
from app.serving.rest_pages import only_version, refusal_of
from app.serving.rest_plain import Served
from app.serving.tensors import asked_by_tensors, metadata_of, tensors_of

Array = npt.NDArray[Any]


class V2Endpoints:
    """Behaviours for `rest_calls.Calls`. models: by name."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self._models = models

    async def server(self, _call: Call) -> Response:
        """Who this is."""
        version = version_of_package("kafka-inference-worker")
        return json_response({"name": "inference-worker", "version": version, "extensions": []})

    async def live(self, _call: Call) -> Response:
        """That the loop turns is all there is to it."""
        return json_response({"live": True})

    async def ready(self, _call: Call) -> Response:
        """Whether every model is loaded."""
        ready = all(served.core.ready for served in self._models.values())
        return json_response({"ready": ready}, 200 if ready else 503)

    async def model_ready(self, call: Call) -> Response:
        """Whether this model, or this version of it, answers."""
        core, version = self._asked(call)
        ready = core.ready and (version is None or version in core.in_force.versions)
        return json_response({"name": core.model, "ready": ready}, 200 if ready else 503)

    async def model(self, call: Call) -> Response:
        """What it takes and gives."""
        core, version = self._asked(call)
        inputs, outputs = metadata_of(core.in_force, version)
        versions = core.in_force.versions
        page = {"name": core.model, "versions": versions, "platform": "onnx", "inputs": inputs, "outputs": outputs}
        return json_response(page)

    async def infer(self, call: Call) -> Response:
        """Answers as tensors."""
        core, version = self._asked(call)
        page = await call.json(core)
        wanted = _wanted(page.get("outputs"))
        in_force = core.in_force
        most = most_of(in_force, core.policy.most_request_rows)
        inputs = _inputs(page.get("inputs"), most)
        given_id = page.get("id")
        if given_id is not None and not isinstance(given_id, str):
            raise BadRequest("id: expected text", field="id")
        question = asked_by_tensors(inputs, in_force, most, version=version, within_s=call.within_s)
        if not len(question):
            raise BadRequest("inputs: they have no rows", field="inputs")
        answers = await call.ask(core, question)
        if answers.rejected:
            raise refusal_of(answers, "inputs")
        tensors = tensors_of(answers)
        if missing := [name for name in wanted if name not in tensors]:
            raise BadRequest(
                f"outputs: there is no {missing[0][:100]!r}, there are {', '.join(tensors)}", field="outputs"
            )
        sources = [answers.sources[by] for by in sorted(set(answers.by.tolist()))]
        return json_response(
            {
                "model_name": core.model,
                "model_version": only_version(answers) or ",".join(source.version for source in sources),
                "id": given_id or call.request_id,
                "parameters": {
                    "answered_by": ",".join(dict.fromkeys(source.part for source in sources)),
                    "rollout_revision": sources[0].revision,
                },
                "outputs": [_tensor(name, column) for name, column in tensors.items() if name in (wanted or tensors)],
            }
        )

    def _asked(self, call: Call) -> tuple[OnlineCore, str | None]:
        """The model and the version that the path names. Raises NotFound."""
        name = call.request.path_params["model"]
        if name not in self._models:
            raise NotFound(f"there is no model {name[:100]!r}, there are {', '.join(self._models)}")
        return self._models[name].core, call.request.path_params.get("version")


def _wanted(outputs: object) -> list[str]:
    """Names of the outputs that are asked for, none for all."""
    if outputs is None:
        return []
    if not isinstance(outputs, list) or not all(
        isinstance(output, dict) and isinstance(output.get("name"), str) for output in outputs
    ):
        raise BadRequest("outputs: expected a list of objects with a name", field="outputs")
    return [output["name"] for output in outputs]


def _inputs(inputs: object, most: Most) -> dict[str, Array]:
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest("inputs: expected a list of tensors", field="inputs")
    arrays: dict[str, Array] = {}
    for number, tensor in enumerate(inputs):
        where = f"inputs[{number}]"
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise BadRequest(f"{where}: expected an object with a name", field=where)
        if tensor["name"] in arrays:
            raise BadRequest(f"{where}: there is another {tensor['name'][:100]!r}", field=where)
        arrays[tensor["name"]] = _array(tensor, most, where)
    return arrays


def _array(tensor: Mapping[str, Any], most: Most, where: str) -> Array:
    """A tensor's data, flat or nested, as its shape and datatype say. Raises BadRequest."""
    datatype, shape = str(tensor.get("datatype"))[:100], tensor.get("shape")
    check_datatype(datatype, f"{where}.datatype")
    if not isinstance(shape, list):
        raise BadRequest(f"{where}.shape: expected a list of sizes", field=f"{where}.shape")
    sizes = checked_shape(shape, f"{where}.shape")
    check_size(sizes, most, f"{where}.shape")
    data = _flat(tensor.get("data"), most, f"{where}.data")
    if len(data) != math.prod(sizes):
        message = f"{where}.data: {len(data)} elements, shape {shape} has {math.prod(sizes)}"
        raise BadRequest(message, field=f"{where}.data")
    return _typed(data, datatype, where).reshape(sizes)


def _flat(data: object, most: Most, where: str) -> list[object]:
    """Row-major. An element that is no list beside one that is stays, and is then no element of any datatype."""
    if not isinstance(data, list):
        raise BadRequest(f"{where}: expected a list", field=where)
    for _ in range(MOST_DIMENSIONS):
        if len(data) > most.elements:
            raise BadRequest(f"{where}: more than {most.elements} elements", field=where, too_large=True)
        if not data or not all(isinstance(part, list) for part in data):
            break
        if sum(map(len, data)) > most.elements:
            raise BadRequest(f"{where}: more than {most.elements} elements", field=where, too_large=True)
        data = list(chain.from_iterable(data))
    return data


def _typed(data: list[object], datatype: str, where: str) -> Array:
    allowed = _elements_of(datatype)
    if set(map(type, data)) - allowed:
        odd = next(element for element in data if type(element) not in allowed)
        shown = type(odd).__name__ if isinstance(odd, list | dict) else repr(odd)[:64]
        raise BadRequest(f"{where}.data: {shown} is no element of {datatype}", field=f"{where}.data")
    if datatype == BYTES:
        array = np.empty(len(data), object)
        array[:] = data
        return array
    try:
        with np.errstate(over="ignore"):
            return np.array(data, NUMBERS[datatype])
    except (OverflowError, ValueError) as exc:
        raise BadRequest(f"{where}.data: {str(exc)[:200]}", field=f"{where}.data") from None


def _elements_of(datatype: str) -> set[type]:
    """Of which types they are in JSON, which has no NaN."""
    if datatype in {"BYTES", "BOOL"}:
        return {str} if datatype == "BYTES" else {bool}
    return {int, float, type(None)} if datatype.startswith("FP") else {int}


def _tensor(name: str, column: Array) -> dict[str, object]:
    datatype = datatype_of(column)
    return {
        "name": name,
        "shape": list(column.shape),
        "datatype": datatype,
        "data": column.tolist() if datatype == BYTES else column.reshape(-1),
    }
