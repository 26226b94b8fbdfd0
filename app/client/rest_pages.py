"""Requests and answers of the plain REST endpoints, as bytes and values. Sends nothing."""

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.client.answers import Health, Prediction, Rejection
from app.client.failures import (
    BadAnswer,
    BadRequest,
    ClientError,
    DeadlineExceeded,
    NotAllowed,
    NotFound,
    NotServing,
    Overloaded,
    Retriable,
    ServerFailed,
    Unreachable,
)

# By name, or as numbers in the manifest's order: a category as its index, NaN or None for a missing value.
Features = Mapping[str, object] | Sequence[float | None]
Page = Mapping[str, Any]

LONGEST_DETAIL = 500  # characters of what a server, or a proxy in its place, says; it ends up in a log
_BAD_REQUEST = frozenset({400, 413, 415, 422, 431})
_RETRIABLE: Mapping[int, type[Retriable]] = {429: Overloaded, 502: Unreachable, 503: NotServing}
_FINAL: Mapping[int, type[ClientError]] = {
    401: NotAllowed, 403: NotAllowed, 404: NotFound, 405: NotFound, 504: DeadlineExceeded
}  # fmt: skip
HEADER_VALUE = re.compile(r"[!-~]+")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Credentials:
    """One of the two. Never shown. Raises ValueError for what no header can carry, a line's end for example."""

    api_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("api_key", "token"):
            value = getattr(self, name)
            if value is not None and not HEADER_VALUE.fullmatch(value):
                raise ValueError(f"{name}: printable ASCII characters without spaces are needed")

    def headers(self) -> dict[str, str]:
        """What says so to the server; the same names are metadata in gRPC."""
        found = {}
        if self.api_key is not None:
            found["x-api-key"] = self.api_key
        if self.token is not None:
            found["authorization"] = f"Bearer {self.token}"
        return found


def name_of(request_id: str | None) -> str:
    """The request id that all attempts of a call have. Raises BadRequest for one that no header can carry."""
    if request_id is None:
        return uuid.uuid4().hex
    if len(request_id) > 128 or not HEADER_VALUE.fullmatch(request_id):
        raise BadRequest("request_id: 1 to 128 printable ASCII characters without spaces", field="request_id")
    return request_id


def predict_body(features: Features, key: str | None, version: str | None) -> bytes:
    """Of POST /predict. Raises BadRequest if there is no JSON for it."""
    return _json(_without_none({"features": features, "key": key, "version": version}))


def batch_body(instances: Sequence[Features], keys: Sequence[str | None] | None, version: str | None) -> bytes:
    """Of POST /predict/batch. Raises BadRequest; if keys and instances differ in number too."""
    if keys is None:
        rows: list[object] = [{"features": features} for features in instances]
    elif len(keys) != len(instances):
        raise BadRequest(f"{len(keys)} keys for {len(instances)} instances", field="keys")
    else:
        rows = [_without_none({"features": of, "key": key}) for of, key in zip(instances, keys, strict=True)]
    return _json(_without_none({"instances": rows, "version": version}))


def page_of(status: int, headers: Mapping[str, str], body: bytes) -> Page:
    """What a whole answer says. Raises what its status means, or BadAnswer."""
    try:
        page = orjson.loads(body)
    except orjson.JSONDecodeError:
        page = None
    if not 200 <= status < 300:
        raise _failure(status, headers, page if isinstance(page, dict) else {}, body)
    if not isinstance(page, dict):
        raise BadAnswer(f"status {status}, but no JSON object: {_shown(body)}")
    return page


def prediction_of(page: Page) -> Prediction:
    """One row's answer. Raises BadAnswer."""
    found = page.get("prediction")
    probabilities = page.get("probabilities")
    if not isinstance(found, int | float | str) or not (probabilities is None or _are_numbers(probabilities)):
        raise BadAnswer(f"no prediction: {_shown(orjson.dumps(page))}")
    return Prediction(
        prediction=found,
        probabilities=None if probabilities is None else tuple(probabilities),
        confidence=_kind(page, "confidence", float, int),
        model=_kind(page, "model", str),
        model_version=_kind(page, "model_version", str),
        answered_by=_kind(page, "answered_by", str),
        rollout_revision=_kind(page, "rollout_revision", int),
    )


def predictions_of(page: Page, rows: int) -> list[Prediction | Rejection]:
    """Each row's answer or why it has none, in the order they were asked. Raises BadAnswer."""
    found = page.get("predictions")
    if not isinstance(found, list) or len(found) != rows or not all(isinstance(row, dict) for row in found):
        raise BadAnswer(f"{rows} predictions are needed: {_shown(orjson.dumps(page))}")
    return [rejection_of(row["error"]) if row.get("error") is not None else prediction_of(row) for row in found]


def rejection_of(page: object) -> Rejection:
    """Why a row has no answer. Raises BadAnswer."""
    if not isinstance(page, dict) or not isinstance(page.get("reason"), str):
        raise BadAnswer(f"no reason: {_shown(orjson.dumps(page))}")
    return Rejection(page["reason"], _kind(page, "message", str) or "", _kind(page, "field", str))


def health_of(page: Page) -> Health:
    """Raises BadAnswer."""
    status, loaded = page.get("status"), page.get("model_loaded")
    if not isinstance(status, str) or not isinstance(loaded, bool):
        raise BadAnswer(f"no health: {_shown(orjson.dumps(page))}")
    return Health(
        status=status,
        model_loaded=loaded,
        model_version=_kind(page, "model_version", str),
        uptime_seconds=_kind(page, "uptime_seconds", float, int),
        total_predictions=_kind(page, "total_predictions", int),
    )


def _failure(status: int, headers: Mapping[str, str], page: Page, body: bytes) -> ClientError:
    said = page.get("detail") or page.get("error")
    message = f"{status}: {said[:LONGEST_DETAIL] if isinstance(said, str) else _shown(body)}"
    if status in _BAD_REQUEST:
        return BadRequest(message, field=_kind(page, "field", str))
    if status in _RETRIABLE:
        return _RETRIABLE[status](message, retry_after_s=seconds_of(headers.get("retry-after")))
    return _FINAL.get(status, ServerFailed)(message)


def seconds_of(text: str | None) -> float | None:
    """A Retry-After in seconds; None where there is none, or one that is a date or no sense."""
    try:
        seconds = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _json(page: object) -> bytes:
    try:
        return orjson.dumps(page, option=_OPTIONS)
    except (orjson.JSONEncodeError, RecursionError) as exc:
        raise BadRequest(f"there is no JSON for the features: {exc}", field="features") from exc


def _without_none(page: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in page.items() if value is not None}


def _kind(page: Page, name: str, *kinds: type) -> Any:  # noqa: ANN401 - one of the kinds, or None
    """A value that does no harm if it is absent or something else."""
    value = page.get(name)
    return value if isinstance(value, kinds) and not isinstance(value, bool) else None


def _are_numbers(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(value, int | float) for value in found)


def _shown(body: bytes) -> str:
    return body[:LONGEST_DETAIL].decode(errors="replace")
