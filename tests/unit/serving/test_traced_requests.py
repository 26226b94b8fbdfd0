"""Requests over HTTP and gRPC go on with their clients' traces, and the batch they share is linked to them."""

import asyncio

import pytest
from fakes import ManualClock
from grpc_world import GrpcWorld, failure_of
from kept_spans import SPAN_ID, TRACE_ID, KeptSpans
from online_world import run
from opentelemetry.trace import SpanKind, StatusCode
from rest_world import RestWorld
from small_pipeline import model_of, tenths

from app.errors import ModelFailed
from app.grpc_api import prediction_pb2 as messages
from app.observe.tracing import add_span_ids

PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
ROW = messages.PredictRequest(features=[7.0])
BAD_PARENTS = [
    "",
    "00",
    PARENT[:-1],
    PARENT.upper(),
    f"ff{PARENT[2:]}",
    "\u0664",
    "x" * 5_000,
    f"00-{'0' * 32}-{SPAN_ID}-01",
]


def at_fault(_tensors):
    raise ModelFailed("no such operator")


@pytest.fixture
def spans():
    return KeptSpans()


@pytest.fixture
def rest(spans):
    with RestWorld(tracing=spans.requests(ManualClock())) as world:
        yield world


def trace_of(span):
    return f"{span.context.trace_id:032x}"


def test_a_sampled_request_goes_on_with_its_trace_and_its_batch_is_linked_to_it(rest, spans):
    sent = {"traceparent": PARENT, "tracestate": "v=1", "x-request-id": "mine-1"}
    answer = rest.post("/predict", {"features": [7.0]}, headers=sent)
    assert answer.status_code == 200
    batch, request = spans.all
    assert (trace_of(request), f"{request.parent.span_id:016x}", request.kind) == (TRACE_ID, SPAN_ID, SpanKind.SERVER)
    assert request.context.trace_state.to_header() == "v=1"
    told = {"http.request.method": "POST", "http.route": "/predict", "http.response.status_code": 200}
    assert told.items() <= request.attributes.items()
    assert (request.name, request.attributes["inference.request_id"]) == ("POST /predict", "mine-1")
    assert (batch.name, batch.parent) == ("infer churn", None)
    assert batch.links[0].context.span_id == request.context.span_id
    assert request.links[0].context.span_id == batch.context.span_id
    assert [e.name for e in batch.events] == ["inference.model.asked"]
    assert spans.counted == ["request"]


def test_a_request_that_its_client_has_not_sampled_is_not_traced(rest, spans):
    assert rest.post("/predict", {"features": [7.0]}, headers={"traceparent": PARENT[:-1] + "0"}).status_code == 200
    assert rest.post("/predict", {"features": [7.0]}).status_code == 200
    assert spans.all == []


@pytest.mark.parametrize("parent", BAD_PARENTS)
def test_a_traceparent_that_is_none_is_not_heeded(rest, spans, parent):
    answer = rest.post("/predict", {"features": [7.0]}, headers=[("traceparent", parent.encode())])
    assert answer.status_code == 200
    assert spans.all == []


def test_two_traceparents_are_none(rest, spans):
    answer = rest.post("/predict", {"features": [7.0]}, headers=[("traceparent", PARENT), ("traceparent", PARENT)])
    assert answer.status_code == 200
    assert spans.all == []


def test_a_mistake_of_the_clients_is_no_error_of_the_servers(rest, spans):
    assert rest.post("/predict", {"features": ["a"]}, headers={"traceparent": PARENT}).status_code == 422
    (request,) = [span for span in spans.all if span.kind is SpanKind.SERVER]
    assert request.status.status_code is StatusCode.UNSET
    assert request.attributes["http.response.status_code"] == 422


def test_a_model_at_fault_is_the_error_of_its_batch_and_of_its_requests(spans):
    model = model_of("7", at_fault)
    model.at_fault = True
    with RestWorld(model, tracing=spans.requests(ManualClock())) as world:
        assert world.post("/predict", {"features": [7.0]}, headers={"traceparent": PARENT}).status_code == 500
    batch, request = spans.all
    assert (batch.attributes["error.type"], request.attributes["error.type"]) == ("ModelFailed", "500")
    assert batch.status.status_code is request.status.status_code is StatusCode.ERROR


