"""`inference.GRPCInferenceService`, the Open Inference Protocol, as a client sees it over a real connection."""

import asyncio
import math
from contextlib import suppress

import numpy as np
import pytest
from grpc import StatusCode
from grpc_world import GrpcWorld, OneKey, failure_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from made_pages import canary_page
from online_world import OnlineWorld, run
from small_pipeline import INPUTS, SICK, model_of

from app.errors import ModelFailed
from app.grpc_api import grpc_predict_v2_pb2 as v2
from app.serving.datatypes import NUMBERS, Most, datatype_of
from app.serving.grpc_calls import Call
from app.serving.grpc_inference import InferenceService
from app.serving.grpc_tensors import inputs_of, respond
from app.serving.refusals import RequestRefused


def infer_request(raw=False, model="churn", version="", wanted=(), parameters=None, **tensors):
    """A request with these arrays as inputs."""
    made = v2.ModelInferResponse()
    respond(made, tensors, raw=raw)
    inputs = [
        v2.ModelInferRequest.InferInputTensor(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, contents=None if raw else tensor.contents
        )
        for tensor in made.outputs
    ]
    return v2.ModelInferRequest(
        model_name=model, model_version=version, id="call-1", inputs=inputs, parameters=parameters,
        outputs=[v2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in wanted],
        raw_input_contents=made.raw_output_contents,
    )  # fmt: skip


def arrays_of(response):
    """Its outputs by name."""
    inputs = [
        v2.ModelInferRequest.InferInputTensor(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape,
            contents=None if response.raw_output_contents else tensor.contents,
        )
        for tensor in response.outputs
    ]  # fmt: skip
    return inputs_of(
        v2.ModelInferRequest(inputs=inputs, raw_input_contents=response.raw_output_contents), Most(10_000, 64)
    )


def answered(request, *models, page=None):
    async def scenario():
        async with GrpcWorld(*models, page=page).up() as world:
            return await world.inference.ModelInfer(request)

    return run(scenario())


def refused(request, method="ModelInfer"):
    async def scenario():
        async with GrpcWorld().up() as world:
            return await failure_of(getattr(world.inference, method)(request))

    return run(scenario())


ROWS = np.array([[7.0], [2.0]])


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "tensors",
    [
        {"features": ROWS},
        {"features": ROWS.astype(np.float32)},
        {"features": ROWS.astype(np.float16)},
        {"features": ROWS.astype(np.int32)},
        {"X": ROWS},
        {"x": ROWS[:, 0]},
        {"x": ROWS.astype(np.int64)},
        {"id": np.array(["a", "b"]), "x": ROWS[:, 0]},
    ],
    ids=[
        "features",
        "of 32 bits",
        "of 16 bits",
        "whole",
        "by the input's name",
        "by field",
        "by field, a column",
        "with its id",
    ],
)
def test_rows_come_as_one_tensor_or_by_field_and_go_in_the_form_they_came(tensors, raw):
    raw = raw or "float16" in {str(tensor.dtype) for tensor in tensors.values()}  # there is no other way for these
    response = answered(infer_request(raw=raw, **tensors))
    assert (response.model_name, response.model_version, response.id) == ("churn", "7", "call-1")
    assert bool(response.raw_output_contents) is raw
    outputs = arrays_of(response)
    assert list(outputs) == ["prediction", "probabilities", "confidence"]
    assert outputs["prediction"].tolist() == [1, 0]
    np.testing.assert_allclose(outputs["probabilities"], [[0.3, 0.7], [0.8, 0.2]], atol=1e-6)
    np.testing.assert_allclose(outputs["confidence"], [0.7, 0.8], atol=1e-6)


def test_only_the_outputs_that_are_asked_for_are_given_and_in_that_order():
    response = answered(infer_request(wanted=["confidence", "prediction"], features=ROWS))
    assert [tensor.name for tensor in response.outputs] == ["confidence", "prediction"]


