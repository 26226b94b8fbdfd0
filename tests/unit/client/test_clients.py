"""The clients against a small server that answers as ours: what is asked, what is asked again, what comes back."""

import asyncio
import contextlib
import math
import re
import time

import httpx2
import numpy as np
import orjson
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st
from online_server import VERSION, OnlineServer

from app.client import (
    AsyncRestClient,
    BadAnswer,
    BadRequest,
    ClientError,
    Credentials,
    DeadlineExceeded,
    Health,
    NotAllowed,
    NotFound,
    NotServing,
    Overloaded,
    Prediction,
    Rejection,
    RestClient,
    RetryPolicy,
    ServerFailed,
    Unreachable,
)
from app.client.grpc import AsyncGrpcClient, GrpcClient
from app.client.grpc_messages import batch_of, failure_of, predictions_of
from app.client.rest import _failure
from app.client.rest_pages import batch_body, page_of, prediction_of, seconds_of
from app.grpc_api import prediction_pb2 as messages

QUICK = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.001, budget=1000)
FEATURES = {"age": 34, "income": 50_000.0, "total_charges": None, "plan": "basic"}
VECTOR = [34.0, 50_000.0, None, math.nan]
KINDS = ["rest", "async rest", "grpc", "async grpc"]
CLASSES = {"rest": RestClient, "async rest": AsyncRestClient, "grpc": GrpcClient, "async grpc": AsyncGrpcClient}


@pytest.fixture(scope="module")
def server():
    with OnlineServer() as running:
        yield running


@pytest.fixture(autouse=True)
def behaviour(server):
    found = server.behaviour
    found.statuses, found.codes, found.headers, found.takes_s = [], [], {}, 0.0
    found.seen.clear()
    return found


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def ask(kind, server):
    """ask("predict", FEATURES or VECTOR, ...) of a new client of that kind."""

    def call(method, *arguments, **options):
        made = {"retry": QUICK, **options.pop("made", {})}
        where = server.url if "rest" in kind else server.address
        if "async" not in kind:
            with CLASSES[kind](where, **made) as client:
                return getattr(client, method)(*arguments, **options)

        async def run():
            async with CLASSES[kind](where, **made) as client:
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(run())

    return call


def failing(behaviour, kind, times):
    """The next answers are of a server that has no model."""
    if "rest" in kind:
        behaviour.statuses = [503] * times
    else:
        behaviour.codes = [StatusCode.UNAVAILABLE] * times


def test_a_row_is_answered_with_who_answered(ask, kind):
    found = ask("predict", FEATURES if "rest" in kind else VECTOR, key="customer-7")
    assert (found.prediction, found.probabilities, found.model_version) == (1, (0.25, 0.75), VERSION)
    if "grpc" in kind:
        assert (found.answered_by, found.rollout_revision) == ("stable", 3)


def test_rows_are_answered_in_their_order(ask, kind):
    found = ask("predict_many", [VECTOR, VECTOR, VECTOR])
    assert [row.prediction for row in found] == [1, 1, 1]
    assert {row.model_version for row in found} == {VERSION}


def test_health_is_what_the_server_says(ask, kind):
    found = ask("health")
    assert (found.status, found.model_loaded) == ("ok", True)


def test_what_fails_by_chance_is_asked_again_under_the_same_request_id(ask, kind, behaviour):
    failing(behaviour, kind, 2)
    assert ask("predict", VECTOR, request_id="mine").prediction == 1
    assert [name for name, _ in behaviour.seen] == ["mine"] * 3


def test_after_the_last_attempt_the_failure_says_why_and_of_which_request(ask, kind, behaviour):
    failing(behaviour, kind, 10)
    with pytest.raises((NotServing, Unreachable)) as failed:
        ask("predict", VECTOR, request_id="mine")
    assert failed.value.request_id == "mine"
    assert len(behaviour.seen) == QUICK.attempts


def test_a_policy_of_one_attempt_asks_once(ask, kind, behaviour):
    failing(behaviour, kind, 1)
    with pytest.raises((NotServing, Unreachable)):
        ask("predict", VECTOR, made={"retry": RetryPolicy(attempts=1)})
    assert len(behaviour.seen) == 1


