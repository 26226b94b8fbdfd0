"""Rows of `prediction.proto` as columns: the same as protobuf says, whatever the bytes are."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.grpc_api import prediction_pb2 as messages
from app.serving.grpc_rows import batch_response, row_of, rows_of
from app.serving.refusals import BadRequest

MOST = 10_000
FLOATS = st.floats(width=32)
TABLES = st.tuples(st.integers(1, 40), st.integers(0, 40)).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=FLOATS)
)


def request_of(rows):
    instances = [messages.PredictRequest(features=row) for row in rows]
    return messages.BatchPredictRequest(instances=instances).SerializeToString()


@given(TABLES)
def test_rows_are_read_as_they_were_written(table):
    rows = rows_of(request_of(table.tolist()), MOST)
    assert rows.shape == table.shape
    np.testing.assert_array_equal(rows.astype(np.float32), table)


@given(st.lists(st.lists(FLOATS, max_size=4), min_size=1, max_size=6))
def test_rows_of_different_lengths_are_refused_and_the_first_odd_one_is_named(rows):
    lengths = [len(row) for row in rows]
    if len(set(lengths)) == 1:
        assert rows_of(request_of(rows), MOST).shape == (len(rows), lengths[0])
        return
    odd = next(at for at, length in enumerate(lengths) if length != lengths[0])
    with pytest.raises(BadRequest, match=rf"instances\[{odd}\].features: {lengths[odd]} of them"):
        rows_of(request_of(rows), MOST)


@given(st.binary(max_size=200))
@example(b"\x0a\x06\x0a\x04\x00\x00\x80\x3f" * 3 + b"\x0a")
@example(b"\x0a\xff\xff\xff\xff\x7f\x0a\x04")
@example(b"\x0a\x02\x0a\xff")
def test_any_bytes_are_read_as_protobuf_reads_them_or_are_refused(body):
    is_read_as_by_protobuf_or_refused(body)


def is_read_as_by_protobuf_or_refused(body):
    try:
        expected = messages.BatchPredictRequest.FromString(body).instances
    except DecodeError:
        expected = None
    try:
        rows = rows_of(body, MOST)
    except BadRequest:
        assert expected is None or not expected or len({len(row.features) for row in expected}) > 1
    else:
        np.testing.assert_array_equal(rows.astype(np.float32), np.array([row.features for row in expected], np.float32))


@given(TABLES, st.data())
def test_bytes_that_were_damaged_are_read_as_protobuf_reads_them_or_are_refused(table, data):
    body = bytearray(request_of(table.tolist()))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    is_read_as_by_protobuf_or_refused(bytes(body))


def test_a_call_without_instances_and_one_with_too_many_are_refused():
    with pytest.raises(BadRequest, match="instances: there are none"):
        rows_of(b"", MOST)
    with pytest.raises(BadRequest, match="instances: 4 of them, allowed 3 in one call"):
        rows_of(request_of([[1.0]] * 4), 3)


@given(
    arrays.arrays(np.int32, st.shared(st.integers(0, 30), key="n")),
    st.none() | st.tuples(st.shared(st.integers(0, 30), key="n"), st.integers(1, 300)).flatmap(
        lambda shape: arrays.arrays(np.float32, shape, elements=FLOATS)
    ),
)  # fmt: skip
def test_answers_are_what_protobuf_reads(predictions, probabilities):
    answer = messages.BatchPredictResponse.FromString(batch_response(predictions, probabilities))
    assert list(answer.predictions) == predictions.tolist()
    expected = [] if probabilities is None else probabilities
    assert len(answer.probabilities) == len(expected)
    for row, values in zip(answer.probabilities, expected, strict=True):
        np.testing.assert_array_equal(np.array(row.values, np.float32), values)


def test_one_request_is_one_row():
    request = messages.PredictRequest(features=[0.1, float("nan"), 70.35])
    np.testing.assert_array_equal(row_of(request), np.array([[0.1, np.nan, 70.35]], np.float32))
