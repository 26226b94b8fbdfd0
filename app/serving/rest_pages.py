"""JSON pages of the plain endpoints: what they say is asked, and answers as pages."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.answering.answers import Answers
from app.errors import ModelFailed, Stage
from app.records import Rejection
from app.serving.question import Question
from app.serving.refusals import BadRequest

Array = npt.NDArray[Any]

LONGEST_KEY = 1024


def one(page: Mapping[str, Any], within_s: float) -> Question:
    """`{"features": …, "key": …, "version": …}`: one row. Raises BadRequest, naming the field."""
    _only(page, ("features", "key", "version"))
    if "features" not in page:
        raise BadRequest("features is missing", field="features")
    return asked([page["features"]], [page.get("key")], version_of(page), within_s)


def many(page: Mapping[str, Any], most_rows: int, within_s: float) -> Question:
    """`{"instances": […], "version": …}`: each is `{"features": …, "key": …}`, or the features alone."""
    _only(page, ("instances", "parameters", "version"))  # parameters: Vertex AI sends them
    instances = page.get("instances")
    if not isinstance(instances, list):
        raise BadRequest(f"instances is {_kind(instances)}, expected a list", field="instances")
    check_rows(len(instances), most_rows, "instances")
    rows: list[object] = []
    keys: list[object] = []
    for number, instance in enumerate(instances):
        if isinstance(instance, dict) and "features" in instance:
            if extra := instance.keys() - {"features", "key"}:
                field = f"instances[{number}].{min(extra)}"
                raise BadRequest(f"{field} is not known; known are features and key", field=field)
            rows.append(instance["features"])
            keys.append(instance.get("key"))
        else:
            rows.append(instance)
            keys.append(None)
    return asked(rows, keys, version_of(page), within_s, where="instances")


def asked(
    rows: Sequence[object],
    keys: Sequence[object] | None,
    version: str | None,
    within_s: float,
    *,
    where: str | None = None,
) -> Question:
    """Rows that are all objects, or all lists. where: the list they were in. Raises BadRequest."""
    checked = keys_of(keys, where)
    if rows and all(isinstance(row, list) for row in rows):
        return Question(vectors=rows, keys=checked, version=version, within_s=within_s)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            field = "features" if where is None else f"{where}[{number}]"
            raise BadRequest(
                f"{field} is {_kind(row)}, expected an object with fields, or only lists of numbers", field=field
            )
    return Question(instances=rows, keys=checked, version=version, within_s=within_s)


def keys_of(keys: Sequence[object] | None, where: str | None) -> list[str | None] | None:
    """What rollouts choose the rows by; None if no row has one. where: the list they are in. Raises BadRequest."""
    if keys is None or not any(key is not None for key in keys):
        return None
    for number, key in enumerate(keys):
        if key is not None and (not isinstance(key, str) or len(key) > LONGEST_KEY):
            field = "key" if where is None else f"{where}[{number}].key"
            raise BadRequest(f"{field} is {_kind(key)}, expected text of at most {LONGEST_KEY} characters", field=field)
    return [*keys]  # type: ignore[list-item] # looked at just now


def check_rows(rows: int, most: int, where: str) -> None:
    """Raises BadRequest if these are too many, before anything is made of them."""
    if rows > most:
        raise BadRequest(f"{where}: {rows} rows in one request, at most {most} are taken", field=where, too_large=True)


def version_of(page: Mapping[str, Any]) -> str | None:
    """The version that a page asks for. Raises BadRequest."""
    version = page.get("version")
    if version is not None and not isinstance(version, str):
        raise BadRequest(f"version is {_kind(version)}, expected text", field="version")
    return version


def answer_page(answers: Answers, row: int = 0) -> dict[str, object]:
    """What is said about one row. It must not be rejected."""
    source = answers.source_of(row)
    probabilities, confidence = answers.of_row(row)
    page: dict[str, object] = {"prediction": _scalar(answers.predictions, row)}
    if probabilities is not None:
        page["probabilities"] = probabilities
    if confidence is not None:
        page["confidence"] = confidence
    page["model"] = source.model
    page["model_version"] = source.version
    page["answered_by"] = source.part
    page["rollout_revision"] = source.revision
    return page


def answer_pages(answers: Answers) -> list[dict[str, object]]:
    """What is said about each row: as `answer_page`, or why there is no answer."""
    labels = answers.predictions.tolist() if answers.predictions.dtype.kind in "USO" else answers.predictions
    whose = [
        {"model": source.model, "model_version": source.version, "answered_by": source.part,
         "rollout_revision": source.revision}
        for source in answers.sources
    ]  # fmt: skip
    columns: dict[str, Any] = {"prediction": labels}
    if answers.probabilities is not None:
        columns["probabilities"] = answers.probabilities
    if answers.confidence is not None:
        columns["confidence"] = answers.confidence
    names = tuple(columns)
    pages: list[dict[str, object]] = [
        dict(zip(names, values, strict=True)) | whose[by]
        for values, by in zip(zip(*columns.values(), strict=True), answers.by.tolist(), strict=True)
    ]
    for row in _padded_rows(answers):
        pages[row] = answer_page(answers, row)
    for row, why in answers.rejected.items():
        pages[row] = {"prediction": None, "error": rejection_page(why), **whose[int(answers.by[row])]}
    return pages


def _padded_rows(answers: Answers) -> list[int]:
    """Rows whose columns say less than those of others: of another version, with fewer classes or without any."""
    if len(answers.sources) == 1:
        return []
    padded = np.zeros(len(answers), np.bool_)
    if answers.probabilities is not None:
        padded |= np.isnan(answers.probabilities).any(axis=1)
    if answers.confidence is not None:
        padded |= np.isnan(answers.confidence)
    padded[list(answers.rejected)] = False
    rows: list[int] = np.flatnonzero(padded).tolist()
    return rows


def rejection_page(why: Rejection) -> dict[str, object]:
    """Why a row has no answer."""
    return {"reason": why.reason.value, "field": field_of(why), "message": why.message}


def field_of(why: Rejection) -> str | None:
    """Messages about features begin with the field; those of a handler's step do not."""
    return why.message.partition(" ")[0] if why.error == "BadFeatures" else None


def refusal_of(answers: Answers, where: str = "") -> Exception:
    """The first rejected row as the failure of its request. where: the list that the rows were in."""
    row, why = next(iter(answers.rejected.items()))
    if why.stage is not Stage.FEATURES:  # no fault of the request's
        return ModelFailed(why.message)
    field = field_of(why) or "features"
    inside = field if field.startswith("features") else f"features.{field}"
    return BadRequest(f"{where}[{row}]: {why.message}" if where else why.message,
                      field=f"{where}[{row}].{inside}" if where else inside)  # fmt: skip


def only_version(answers: Answers) -> str | None:
    """The version that answered all rows, None if there are several."""
    versions = {answers.sources[by].version for by in np.unique(answers.by).tolist()}
    return versions.pop() if len(versions) == 1 else None


def _only(page: Mapping[str, Any], known: Sequence[str]) -> None:
    if extra := page.keys() - set(known):
        raise BadRequest(f"{min(extra)[:64]} is not known; known are {', '.join(known)}", field=min(extra)[:64])


def _scalar(column: Array, row: int) -> object:
    value = column[row]
    return value.item() if column.dtype.kind in "USO" else value


def _kind(value: object) -> str:
    names = {type(None): "missing or null", dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return names.get(type(value), "a number")