def test_outputs_are_what_the_metadata_says():
    async def scenario():
        async with GrpcWorld().up() as world:
            metadata = await world.inference.ModelMetadata(v2.ModelMetadataRequest(name="churn"))
            return metadata, await world.inference.ModelInfer(infer_request(features=ROWS))

    metadata, response = run(scenario())
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("churn", ["7"], "onnx_onnxruntime")
    assert (metadata.inputs[0].name, list(metadata.inputs[0].shape)) == ("features", [-1, 1])
    assert [(tensor.name, tensor.datatype) for tensor in metadata.outputs] == [
        (name, datatype_of(array)) for name, array in arrays_of(response).items()
    ]


def test_keys_of_rows_a_key_of_all_and_the_calls_own_choose_the_version():
    page = canary_page("7", "8", percent=50.0)
    keys = [f"customer-{at}" for at in range(20)]
    chosen = [("7", "8")[arm] for arm in page.choose([key.encode() for key in keys])]
    ninth = model_of("8", lambda tensors: {"P": np.repeat([[0.25, 0.75]], len(tensors["X"]), axis=0)})

    async def scenario():
        async with GrpcWorld(model_of("7"), ninth, page=page).up() as world:
            infer = world.inference.ModelInfer
            together = await infer(infer_request(features=np.ones((20, 1)), key=np.array(keys)))
            by_parameter = [
                await infer(infer_request(features=ROWS, parameters={"key": v2.InferParameter(string_param=key)}))
                for key in keys
            ]
            by_metadata = [await infer(infer_request(features=ROWS), metadata=[("inference-key", key)]) for key in keys]
            return together, by_parameter, by_metadata

    together, by_parameter, by_metadata = run(scenario())
    assert together.model_version in {"7,8", "8,7"}
    probabilities = arrays_of(together)["probabilities"][:, 1].round(3).tolist()
    assert probabilities == [0.75 if version == "8" else 0.1 for version in chosen]
    assert [response.model_version for response in by_parameter] == chosen
    assert [response.model_version for response in by_metadata] == chosen


def test_a_version_that_is_asked_for_answers_whatever_the_rollout_says():
    page = canary_page("7", "8", percent=1.0)
    response = answered(infer_request(version="8", features=ROWS), model_of("7"), model_of("8"), page=page)
    assert response.model_version == "8"


