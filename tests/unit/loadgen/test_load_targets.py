"""The requests that load runs make, what counts as an answer, and the whole commands against a small server."""

import json
import struct

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from online_server import VERSION, OnlineServer
from typer import Typer
from typer.testing import CliRunner

from app.grpc_api import prediction_pb2 as theirs
from loadgen.cli.grpc import grpc
from loadgen.cli.load_options import headers, ring
from loadgen.cli.rest import rest
from loadgen.digit_events import DigitEvents, Digits
from loadgen.errors import BadOption
from loadgen.online.grpc_requests import GrpcRequests
from loadgen.online.instances import Ring
from loadgen.online.prediction_messages import message_classes
from loadgen.online.rest_requests import RestRequests
from loadgen.online.target import ANSWERED, BAD_ANSWER, Reply
from loadgen.schemas import SchemaDirectory


@pytest.fixture(scope="module")
def churn(pytestconfig):
    return ring("churn", pytestconfig.rootpath / "schemas", 7, asked=256)


@pytest.fixture(scope="module")
def digits(pytestconfig):
    images = np.arange(16 * 64, dtype=np.float32).reshape(16, 64) % 17
    schema = SchemaDirectory(pytestconfig.rootpath / "schemas").current("digit_event")
    return Ring.of(DigitEvents(Digits(images, np.arange(16) % 10)), schema, 16)


@pytest.fixture(scope="module")
def server():
    with OnlineServer() as running:
        yield running


@pytest.fixture
def run(pytestconfig, server):
    """Run a command; returns its exit status and, of `--json`, the page."""

    def call(command, *arguments):
        app = Typer()
        app.command()(command)
        where = ["--url", server.url] if command is rest else ["--address", server.address]
        given = ["--schemas", str(pytestconfig.rootpath / "schemas"), *arguments, "--json"]
        result = CliRunner().invoke(app, [*([] if where[0] in arguments else where), *given])
        return result.exit_code, json.loads(result.stdout)["load"] if result.stdout else result.stderr

    return call


# What is asked


def test_a_request_by_fields_has_the_event_without_its_id_and_the_key_beside(churn):
    page = orjson.loads(RestRequests(churn, rows=1, style="fields").body(0))
    assert page["key"] == churn.keys[0]
    assert list(page["features"]) == ["age", "income", "tenure_months", "monthly_charges", "total_charges", "plan"]
    assert page["features"]["plan"] in ("basic", "standard", "premium")


def test_a_request_by_numbers_has_the_category_as_its_index_and_null_for_a_missing_value(churn):
    missing = int(np.flatnonzero(np.isnan(churn.vectors[:, 4]))[0])
    page = orjson.loads(RestRequests(churn, rows=1, style="vectors").body(missing))
    assert page["features"][4] is None
    assert page["features"][5] in (0, 1, 2)


def test_an_array_field_is_as_many_numbers(digits):
    by_field = orjson.loads(RestRequests(digits, rows=1, style="fields").body(3))["features"]
    by_number = orjson.loads(RestRequests(digits, rows=1, style="vectors").body(3))["features"]
    assert by_field == {"pixels": by_number}
    assert len(by_number) == 64


@pytest.mark.parametrize("rows", [2, 7, 64])
def test_a_batch_has_its_rows_in_turn(churn, rows):
    requests = RestRequests(churn, rows=rows, style="fields")
    keys = [one["key"] for number in range(3) for one in orjson.loads(requests.body(number))["instances"]]
    assert keys == churn.keys[: 3 * rows]
    assert requests.path == "/predict/batch"


def test_grpc_asks_the_same_numbers_as_rest(churn):
    single = GrpcRequests(churn, rows=1)
    for number in range(50):
        features = theirs.PredictRequest.FromString(single.body(number)).features
        assert np.array_equal(np.float32(features), churn.vectors[number], equal_nan=True)
    batch = theirs.BatchPredictRequest.FromString(GrpcRequests(churn, rows=5).body(2))
    assert np.array_equal(np.float32([one.features for one in batch.instances]), churn.vectors[10:15], equal_nan=True)


def test_our_messages_are_the_workers_on_the_wire():
    ours = message_classes()
    assert set(ours) <= set(theirs.DESCRIPTOR.message_types_by_name)
    for name, kind in ours.items():
        described = {(f.name, f.number, f.type, f.is_repeated) for f in kind.DESCRIPTOR.fields}
        known = theirs.DESCRIPTOR.message_types_by_name[name].fields
        assert described == {(f.name, f.number, f.type, f.is_repeated) for f in known}, name


@pytest.mark.parametrize("rows", [0, -1, 10_001])
def test_a_request_of_too_few_or_too_many_rows_is_refused(churn, rows):
    with pytest.raises(BadOption, match="--rows"):
        RestRequests(churn, rows=rows, style="fields")
    with pytest.raises(BadOption, match="--rows"):
        GrpcRequests(churn, rows=rows)


# What counts as an answer


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'{"prediction":null}', b'{"predictions":[1]}', b"\xff", b"[" * 100_000],
)
def test_success_without_a_prediction_is_a_bad_answer(churn, body):
    assert RestRequests(churn, rows=1, style="fields").reply(200, body) == Reply(BAD_ANSWER)


