"""TensorFlow Serving's REST API, version 1, see https://www.tensorflow.org/tfx/serving/api_rest.

Row format (`instances`) and column format (`inputs`), with and without a version; status and metadata. A request is
answered whole or not at all, errors are `{"error": …}`. A list `keys` beside the rows is ours: what rollouts choose by.
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from app.answering.answers import Answers
from app.serving.core import OnlineCore
from app.serving.in_force import InForce
from app.serving.question import Question
from app.serving.refusals import BadRequest, NotFound
from app.serving.rest_calls import Call, json_response
from app.serving.rest_pages import asked, check_rows, keys_of, refusal_of
from app.serving.rest_plain import Served
from app.serving.tensors import metadata_of, tensors_of

DTYPES = {"INT64": "DT_INT64", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE", "BYTES": "DT_STRING"}


class V1Endpoints:
    """Behaviours for `rest_calls.Calls`. models: by name."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self._models = models

    async def predict(self, call: Call) -> Response:
        """`:predict`."""
        core, version = self._asked(call)
        page = await call.json(core)
        extra = page.keys() - {"signature_name", "instances", "inputs", "keys"}
        if extra or ("instances" in page) == ("inputs" in page):
            found = ", ".join(sorted(page))[:200] or "nothing"
            raise BadRequest(f"expected instances or inputs, one of the two, found {found}")
        by_row = "instances" in page
        question = _question(page, core.policy.most_request_rows, version, call.within_s)
        answers = await call.ask(core, question)
        if answers.rejected:
            raise refusal_of(answers, "instances" if by_row else "inputs")
        return json_response({"predictions": _by_row(answers)} if by_row else {"outputs": _by_column(answers)})

    async def status(self, call: Call) -> Response:
        """Versions that answer."""
        core, wanted = self._asked(call)
        lanes = core.in_force.lineup.lanes
        versions = [version for version in dict.fromkeys(lane.version for lane in lanes) if wanted in {None, version}]
        if not versions:
            raise NotFound(f"Could not find version {wanted} of model {core.model}")
        fine = {"error_code": "OK", "error_message": ""}
        states = [{"version": version, "state": "AVAILABLE", "status": fine} for version in versions]
        return json_response({"model_version_status": states})

    async def metadata(self, call: Call) -> Response:
        """What it takes and gives."""
        core, version = self._asked(call)
        in_force = core.in_force
        signature = _signature(in_force, version)
        page = {
            "model_spec": {"name": core.model, "signature_name": "", "version": in_force.lane_of(version).version},
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
        }
        return json_response(page)

    def _asked(self, call: Call) -> tuple[OnlineCore, str | None]:
        """The model and the version that the path names. Raises NotFound."""
        name = call.request.path_params["model"]
        if name not in self._models:
            raise NotFound(f"Servable not found for request: Latest({name[:100]})")
        return self._models[name].core, call.request.path_params.get("version")


def _question(page: Mapping[str, Any], most: int, version: str | None, within_s: float) -> Question:
    """What `instances` or `inputs` ask: rows, or an object of columns. Raises BadRequest."""
    where = "instances" if "instances" in page else "inputs"
    given = page[where]
    if where == "inputs" and isinstance(given, dict):
        columns = _columns(given, most)
        if list(columns) != ["features"]:
            keys = keys_of(_keys(page, len(next(iter(columns.values())))), "instances")
            return Question(columns=columns, keys=keys, version=version, within_s=within_s)
        given = columns["features"]
    if not isinstance(given, list):
        expected = "a list" if where == "instances" else "a list of rows, or an object of lists"
        raise BadRequest(f"{where}: expected {expected}", field=where)
    check_rows(len(given), most, where)
    rows = given
    if given and all(isinstance(row, int | float) for row in given):  # a model of one number, as TensorFlow's own do
        rows = [[row] for row in given]
    elif given and all(map(_has_input_alone, given)):
        rows = [row["features"] for row in given]
    return asked(rows, _keys(page, len(given)), version, within_s, where="instances")


def _has_input_alone(row: object) -> bool:
    """Whether it is the numbers of a row by the name of the input; a number by that name would be a field's."""
    return isinstance(row, dict) and row.keys() == {"features"} and isinstance(row["features"], list)


def _columns(given: Mapping[str, Any], most: int) -> Mapping[str, list[object]]:
    """Of equal length."""
    if not given or not all(isinstance(column, list) for column in given.values()):
        raise BadRequest("inputs: expected a list of rows, or an object of lists", field="inputs")
    check_rows(max(map(len, given.values())), most, "inputs")
    if len({len(column) for column in given.values()}) > 1:
        raise BadRequest("inputs: the lists differ in length", field="inputs")
    return given


def _keys(page: Mapping[str, Any], rows: int) -> list[object] | None:
    keys = page.get("keys")
    if keys is not None and (not isinstance(keys, list) or len(keys) != rows):
        raise BadRequest("keys: expected a list, one for each row", field="keys")
    return keys


def _by_column(answers: Answers) -> Any:  # noqa: ANN401 - JSON
    """Each output by its name; of a model that has one output it alone, as the protocol has it."""
    columns = tensors_of(answers)
    return columns if len(columns) > 1 else next(iter(columns.values()))


def _by_row(answers: Answers) -> list[Any]:
    """The same for each row."""
    columns = {
        name: column.tolist() if column.dtype.kind in "US" else column for name, column in tensors_of(answers).items()
    }
    if len(columns) == 1:
        return list(next(iter(columns.values())))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _signature(in_force: InForce, version: str | None) -> dict[str, object]:
    inputs, outputs = metadata_of(in_force, version)

    def described(tensors: list[dict[str, Any]]) -> dict[str, object]:
        return {
            tensor["name"]: {
                "dtype": DTYPES[tensor["datatype"]],
                "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in tensor["shape"]],
                                 "unknown_rank": False},
                "name": tensor["name"],
            }
            for tensor in tensors
        }  # fmt: skip

    return {
        "inputs": described([tensor for tensor in inputs if tensor["name"] != "key"]),
        "outputs": described(outputs),
        "method_name": "tensorflow/serving/predict",
    }