@pytest.mark.parametrize(
    ("request_message", "code", "message"),
    [
        (infer_request(model="chrun", features=ROWS), StatusCode.NOT_FOUND, "no model 'chrun', there are churn"),
        (infer_request(version="9", features=ROWS), StatusCode.NOT_FOUND, "version '9' is not answering; answering: 7"),
        (v2.ModelInferRequest(model_name="churn"), StatusCode.INVALID_ARGUMENT, "inputs: there are none"),
        (infer_request(features=ROWS * 2), StatusCode.INVALID_ARGUMENT,
         "instances[0]: x is 14, allowed 0 to 10 (1 of 2 rows are rejected)"),
        (infer_request(features=np.array([[SICK]])), StatusCode.INTERNAL, "answered P="),
        (infer_request(features=np.ones((2, 3))), StatusCode.INVALID_ARGUMENT, "features has length 3, allowed 1: x"),
        (infer_request(features=np.array(["a"])), StatusCode.INVALID_ARGUMENT, "features"),
        (infer_request(y=ROWS), StatusCode.INVALID_ARGUMENT, "y is no input"),
        (infer_request(x=np.array(["a"])), StatusCode.INVALID_ARGUMENT, "x is 'a', expected a number"),
        (infer_request(x=ROWS[:, 0], id=np.array(["a"])), StatusCode.INVALID_ARGUMENT, "rows"),
        (infer_request(features=ROWS, key=np.array([1, 2])), StatusCode.INVALID_ARGUMENT, "key"),
        (infer_request(features=ROWS, key=np.array([b"\xff", b"a"], object)), StatusCode.INVALID_ARGUMENT,
         "key: an element is not UTF-8"),
        (infer_request(key=np.array(["a"])), StatusCode.INVALID_ARGUMENT, "'features'"),
        (infer_request(features=ROWS, parameters={"key": v2.InferParameter(int64_param=7)}),
         StatusCode.INVALID_ARGUMENT, "parameters: key has to be a string_param"),
        (infer_request(features=ROWS, wanted=["logits"]), StatusCode.INVALID_ARGUMENT,
         "outputs: 'logits' is none of prediction, probabilities, confidence"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_and_named(request_message, code, message):
    failure = refused(request_message)
    assert failure.code() is code
    assert message in failure.details()


def test_a_decimal_of_32_bits_at_a_bound_is_within_it():
    """0.1 as a float32 is above 0.1: a client that sends FP32 must not be rejected for that."""
    inputs = (INPUTS[0].model_copy(update={"features": (INPUTS[0].features[0].model_copy(update={"max": 0.1}),)}),)
    response = answered(infer_request(features=np.array([[0.1]], np.float32)), model_of("7", inputs=inputs))
    assert arrays_of(response)["prediction"].tolist() == [0]


METHODS = ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"]


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message_are_an_invalid_argument(method):
    async def scenario():
        async with GrpcWorld().up() as world:
            return await failure_of(world.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\xff"))

    failure = run(scenario())
    assert failure.code() is StatusCode.INVALID_ARGUMENT
    assert failure.details() == f"the request is not a inference.{method}Request"


def test_the_server_and_its_models_are_ready_until_they_are_not():
    async def scenario():
        async with GrpcWorld(gate=OneKey()).up() as world:
            stub = world.inference

            async def ready(name="churn", version=""):
                return (await stub.ModelReady(v2.ModelReadyRequest(name=name, version=version))).ready

            live = (await stub.ServerLive(v2.ServerLiveRequest())).live
            before = (await stub.ServerReady(v2.ServerReadyRequest())).ready
            models = [await ready(), await ready(version="7"), await ready(version="8"), await ready(name="digits")]
            await world.core.drain(0)
            return live, before, models, (await stub.ServerReady(v2.ServerReadyRequest())).ready, await ready()

    assert run(scenario()) == (True, True, [True, True, False, False], False, False)


def test_the_server_says_who_it_is():
    async def scenario():
        async with GrpcWorld().up() as world:
            return await world.inference.ServerMetadata(v2.ServerMetadataRequest())

    assert run(scenario()).name == "kafka-inference-worker"


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [("nobody", "", StatusCode.NOT_FOUND), ("churn", "9", StatusCode.NOT_FOUND), ("", "", StatusCode.NOT_FOUND)],
)
def test_metadata_of_what_is_not_there_is_not_found(name, version, code):
    assert refused(v2.ModelMetadataRequest(name=name, version=version), "ModelMetadata").code() is code


ANY_TENSOR = st.tuples(
    st.sampled_from(["features", "X", "x", "id", "key", "", "y"]),
    st.tuples(
        st.sampled_from([*NUMBERS.values()]) | st.just("O"),
        st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    ).flatmap(
        lambda kind: (
            arrays.arrays(object, kind[1], elements=st.binary(max_size=3), fill=st.nothing())
            if kind[0] == "O"
            else arrays.arrays(*kind)
        )
    ),
)


@given(st.lists(ANY_TENSOR, min_size=1, max_size=3, unique_by=lambda pair: pair[0]), st.sampled_from(["", "7", "8"]))
def test_whatever_tensors_come_are_answered_or_refused_by_name(tensors, version):
    request = infer_request(raw=True, version=version, **dict(tensors))

    async def scenario():
        core = OnlineWorld().core
        service = InferenceService({"churn": core}, asyncio.Event())
        return await service.model_infer(request.SerializeToString(), Call(None, math.inf, 10.0, []))

    with suppress(RequestRefused, ModelFailed):
        response = v2.ModelInferResponse.FromString(run(scenario()))
        assert {tensor.shape[0] for tensor in response.outputs} == {len(tensors[0][1])}