@pytest.mark.parametrize("found", ["[]", "[1]", "[1,2,3]", "{}", "2", '"ab"'])
def test_a_batch_is_answered_by_as_many_predictions_or_not_at_all(churn, found):
    requests = RestRequests(churn, rows=2, style="fields")
    assert requests.reply(200, b'{"predictions":%s}' % found.encode()) == Reply(BAD_ANSWER)
    assert requests.reply(200, b'{"predictions":[1,0],"errors":1}') == Reply(BAD_ANSWER)
    assert requests.reply(200, b'{"predictions":[1,0],"errors":0}') == Reply(ANSWERED)


@given(st.binary(max_size=64))
def test_bytes_of_any_kind_are_an_answer_or_a_bad_one(body):
    requests = GrpcRequests.__new__(GrpcRequests)
    requests.rows, requests._answer = 1, message_classes()["PredictResponse"]
    assert requests.reply(body).outcome in (ANSWERED, BAD_ANSWER)


def test_an_empty_grpc_message_is_no_prediction(churn):
    assert GrpcRequests(churn, rows=1).reply(b"") == Reply(BAD_ANSWER)
    assert GrpcRequests(churn, rows=2).reply(struct.pack("3B", 0x0A, 1, 1)) == Reply(BAD_ANSWER)


# The commands


@pytest.mark.parametrize("command", [rest, grpc])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_run_reports_what_the_server_answered(run, command, rows):
    status, load = run(command, "--rate", "200", "--requests", "60", "--rows", str(rows))
    assert status == 0
    assert (load["answered"], load["failed"], load["passed"]) == (60, {}, True)
    assert load["latency"]["count"] == 60
    if command is rest or rows == 1:
        assert load["versions"] == {VERSION: 60}


@pytest.mark.parametrize("command", [rest, grpc])
def test_callers_in_a_circle_ask_as_fast_as_they_are_answered(run, command):
    status, load = run(command, "--rate", "0", "--requests", "100", "--callers", "5")
    assert status == 0
    assert load["loop"] == "closed, 5 callers"
    assert load["answered"] == 100


def test_each_request_carries_its_key_and_the_given_headers(run, server, churn):
    server.behaviour.seen.clear()
    run(rest, "--requests", "3", "--header", "x-request-id=r-1", "--rate", "1000")
    run(grpc, "--requests", "3", "--header", "X-Request-Id=r-2", "--rate", "1000", "--connections", "1")
    assert sorted(server.behaviour.seen) == sorted(
        [("r-1", churn.keys[0]), ("r-2", churn.keys[0])]  # the probes
        + [(name, churn.keys[number]) for name in ("r-1", "r-2") for number in range(3)]
    )


def test_failed_requests_are_counted_and_fail_the_run(run, server):
    server.behaviour.statuses = [200, 429, 503, 503]
    status, load = run(rest, "--requests", "20", "--rate", "1000")
    assert status == 1
    assert load["failed"] == {"429": 1, "503": 2}
    assert load["complaints"] == ["3 of 20 requests failed, allowed is a share of 0"]


def test_a_server_that_is_too_slow_times_out(run, server):
    server.behaviour.takes_s = 0.5
    try:
        by_rest = run(rest, "--requests", "2", "--timeout", "0.05")
        by_grpc = run(grpc, "--requests", "2", "--timeout", "0.05", "--connections", "1")
    finally:
        server.behaviour.takes_s = 0.0
    assert (by_rest[0], by_rest[1]["failed"]) == (1, {"timeout": 2})
    assert (by_grpc[0], by_grpc[1]["failed"]) == (1, {"timeout": 2})


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (rest, ["--url", "http://127.0.0.1:1"], "ServerFailed"),
        (rest, ["--url", "ftp://host"], "--url"),
        (rest, ["--url", "http://"], "--url"),
        (rest, ["--as", "words"], "--as"),
        (rest, ["--requests", "0"], "--requests"),
        (rest, ["--timeout", "nan"], "--timeout"),
        (rest, ["--rate", "-1"], "--rate"),
        (rest, ["--ca-file", "absent.pem"], "--ca-file"),
        (rest, ["--pipeline", "weather"], "--pipeline"),
        (rest, ["--header", "nothing"], "--header"),
        (grpc, ["--address", "127.0.0.1:1"], "ServerFailed"),
        (grpc, ["--address", "nowhere"], "--address"),
        (grpc, ["--connections", "0"], "--connections"),
        (grpc, ["--ca-file", "absent.pem"], "--ca-file"),
    ],
)
def test_a_run_that_cannot_be_made_says_why_and_exits_with_2(run, command, arguments, said):
    status, words = run(command, *arguments)
    assert status == 2
    assert said in words


def test_a_server_that_refuses_the_first_request_is_not_measured(run, server):
    server.behaviour.statuses = [401]
    status, words = run(rest, "--requests", "5")
    assert status == 2
    assert "401" in words


@pytest.mark.parametrize("given", ["a", "=b", "é=b", "a=b\r\nc: d", " =x"])
def test_a_header_that_is_none_is_refused_without_its_value(given):
    with pytest.raises(BadOption) as refused:
        headers([given])
    assert "c: d" not in str(refused.value)
