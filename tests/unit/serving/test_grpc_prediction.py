"""`prediction.PredictionService`, as a client sees it over a real connection."""

import asyncio
import dataclasses

import grpc
import numpy as np
import pytest
import small_pipeline
from grpc import StatusCode
from grpc_world import GrpcWorld, OneKey, failure_of
from made_pages import canary_page
from online_world import run
from small_pipeline import PREDICTION_HEADER, SICK, model_of, schema

from app.avro.datum_writer import DatumWriter
from app.errors import ModelFailed
from app.grpc_api import prediction_pb2 as messages
from app.serving.grpc_calls import CallFailed
from app.serving.grpc_prediction import classes_of
from app.serving.grpc_server import GrpcPolicy
from app.specs import ProbabilitiesOutput, ValueOutput


def one(*features):
    return messages.PredictRequest(features=features)


def batch(*rows):
    return messages.BatchPredictRequest(instances=[one(*row) for row in rows])


def streamed(*features, key=None):
    return messages.StreamedPredictRequest(features=features, key=key)


async def all_of(stream):
    return [answer async for answer in stream]


async def trailing(call):
    return dict(await call.trailing_metadata())


def test_a_row_gets_its_class_its_probabilities_and_its_version():
    async def scenario():
        async with GrpcWorld().up() as world:
            call = world.prediction.Predict(one(7.0), metadata=[("x-request-id", "abc-1")])
            return await call, await trailing(call)

    answer, metadata = run(scenario())
    assert (answer.prediction, answer.model_version) == (1, "7")
    np.testing.assert_allclose(answer.probabilities, [0.3, 0.7], atol=1e-6)
    assert metadata["x-request-id"] == "abc-1"
    assert metadata["inference-model-version"] == "7"
    assert metadata["inference-answered-by"] == "stable"
    assert metadata["inference-rollout-revision"] == "1"


def test_a_request_without_an_id_gets_one_and_an_unprintable_one_is_not_echoed():
    async def scenario():
        async with GrpcWorld().up() as world:
            calls = [
                world.prediction.Predict(one(7.0), metadata=metadata)
                for metadata in ((), [("x-request-id", "x" * 200)], [("x-request-id", "two words")])
            ]
            await asyncio.gather(*calls)
            return [(await trailing(call))["x-request-id"] for call in calls]

    assert all(len(request_id) == 32 for request_id in run(scenario()))


def test_rows_are_answered_in_their_order():
    async def scenario():
        async with GrpcWorld().up() as world:
            return await world.prediction.BatchPredict(batch([7.0], [2.0], [10.0]))

    answer = run(scenario())
    assert list(answer.predictions) == [1, 0, 1]
    assert [round(row.values[1], 6) for row in answer.probabilities] == [0.7, 0.2, 1.0]


@pytest.mark.parametrize(
    ("request_message", "message"),
    [
        (one(11.0), "x is 11, allowed 0 to 10"),
        (one(float("nan")), "x is missing"),
        (one(float("inf")), "x is inf, allowed are finite numbers"),
        (one(), "features has length 0, allowed 1: x"),
        (one(1.0, 2.0), "features has length 2, allowed 1: x"),
        (one(*[0.0] * 10_000), "features has length 10000, allowed 1: x"),
    ],
)
def test_a_row_that_cannot_be_predicted_is_an_invalid_argument_that_names_the_field(request_message, message):
    async def scenario():
        async with GrpcWorld().up() as world:
            return await failure_of(world.prediction.Predict(request_message))

    failure = run(scenario())
    assert failure.code() is StatusCode.INVALID_ARGUMENT
    assert failure.details() == message


def test_a_batch_with_a_bad_row_names_it():
    async def scenario():
        async with GrpcWorld().up() as world:
            return await failure_of(world.prediction.BatchPredict(batch([1.0], [-1.0], [12.0])))

    failure = run(scenario())
    assert failure.code() is StatusCode.INVALID_ARGUMENT
    assert failure.details() == "instances[1]: x is -1, allowed 0 to 10 (2 of 3 rows are rejected)"


@pytest.mark.parametrize("method", ["Predict", "BatchPredict", "HealthCheck"])
def test_bytes_that_are_no_message_are_an_invalid_argument(method):
    async def scenario():
        async with GrpcWorld().up() as world:
            call = world.channel.unary_unary(f"/prediction.PredictionService/{method}")
            return await failure_of(call(b"\xff\xff\xff"))

    failure = run(scenario())
    assert failure.code() is StatusCode.INVALID_ARGUMENT
    assert "the request is not a prediction." in failure.details()


def test_a_row_that_the_model_fails_on_is_not_the_callers_fault():
    async def scenario():
        async with GrpcWorld().up() as world:
            return await failure_of(world.prediction.Predict(one(SICK)))

    assert run(scenario()).code() is StatusCode.INTERNAL