def test_probes_are_not_traced(spans):
    with RestWorld(tracing=spans.requests(ManualClock(), share=1.0)) as world:
        for path in ("/livez", "/readyz", "/metrics"):
            world.get(path, headers={"traceparent": PARENT})
    assert spans.all == []


def test_what_the_server_says_of_itself_is_the_same_with_tracing(rest):
    with RestWorld() as plain:
        assert rest.get("/openapi.json").json() == plain.get("/openapi.json").json()


def test_requests_without_a_context_are_traced_by_chance(spans):
    with RestWorld(tracing=spans.requests(ManualClock(), share=1.0)) as world:
        world.post("/predict", {"features": [7.0]})
    assert [span.name for span in spans.all] == ["infer churn", "POST /predict"]


def test_no_more_clients_a_second_are_heeded_than_was_said(spans):
    with RestWorld(tracing=spans.requests(ManualClock(), parents_per_s=2.0)) as world:
        for _ in range(5):
            world.post("/predict", {"features": [7.0]}, headers={"traceparent": PARENT})
    assert len(spans.named("POST /predict")) == 2


def test_log_lines_of_a_batch_name_the_batch_and_not_one_of_its_requests(spans):
    seen = []

    def logging_model(tensors):
        seen.append(add_span_ids(None, "info", {}))
        return tenths(tensors)

    with RestWorld(model_of("7", logging_model), tracing=spans.requests(ManualClock())) as world:
        world.post("/predict", {"features": [7.0]}, headers={"traceparent": PARENT})
        world.post("/predict", {"features": [7.0]})
    assert [line.get("trace_id") for line in seen] == [trace_of(spans.named("infer churn")[0]), None]


# ------------------------------------------------------------------------------------------------ gRPC


def grpc_world(spans, **more):
    traces = spans.requests(ManualClock(), **more)
    world = GrpcWorld(calls={"tracing": traces})
    world.core._tracing = traces
    return world


def test_a_sampled_call_goes_on_with_its_trace(spans):
    async def scenario():
        async with grpc_world(spans).up() as world:
            await world.prediction.Predict(ROW, metadata=[("traceparent", PARENT), ("tracestate", "v=1")])
            await world.prediction.Predict(ROW)

    run(scenario())
    batch, call = spans.all
    assert (trace_of(call), call.kind) == (TRACE_ID, SpanKind.SERVER)
    assert call.name.endswith("/Predict")
    told = {"rpc.system.name": "grpc", "rpc.method": call.name, "rpc.response.status_code": "OK"}
    assert dict(call.attributes) == told
    assert batch.links[0].context.span_id == call.context.span_id


def test_how_a_call_failed_is_told(spans):
    async def scenario():
        async with grpc_world(spans).up() as world:
            bad = messages.PredictRequest(features=[1.0, 2.0])
            await failure_of(world.prediction.Predict(bad, metadata=[("traceparent", PARENT)]))

    run(scenario())
    (call,) = [span for span in spans.all if span.kind is SpanKind.SERVER]
    assert call.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert call.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("parent", [parent for parent in BAD_PARENTS if parent.isascii()])
def test_metadata_that_are_no_context_are_not_heeded(spans, parent):
    async def scenario():
        async with grpc_world(spans).up() as world:
            return await world.prediction.Predict(ROW, metadata=[("traceparent", parent)])

    assert run(scenario()).prediction == 1
    assert spans.all == []


def test_a_stream_is_one_span(spans):
    async def scenario():
        async with grpc_world(spans).up() as world:
            call = world.prediction.PredictStream(iter([ROW, ROW]), metadata=[("traceparent", PARENT)])
            return [answer.prediction async for answer in call]

    assert run(scenario()) == [1, 1]
    (call,) = spans.all
    assert (trace_of(call), call.attributes["rpc.response.status_code"]) == (TRACE_ID, "OK")


def test_concurrent_calls_share_a_batch_that_is_linked_to_as_many_as_was_said(spans):
    async def scenario():
        world = grpc_world(spans, most_links=2)
        async with world.up():
            calls = [world.prediction.Predict(ROW, metadata=[("traceparent", PARENT)]) for _ in range(8)]
            await asyncio.gather(*calls)

    run(scenario())
    batches = spans.named("infer churn")
    assert len([span for span in spans.all if span.kind is SpanKind.SERVER]) == 8
    assert all(1 <= len(batch.links) <= 2 for batch in batches)