@pytest.mark.parametrize(("left_s", "expected"), [(-1.0, DeadlineExceeded), (60.0, Unreachable)])
def test_connecting_may_take_the_whole_deadline_or_less(left_s, expected):
    assert type(_failure(httpx2.ConnectTimeout("it took too long"), time.monotonic() + left_s)) is expected


def test_a_slow_server_is_not_waited_for_past_the_deadline(ask, kind, behaviour):
    behaviour.takes_s = 3.0
    with pytest.raises(DeadlineExceeded):
        ask("predict", VECTOR, deadline_s=1.0)
    assert len(behaviour.seen) == 1


def test_a_server_that_is_not_there_is_unreachable(kind):
    where = "http://127.0.0.1:1" if "rest" in kind else "127.0.0.1:1"

    def ask():
        if "async" not in kind:
            with CLASSES[kind](where, retry=RetryPolicy(attempts=1)) as client:
                return client.predict(VECTOR)

        async def run():
            async with CLASSES[kind](where, retry=RetryPolicy(attempts=1)) as client:
                return await client.predict(VECTOR)

        return asyncio.run(run())

    with pytest.raises(Unreachable):
        ask()


def test_credentials_and_keys_travel_and_are_never_shown(ask, kind, behaviour):
    secret = Credentials(token="s3cr3t-word")  # pragma: allowlist secret
    assert "s3cr3t" not in repr(secret)
    ask("predict", VECTOR, key="ключ", made={"credentials": secret})
    assert behaviour.seen[-1][1] == "ключ"


@pytest.mark.parametrize("request_id", ["", "two words", "line\nbreak", "é", "x" * 129])
def test_a_request_id_that_no_header_can_carry_is_refused_before_anything_is_sent(ask, behaviour, request_id):
    with pytest.raises(BadRequest) as refused:
        ask("predict", VECTOR, request_id=request_id)
    assert refused.value.field == "request_id"
    assert behaviour.seen == []


@pytest.mark.parametrize("features", [[object()], ["text"], [[1.0]], [10**400]])
def test_features_that_cannot_be_written_down_are_refused_before_anything_is_sent(kind, ask, behaviour, features):
    if "rest" in kind and features != [10**400]:
        features = [{1, 2}]  # a set is no JSON; what is JSON is for the server to judge
    with pytest.raises(BadRequest):
        ask("predict", features)
    assert behaviour.seen == []


# REST pages, without a server


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest), (401, NotAllowed), (403, NotAllowed), (404, NotFound), (405, NotFound), (413, BadRequest),
        (418, ServerFailed), (422, BadRequest), (429, Overloaded), (500, ServerFailed), (502, Unreachable),
        (503, NotServing), (504, DeadlineExceeded), (301, ServerFailed), (100, ServerFailed),
    ],
)  # fmt: skip
def test_each_status_is_named_for_what_to_do_next(status, kind):
    body = orjson.dumps({"detail": "age is 7", "field": "features.age"})
    with pytest.raises(kind, match="age is 7") as failed:
        page_of(status, {"retry-after": "3"}, body)
    if kind is BadRequest:
        assert failed.value.field == "features.age"
    if kind is Overloaded:
        assert failed.value.retry_after_s == 3


@given(st.integers(100, 599), st.binary(max_size=300) | st.just(b"[" * 5000))
def test_an_answer_of_any_bytes_is_a_page_or_a_named_error(status, body):
    with contextlib.suppress(ClientError):
        prediction_of(page_of(status, {}, body))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = ["prediction", "probabilities", "confidence", "model_version", "rollout_revision", "answered_by"]


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_a_page_of_any_json_is_a_prediction_or_a_bad_answer(page):
    try:
        found = prediction_of(page)
    except BadAnswer:
        return
    assert isinstance(found, Prediction)
    assert found.model_version is None or isinstance(found.model_version, str)


def client_of(page, status=200):
    def answer(request):
        return httpx2.Response(status, content=orjson.dumps(page))

    return RestClient("http://test", transport=httpx2.MockTransport(answer), retry=QUICK)


def test_a_row_that_cannot_be_predicted_costs_the_others_nothing():
    error = {"reason": "out_of_range", "field": "age", "message": "age is 7"}
    rows = [{"prediction": 0, "model_version": "3"}, {"prediction": None, "error": error, "model_version": "3"}]
    with client_of({"predictions": rows, "errors": 1}) as client:
        assert client.predict_many([FEATURES, FEATURES]) == [
            Prediction(0, model_version="3"),
            Rejection("out_of_range", "age is 7", "age"),
        ]