def test_a_model_at_fault_is_internal():
    broken = model_of("7")
    broken.at_fault = True

    def fails(_tensors):
        raise ModelFailed("it broke")

    broken.answer = fails

    async def scenario():
        async with GrpcWorld(broken).up() as world:
            return await failure_of(world.prediction.Predict(one(1.0)))

    assert run(scenario()).code() is StatusCode.INTERNAL


def test_an_error_of_our_own_fails_its_call_alone_and_tells_nothing(logs_as_they_were):
    def fails(_tensors):
        raise ZeroDivisionError("a secret")

    async def scenario():
        async with GrpcWorld(model_of("7", fails)).up() as world:
            failure = await failure_of(world.prediction.Predict(one(1.0)))
            return failure, await world.prediction.HealthCheck(messages.HealthRequest())

    failure, health = run(scenario())
    assert (failure.code(), failure.details()) == (StatusCode.INTERNAL, "internal error")
    assert health.status == "ok"


def test_the_key_decides_which_version_answers_whatever_the_way_it_comes():
    page = canary_page("7", "8", percent=50.0)
    keys = [f"customer-{at}" for at in range(20)]
    chosen = page.choose([key.encode() for key in keys])

    async def scenario():
        async with GrpcWorld(model_of("7"), model_of("8"), page=page).up() as world:
            by_text = [await world.prediction.Predict(one(1.0), metadata=[("inference-key", key)]) for key in keys]
            by_bytes = [
                await world.prediction.Predict(one(1.0), metadata=[("inference-key-bin", key.encode())]) for key in keys
            ]
            stream = world.prediction.PredictStream(streamed(1.0, key=key) for key in keys)
            by_stream = [answer async for answer in stream]
            without = await world.prediction.Predict(one(1.0))
            return [[answer.model_version for answer in answers] for answers in (by_text, by_bytes, by_stream)], without

    versions, without = run(scenario())
    assert versions == [[("7", "8")[arm] for arm in chosen]] * 3
    assert without.model_version == "7"


def test_rows_of_two_versions_in_one_batch_each_say_their_own():
    page = canary_page("7", "8", percent=50.0)
    keys = [f"customer-{at}" for at in range(20)]
    chosen = page.choose([key.encode() for key in keys])

    async def scenario():
        async with GrpcWorld(model_of("7"), model_of("8"), page=page, max_wait_s=3600.0).up() as world:
            with world.core.coming():  # somebody is on the way: what comes waits, and leaves together
                calls = [world.prediction.Predict(one(1.0), metadata=[("inference-key", key)]) for key in keys]
                stream = world.prediction.PredictStream(streamed(1.0, key=key) for key in keys)
                answers = asyncio.gather(*calls), asyncio.create_task(all_of(stream))
                while len(world.core._batcher.records) < 2 * len(keys):
                    await asyncio.sleep(0.005)
            found = [[answer.model_version for answer in await each] for each in answers]
            return found, world.online.sizes

    versions, sizes = run(scenario())
    assert versions == [[("7", "8")[arm] for arm in chosen]] * 2
    assert sizes == [2 * len(keys)]


def test_a_binary_key_that_is_no_text_is_refused():
    async def scenario():
        async with GrpcWorld().up() as world:
            return await failure_of(world.prediction.Predict(one(1.0), metadata=[("inference-key-bin", b"\xff")]))

    assert run(scenario()).details() == "inference-key-bin is not UTF-8"


def test_calls_at_the_same_time_share_batches():
    async def scenario():
        async with GrpcWorld().up() as world:
            answers = await asyncio.gather(*(world.prediction.Predict(one(at % 9)) for at in range(200)))
            return world.online.sizes, [answer.probabilities[1] for answer in answers]

    sizes, probabilities = run(scenario())
    assert sum(sizes) == 200
    assert len(sizes) < 200
    np.testing.assert_allclose(probabilities, [at % 9 / 10 for at in range(200)], atol=1e-6)


def test_health_says_whether_a_model_is_loaded_without_a_key():
    async def scenario():
        async with GrpcWorld(gate=OneKey()).up() as world:
            before = await world.prediction.HealthCheck(messages.HealthRequest())
            await world.core.drain(0)
            return before, await world.prediction.HealthCheck(messages.HealthRequest())

    before, after = run(scenario())
    assert (before.status, before.model_loaded) == ("ok", True)
    assert (after.status, after.model_loaded) == ("no model is loaded", False)


# ------------------------------------------------------------------------------------------------ streams


