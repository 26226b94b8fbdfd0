"""Requests and answers of `prediction.PredictionService` as values. Sends nothing."""

import math
from collections.abc import Iterable, Mapping, Sequence

import grpc

from app.client.answers import Health, Prediction
from app.client.failures import (
    BadAnswer,
    BadRequest,
    ClientError,
    DeadlineExceeded,
    NotAllowed,
    NotFound,
    Overloaded,
    ServerFailed,
    Unreachable,
)
from app.client.rest_pages import LONGEST_DETAIL, seconds_of
from app.grpc_api import prediction_pb2 as messages

Vector = Sequence[float | None]
Metadata = Mapping[str, str]
Code = grpc.StatusCode
TOO_LARGE = "larger than max"  # grpc's own words for a message beyond a limit of either side

_FINAL: Mapping[Code, type[ClientError]] = {
    Code.INVALID_ARGUMENT: BadRequest,
    Code.OUT_OF_RANGE: BadRequest,
    Code.UNAUTHENTICATED: NotAllowed,
    Code.PERMISSION_DENIED: NotAllowed,
    Code.NOT_FOUND: NotFound,
    Code.UNIMPLEMENTED: NotFound,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def request_of(features: Vector) -> messages.PredictRequest:
    """None is a missing value. Raises BadRequest for what is no number."""
    try:
        return messages.PredictRequest(features=[math.nan if value is None else value for value in features])
    except (TypeError, ValueError, OverflowError) as exc:
        raise BadRequest(f"features: numbers are needed: {exc}", field="features") from exc


def batch_of(rows: Iterable[Vector]) -> messages.BatchPredictRequest:
    """Raises BadRequest for what is no number."""
    return messages.BatchPredictRequest(instances=[request_of(row) for row in rows])


def key_metadata(key: str | None) -> tuple[tuple[str, str | bytes], ...]:
    """What rollouts stick to, in any alphabet. Raises BadRequest for a key that has no bytes."""
    if key is None:
        return ()
    try:
        return (("inference-key-bin", key.encode()),)
    except UnicodeEncodeError as exc:
        raise BadRequest(f"key: {exc}", field="key") from exc


def prediction_of(answer: messages.PredictResponse, trailing: Metadata) -> Prediction:
    """One row's answer. Raises BadAnswer if it says of no version that it answered."""
    if not answer.model_version:
        raise BadAnswer("no version answered")
    return _prediction(answer.prediction, answer.probabilities, answer.model_version, trailing)


def predictions_of(answer: messages.BatchPredictResponse, rows: int, trailing: Metadata) -> list[Prediction]:
    """Each row's answer, in the order they were asked. Raises BadAnswer.

    Where several versions answered, this service does not say which rows are whose: model_version is None.
    """
    if len(answer.predictions) != rows or len(answer.probabilities) not in (0, rows):
        raise BadAnswer(f"{rows} predictions are needed, there are {len(answer.predictions)}")
    version = _only(trailing.get("inference-model-version"))
    probabilities: list[Iterable[float]] = [of.values for of in answer.probabilities]
    if not probabilities:
        probabilities = [()] * rows
    return [_prediction(row, of, version, trailing) for row, of in zip(answer.predictions, probabilities, strict=True)]


def health_of(answer: messages.HealthResponse) -> Health:
    """What the service says about itself."""
    return Health(status=answer.status, model_loaded=answer.model_loaded)


def failure_of(code: Code, details: str | None, trailing: Metadata) -> ClientError:
    """What a call's end means. UNAVAILABLE is said by servers without a model, and by the network."""
    message = f"{code.name}: {(details or '')[:LONGEST_DETAIL]}"
    if code is Code.RESOURCE_EXHAUSTED and TOO_LARGE in (details or ""):
        return BadRequest(message)  # it is as large the next time
    if code is Code.RESOURCE_EXHAUSTED:
        return Overloaded(message, retry_after_s=_retry_after(trailing))
    if code is Code.UNAVAILABLE:
        return Unreachable(message, retry_after_s=_retry_after(trailing))
    return _FINAL.get(code, ServerFailed)(message)


def _prediction(found: int, probabilities: Iterable[float], version: str | None, trailing: Metadata) -> Prediction:
    revision = _only(trailing.get("inference-rollout-revision"))
    return Prediction(
        prediction=found,
        probabilities=tuple(probabilities) or None,
        model_version=version,
        answered_by=_only(trailing.get("inference-answered-by")),
        rollout_revision=int(revision) if revision is not None and revision.isdecimal() else None,
    )


def _only(text: str | None) -> str | None:
    """A value that is said of all rows; several are separated by commas."""
    return text if text and "," not in text else None


def _retry_after(trailing: Metadata) -> float | None:
    pushback_ms = seconds_of(trailing.get("grpc-retry-pushback-ms"))
    return pushback_ms / 1000 if pushback_ms is not None else seconds_of(trailing.get("retry-after"))