@pytest.mark.parametrize("page", [{}, {"predictions": []}, {"predictions": [1]}, {"predictions": {}}, [], None])
def test_fewer_answers_than_rows_are_no_answer(page):
    with client_of(page) as client, pytest.raises(BadAnswer):
        client.predict_many([FEATURES])


def test_keys_that_are_not_as_many_as_rows_are_refused():
    with pytest.raises(BadRequest, match="1 keys for 2 instances"):
        batch_body([FEATURES, FEATURES], ["a"], None)


def test_numpy_rows_and_nan_are_written_as_json_has_them():
    page = orjson.loads(batch_body(np.array([[1.0, np.nan]], np.float32), None, None))
    assert page == {"instances": [{"features": [1.0, None]}]}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("", None), ("2", 2.0), ("0.5", 0.5), ("-1", None), ("nan", None), ("inf", None),
     ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)  # fmt: skip
def test_a_retry_after_is_seconds_or_nothing(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("url", ["", "host:1", "ftp://host", "http://", "\x00"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match=re.escape(repr(url))):
        RestClient(url)


@pytest.mark.parametrize("value", ["", "two words", "line\n", "é"])
def test_credentials_that_no_header_can_carry_are_refused_without_being_shown(value):
    with pytest.raises(ValueError, match="api_key") as refused:
        Credentials(api_key=value)
    assert not value or value not in str(refused.value)


# gRPC messages, without a server


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (StatusCode.INVALID_ARGUMENT, BadRequest), (StatusCode.UNAUTHENTICATED, NotAllowed),
        (StatusCode.PERMISSION_DENIED, NotAllowed), (StatusCode.NOT_FOUND, NotFound),
        (StatusCode.UNIMPLEMENTED, NotFound), (StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (StatusCode.RESOURCE_EXHAUSTED, Overloaded), (StatusCode.UNAVAILABLE, Unreachable),
        (StatusCode.INTERNAL, ServerFailed), (StatusCode.DATA_LOSS, ServerFailed),
    ],
)  # fmt: skip
def test_each_code_is_named_for_what_to_do_next(code, kind):
    assert type(failure_of(code, "so", {})) is kind


@pytest.mark.parametrize("side", ["CLIENT: Sent", "SERVER: Received", "CLIENT: Received"])
def test_a_message_that_is_too_large_is_not_sent_again(side):
    failed = failure_of(StatusCode.RESOURCE_EXHAUSTED, f"{side} message larger than max (5000000 vs. 4194304)", {})
    assert type(failed) is BadRequest


def test_a_servers_pushback_is_when_to_come_back():
    assert failure_of(StatusCode.RESOURCE_EXHAUSTED, "", {"grpc-retry-pushback-ms": "250"}).retry_after_s == 0.25
    assert failure_of(StatusCode.RESOURCE_EXHAUSTED, "", {"retry-after": "2"}).retry_after_s == 2.0


def test_a_batch_with_too_few_answers_is_no_answer():
    with pytest.raises(BadAnswer):
        predictions_of(messages.BatchPredictResponse(predictions=[1]), 2, {})


def test_rows_answered_by_several_versions_are_not_said_to_be_one_versions():
    answer = messages.BatchPredictResponse(predictions=[1, 0])
    (first, second) = predictions_of(answer, 2, {"inference-model-version": "3,4", "inference-answered-by": "stable"})
    assert (first.model_version, first.answered_by, second.probabilities) == (None, "stable", None)


@given(st.lists(st.lists(st.none() | st.floats(width=32), max_size=5), max_size=5))
def test_what_is_missing_is_nan_and_everything_else_as_it_is(rows):
    for written, row in zip(batch_of(rows).instances, rows, strict=True):
        expected = [math.nan if value is None else value for value in row]
        assert np.array_equal(np.float32(written.features), np.float32(expected), equal_nan=True)


def test_health_has_what_rest_says_more(server):
    with RestClient(server.url) as client:
        assert client.health() == Health("ok", model_loaded=True, model_version=VERSION, uptime_seconds=1.5,
                                         total_predictions=0)  # fmt: skip
