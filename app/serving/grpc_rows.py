"""Rows of `prediction.proto` ⇄ columns.

A message per row is an object per row. Rows of equal length lie in a BatchPredictRequest at equal distances, though,
so that its bytes are a matrix as they are; answers are written the same way. Whatever does not look like that goes
through protobuf, with the same result.
"""

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from app.grpc_api import prediction_pb2 as messages
from app.serving.refusals import BadRequest

Array = npt.NDArray[Any]

INSTANCE = PREDICTION = 0x0A  # field 1, length-delimited
PROBABILITIES = 0x12  # field 2, length-delimited
ONE_BYTE = 0x80  # a varint below this is one byte


def row_of(request: "messages.PredictRequest | messages.StreamedPredictRequest") -> Array:
    """The features of one request, (1, k) float32."""
    return np.array(request.features, np.float32)[None]


def rows_of(body: bytes, most_rows: int) -> Array:
    """The instances of a BatchPredictRequest, (n, k) float32.

    Raises BadRequest if it is none, has no instances or more than `most_rows`, or they differ in length.
    """
    features = _matrix(body)
    if features is None:
        features = _parsed(body, most_rows)
    if not len(features):
        raise BadRequest("instances: there are none")
    if len(features) > most_rows:
        raise _too_many(len(features), most_rows)
    return features


def _too_many(rows: int, most: int) -> BadRequest:
    return BadRequest(f"instances: {rows} of them, allowed {most} in one call", too_large=True)


def _matrix(body: bytes) -> Array | None:
    """(n, k) float32, a view of the bytes; None if they are not n times the same frame."""
    if len(body) < 4 or body[0] != INSTANCE:
        return None
    octets = np.frombuffer(body, np.uint8)
    inner, start = _varint(body, 1)
    stride = start + inner
    if len(body) % stride or inner < 2 or body[start] != INSTANCE:  # its field 1 too: the packed floats
        return None
    packed, first = _varint(body, start + 1)
    if packed % 4 or packed == 0 or first + packed != stride:
        return None
    table = octets.reshape(-1, stride)
    if not (table[:, :first] == table[0, :first]).all():
        return None
    return np.ascontiguousarray(table[:, first:]).view("<f4")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """The number there and where it ends; -1 if it is cut or too long."""
    value = 0
    for place, octet in enumerate(body[at : at + 5]):
        value |= (octet & 0x7F) << 7 * place
        if octet < ONE_BYTE:
            return value, at + place + 1
    return -1, len(body)


def _parsed(body: bytes, most_rows: int) -> Array:
    try:
        instances = messages.BatchPredictRequest.FromString(body).instances
    except DecodeError as exc:
        raise BadRequest("the request is not a prediction.BatchPredictRequest") from exc
    if len(instances) > most_rows:
        raise _too_many(len(instances), most_rows)
    lengths = [len(instance.features) for instance in instances]
    if lengths.count(lengths[0] if lengths else 0) != len(lengths):
        odd = next(row for row, length in enumerate(lengths) if length != lengths[0])
        raise BadRequest(f"instances[{odd}].features: {lengths[odd]} of them, instances[0] has {lengths[0]}")
    values = chain.from_iterable(instance.features for instance in instances)
    width = lengths[0] if lengths else 0
    return np.fromiter(values, np.float32, sum(lengths)).reshape(len(lengths), width)


def batch_response(predictions: Array, probabilities: Array | None) -> bytes:
    """A BatchPredictResponse. predictions: (n,) int32. probabilities: (n, k) or None, then none are written."""
    return _packed(predictions) + (b"" if probabilities is None else _framed(probabilities))


def _packed(predictions: Array) -> bytes:
    if predictions.min(initial=0) < 0 or predictions.max(initial=0) >= ONE_BYTE:
        return messages.BatchPredictResponse(predictions=predictions.tolist()).SerializeToString()
    return bytes([PREDICTION]) + _length(len(predictions)) + predictions.astype(np.uint8).tobytes()


def _framed(probabilities: Array) -> bytes:
    count, width = probabilities.shape
    values = np.ascontiguousarray(probabilities, "<f4")
    packed = bytes([INSTANCE]) + _length(4 * width)
    head = bytes([PROBABILITIES]) + _length(len(packed) + 4 * width) + packed
    table = np.empty((count, len(head) + 4 * width), np.uint8)
    table[:, : len(head)] = np.frombuffer(head, np.uint8)
    table[:, len(head) :] = values.view(np.uint8)
    return table.tobytes()


def _length(value: int) -> bytes:
    octets = bytearray()
    while value >= ONE_BYTE:
        octets.append(value & 0x7F | ONE_BYTE)
        value >>= 7
    octets.append(value)
    return bytes(octets)