def test_a_stream_is_answered_in_order_and_a_bad_row_ends_nothing():
    async def scenario():
        async with GrpcWorld().up() as world:
            stream = world.prediction.PredictStream(streamed(x) for x in (7.0, 11.0, 2.0, float("nan")))
            return [answer async for answer in stream], world.online.sizes

    answers, sizes = run(scenario())
    assert [(answer.prediction, answer.rejected.reason) for answer in answers] == [
        (1, ""), (0, "out_of_range"), (0, ""), (0, "missing_value")
    ]  # fmt: skip
    assert answers[1].rejected.message == "x is 11, allowed 0 to 10"
    assert not answers[0].HasField("rejected")
    assert sum(sizes) == 4


def test_a_client_that_knows_only_the_plain_messages_can_stream():
    async def scenario():
        async with GrpcWorld().up() as world:
            call = world.channel.stream_stream(
                "/prediction.PredictionService/PredictStream",
                messages.PredictRequest.SerializeToString,
                messages.PredictResponse.FromString,
            )
            return [answer async for answer in call(iter([one(7.0), one(2.0)]))]

    assert [(answer.prediction, answer.model_version) for answer in run(scenario())] == [(1, "7"), (0, "7")]


def test_a_long_stream_is_read_no_faster_than_it_is_answered():
    async def scenario():
        async with GrpcWorld(most_waiting_rows=300).up() as world:
            stream = world.prediction.PredictStream(streamed(at % 9) for at in range(1500))
            return [answer.probabilities[1] async for answer in stream]

    np.testing.assert_allclose(run(scenario()), [at % 9 / 10 for at in range(1500)], atol=1e-6)


def test_a_message_that_is_none_ends_the_stream_after_the_answers_before_it():
    async def scenario():
        async with GrpcWorld().up() as world:
            call = world.channel.stream_stream(
                "/prediction.PredictionService/PredictStream",
                response_deserializer=messages.StreamedPredictResponse.FromString,
            )(iter([streamed(7.0).SerializeToString(), b"\xff"]))
            return await call.read(), await failure_of(call.read())

    answer, failure = run(scenario())
    assert answer.prediction == 1
    assert failure.code() is StatusCode.INVALID_ARGUMENT


def test_a_stream_that_waits_for_its_client_does_not_keep_the_server_from_ending():
    async def scenario():
        async with GrpcWorld().up() as world:
            stream = world.prediction.PredictStream()
            await stream.write(streamed(7.0))
            answer = await stream.read()
            async with asyncio.timeout(5):
                await world.server.drain(3600)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await stream.read()
            return answer, failed.value.code()

    answer, code = run(scenario())
    assert answer.prediction == 1
    assert code is StatusCode.UNAVAILABLE


# ------------------------------------------------------------------------- models that are not like the others


TEXT = ProbabilitiesOutput(name="P", classes=("no", "maybe", "yes"), fields={"answer": "class"})


def test_classes_that_are_text_are_given_as_their_index():
    assert classes_of(np.array(["yes", "no"]), (TEXT,)).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        (np.array([0.5]), (ValueOutput(name="V"),)),
        (np.array([2**31]), ()),
        (np.array([-(2**31) - 1]), ()),
        (np.array(["of another version"]), (TEXT,)),
        (np.array(["yes"]), ()),
    ],
    ids=["a value", "too large", "too small", "unknown", "no classes"],
)
def test_what_is_no_class_of_32_bits_is_refused_and_the_message_says_what_to_call(labels, outputs):
    with pytest.raises(CallFailed, match="call ModelInfer") as failed:
        classes_of(labels, outputs)
    assert failed.value.code is StatusCode.FAILED_PRECONDITION


@pytest.fixture
def texts(monkeypatch):
    """A model whose classes are text."""
    named = schema("Prediction", ("id", "string"), ("label", "string"), ("p", "double"))
    monkeypatch.setattr(small_pipeline, "WRITER", DatumWriter(small_pipeline.FRAMING, PREDICTION_HEADER, named))
    fields = {"label": "class", "p": "probability"}
    output = ProbabilitiesOutput(name="P", classes=("no", "yes"), threshold=0.5, fields=fields)
    return dataclasses.replace(model_of("7"), outputs=(output,))


def test_a_bad_row_beside_classes_that_are_text_is_named_as_any_other(texts):
    async def scenario():
        async with GrpcWorld(texts).up() as world:
            good = await world.prediction.BatchPredict(batch([2.0], [7.0]))
            return good, await failure_of(world.prediction.BatchPredict(batch([2.0], [80.0])))

    good, failure = run(scenario())
    assert list(good.predictions) == [0, 1]
    assert failure.code() is StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("instances[1]: x is 80, allowed 0 to 10")


def test_more_rows_than_one_call_may_have_are_refused():
    async def scenario():
        async with GrpcWorld(most_request_rows=3, policy=GrpcPolicy(port=0)).up() as world:
            return await failure_of(world.prediction.BatchPredict(batch(*[[1.0]] * 4)))

    assert run(scenario()).details() == "instances: 4 of them, allowed 3 in one call"
