"""The gRPC server: who gets in, by when, how much, and how it ends."""

import asyncio
import contextlib
import errno
import socket

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_world import GrpcWorld, OneKey, failure_of
from online_world import rounds, run

from app.errors import BadSettings
from app.grpc_api import prediction_pb2 as messages
from app.serving.admission import OpenBytes
from app.serving.grpc_server import GrpcPolicy, GrpcTls

ROW = messages.PredictRequest(features=[7.0])
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


# ------------------------------------------------------------------------------------------------ who


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ([], StatusCode.UNAUTHENTICATED),
        ([("x-api-key", "guess")], StatusCode.UNAUTHENTICATED),
        ([("authorization", "Bearer of-a-reader")], StatusCode.PERMISSION_DENIED),
    ],
)
@pytest.mark.parametrize("method", ["Predict", "BatchPredict", "PredictStream"])
def test_without_a_key_nothing_is_predicted(method, metadata, code):
    async def scenario():
        async with GrpcWorld(gate=OneKey()).up() as world:
            if method == "PredictStream":
                call = world.prediction.PredictStream(iter([]), metadata=metadata)
                return await failure_of(anext(aiter(call))), world.calls_seen.ended
            requests = {"Predict": ROW, "BatchPredict": messages.BatchPredictRequest(instances=[ROW])}
            return await failure_of(getattr(world.prediction, method)(requests[method], metadata=metadata)), (
                world.calls_seen.ended
            )

    failure, seen = run(scenario())
    assert failure.code() is code
    assert seen == [(method, code.name)]


def test_with_the_key_it_is():
    async def scenario():
        async with GrpcWorld(gate=OneKey()).up() as world:
            return await world.prediction.Predict(ROW, metadata=[("x-api-key", "sesame")])

    assert run(scenario()).prediction == 1


# ------------------------------------------------------------------------------------------- certificates


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def files_of(folder, authority, *, client_ca=False, password=None):
    cert = authority.issue_cert("localhost")
    key = cert.private_key_pem.bytes()
    if password is not None:
        private = serialization.load_pem_private_key(key, None)
        secret = serialization.BestAvailableEncryption(password.encode())
        key = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    (folder / "key.pem").write_bytes(key)
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return GrpcTls(folder / "cert.pem", folder / "key.pem", folder / "ca.pem" if client_ca else None, password)


def predicted_over(tls, credentials):
    async def scenario():
        async with GrpcWorld(policy=GrpcPolicy(port=0, tls=tls)).up(credentials) as world:
            return await world.prediction.Predict(ROW, timeout=5)

    return run(scenario())


@pytest.mark.parametrize("password", [None, "secret of the key"])
def test_a_client_that_trusts_the_authority_gets_in(tmp_path, authority, password):
    tls = files_of(tmp_path, authority, password=password)
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    assert predicted_over(tls, credentials).prediction == 1


def test_with_client_authorities_only_a_client_with_a_certificate_gets_in(tmp_path, authority):
    tls = files_of(tmp_path, authority, client_ca=True)
    client = authority.issue_cert("client")
    chain, key = client.cert_chain_pems[0].bytes(), client.private_key_pem.bytes()
    root = authority.cert_pem.bytes()
    assert predicted_over(tls, grpc.ssl_channel_credentials(root, key, chain)).prediction == 1
    stranger = trustme.CA().issue_cert("client")
    for pair in ((None, None), (stranger.private_key_pem.bytes(), stranger.cert_chain_pems[0].bytes())):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            predicted_over(tls, grpc.ssl_channel_credentials(root, *pair))
        assert failed.value.code() is StatusCode.UNAVAILABLE


def test_files_that_are_no_certificate_and_its_key_are_named_before_anything_listens(tmp_path, authority):
    tls = files_of(tmp_path, authority, client_ca=True, password="right")
    (tmp_path / "junk.pem").write_text("-----BEGIN CERTIFICATE-----\njunk\n")
    junk, gone = tmp_path / "junk.pem", tmp_path / "gone.pem"
    wrong = [
        GrpcTls(junk, tls.key_file),
        GrpcTls(tls.cert_file, junk),
        GrpcTls(tls.cert_file, gone),
        GrpcTls(tls.cert_file, tls.key_file, junk, "right"),
        GrpcTls(tls.cert_file, tls.key_file, None, "wrong"),
        GrpcTls(tls.cert_file, tls.key_file),
    ]
    for each in wrong:
        with pytest.raises(BadSettings, match=r"no certificate, its key and authorities: .*\.pem"):
            predicted_over(each, None)


# ------------------------------------------------------------------------------------ by when, and how much


def test_a_call_whose_time_is_over_leaves_before_it_is_scored():
    async def scenario():
        world = GrpcWorld(max_wait_s=3600.0)
        async with world.up():
            with world.core.coming():  # somebody is on the way: what comes waits
                failure = await failure_of(world.prediction.Predict(ROW, timeout=0.2))
                await asyncio.sleep(0.05)
            await world.prediction.Predict(ROW)
            return failure, world.online.sizes

    failure, sizes = run(scenario())
    assert failure.code() is StatusCode.DEADLINE_EXCEEDED
    assert sizes == [1]


def test_a_call_that_is_cancelled_leaves_before_it_is_scored():
    async def scenario():
        world = GrpcWorld(max_wait_s=3600.0)
        async with world.up():
            with world.core.coming():
                call = world.prediction.Predict(ROW)
                while not world.core._batcher.records:
                    await asyncio.sleep(0.005)
                call.cancel()
                while ("Predict", "CANCELLED") not in world.calls_seen.ended:
                    await asyncio.sleep(0.005)
            await rounds()
            await world.prediction.Predict(ROW)
            return world.online.sizes

    assert run(scenario()) == [1]


def test_when_too_much_waits_a_call_is_told_when_to_come_back():
    async def scenario():
        world = GrpcWorld(max_wait_s=3600.0, most_waiting_rows=1)
        async with world.up():
            with world.core.coming():
                first = asyncio.ensure_future(world.prediction.Predict(ROW))
                while not world.core._batcher.records:
                    await asyncio.sleep(0.005)
                failure = await failure_of(world.prediction.Predict(ROW))
            return failure, await first

    failure, first = run(scenario())
    assert failure.code() is StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(failure.trailing_metadata())
    assert (trailing["grpc-retry-pushback-ms"], trailing["retry-after"]) == ("50", "0.05")
    assert first.prediction == 1


def test_more_calls_at_a_time_than_are_taken_are_refused():
    async def scenario():
        world = GrpcWorld(calls={"most": 2}, max_wait_s=3600.0)
        async with world.up():
            with world.core.coming():
                calls = {asyncio.ensure_future(failure_of(world.prediction.Predict(ROW))) for _ in range(5)}
                refused = set()
                while len(refused) < 3:
                    refused, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
            for call in calls - refused:
                call.cancel()
            return [call.result().code() for call in refused]

    codes = run(scenario())
    assert codes == [StatusCode.RESOURCE_EXHAUSTED] * 3


def test_a_call_whose_message_never_comes_is_ended():
    async def scenario():
        async with GrpcWorld(receive_s=0.05).up() as world:
            call = world.channel.stream_unary("/prediction.PredictionService/Predict")()  # its head, and no more
            return await failure_of(call)

    failure = run(scenario())
    assert failure.code() is StatusCode.DEADLINE_EXCEEDED
    assert failure.details() == "the request did not come within 0.05 s"


def test_a_call_without_a_message_is_refused():
    async def scenario():
        async with GrpcWorld().up() as world:
            return await failure_of(world.channel.stream_unary("/prediction.PredictionService/Predict")(iter([])))

    assert run(scenario()).details() == "the call has no request"


def test_a_message_that_is_too_large_is_refused_and_the_server_goes_on():
    async def scenario():
        async with GrpcWorld(policy=GrpcPolicy(port=0, max_message_bytes=1000)).up() as world:
            failure = await failure_of(world.prediction.Predict(messages.PredictRequest(features=[0.0] * 1000)))
            return failure, await world.prediction.Predict(ROW)

    failure, answer = run(scenario())
    assert failure.code() is StatusCode.RESOURCE_EXHAUSTED
    assert answer.prediction == 1


def test_nothing_is_answered_while_no_version_is_ready():
    async def scenario():
        async with GrpcWorld().up() as world:
            await world.core.drain(0)
            return await failure_of(world.prediction.Predict(ROW))

    assert run(scenario()).code() is StatusCode.UNAVAILABLE


def test_a_port_that_is_taken_is_a_bad_setting():
    async def scenario():
        async with GrpcWorld().up() as world, GrpcWorld(policy=GrpcPolicy(port=world.server.port)).up():
            pass

    with pytest.raises(BadSettings, match="grpc: cannot listen on 127"):
        run(scenario())


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host", "::ffff:203.0.113.1"])
def test_an_address_that_is_not_ours_is_a_bad_setting_before_anything_listens(host):
    async def scenario():
        GrpcWorld(policy=GrpcPolicy(host=host, port=0)).make().reserve()

    with pytest.raises(BadSettings, match="grpc: cannot listen on "):
        run(scenario())


def is_refused(port):
    with contextlib.closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_reserved_address_refuses_connections_until_the_server_starts(host):
    async def scenario():
        world = GrpcWorld(policy=GrpcPolicy(host=host, port=0))
        world.make().reserve()
        reserved, refused = world.server.port, is_refused(world.server.port)
        async with world.up():
            answer = await world.prediction.Predict(ROW, timeout=5)
            return refused, (reserved, world.server.port), answer.prediction

    refused, (reserved, port), prediction = run(scenario())
    assert refused
    assert reserved == port > 0
    assert prediction == 1


def test_a_server_that_ends_before_it_has_started_gives_its_address_back():
    async def scenario():
        first = GrpcWorld()
        first.make().reserve()
        await first.server.drain(5)
        async with GrpcWorld(policy=GrpcPolicy(port=first.server.port)).up() as world:
            return await world.prediction.Predict(ROW, timeout=5)

    assert run(scenario()).prediction == 1


def test_a_reserved_address_that_another_one_listens_on_by_then_is_a_bad_setting():
    async def scenario():
        late = GrpcWorld()
        late.make().reserve()
        async with GrpcWorld(policy=GrpcPolicy(port=late.server.port)).up():
            await late.server.start()

    with pytest.raises(BadSettings, match="grpc: cannot listen on 127"):
        run(scenario())


# -------------------------------------------------------------------------------- health, reflection, the end


def health_of(world, service=""):
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(world.channel).Check(request)


def test_health_is_the_cores_and_needs_no_key():
    async def scenario():
        async with GrpcWorld(gate=OneKey()).up() as world:
            services = ("", "prediction.PredictionService", "inference.GRPCInferenceService")
            before = [(await health_of(world, service)).status for service in services]
            unknown = await failure_of(health_of(world, "prediction.Nobody"))
            await world.core.drain(0)
            return before, unknown, (await health_of(world)).status

    before, unknown, after = run(scenario())
    assert before == [SERVING] * 3
    assert unknown.code() is StatusCode.NOT_FOUND
    assert after == NOT_SERVING


def test_whoever_watches_health_hears_that_the_server_ends_and_does_not_keep_it_from_that():
    async def scenario():
        async with GrpcWorld().up() as world:
            watch = health_pb2_grpc.HealthStub(world.channel).Watch(health_pb2.HealthCheckRequest())
            first = await watch.read()
            async with asyncio.timeout(5):
                await world.server.drain(3600)
            return first.status, (await watch.read()).status, await watch.code()

    assert run(scenario()) == (SERVING, NOT_SERVING, StatusCode.OK)


def test_an_unknown_service_is_watched_as_unknown():
    async def scenario():
        async with GrpcWorld().up() as world:
            watch = health_pb2_grpc.HealthStub(world.channel).Watch(health_pb2.HealthCheckRequest(service="x"))
            return (await watch.read()).status

    assert run(scenario()) == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def test_reflection_tells_the_services():
    async def scenario():
        async with GrpcWorld().up() as world:
            stub = reflection_pb2_grpc.ServerReflectionStub(world.channel)
            call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            return [service.name async for each in call for service in each.list_services_response.service]

    assert run(scenario()) == [
        "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService", "prediction.PredictionService",
    ]  # fmt: skip


def test_reflection_can_be_off():
    async def scenario():
        async with GrpcWorld(policy=GrpcPolicy(port=0, reflection=False)).up() as world:
            call = world.channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            return await failure_of(call(b""))

    assert run(scenario()).code() is StatusCode.UNIMPLEMENTED


def test_a_call_that_is_being_answered_when_the_server_ends_gets_its_answer():
    async def scenario():
        world = GrpcWorld(max_wait_s=3600.0)
        async with world.up():
            with world.core.coming():
                call = asyncio.ensure_future(world.prediction.Predict(ROW))
                while not world.core._batcher.records:
                    await asyncio.sleep(0.005)
                drained = asyncio.ensure_future(world.server.drain(20))
                await rounds()
                await world.core.drain(20)
            return await call, await drained

    answer, _ = run(scenario())
    assert answer.prediction == 1


async def watching(channel):
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    await call.read()
    return call


def test_who_may_not_call_takes_no_place_of_those_who_may():
    async def scenario():
        world = GrpcWorld(gate=OneKey(), calls={"most": 3})
        async with world.up(), grpc.aio.insecure_channel(f"localhost:{world.server.port}") as stranger:
            held = [await watching(stranger) for _ in range(3)]
            reflection = reflection_pb2_grpc.ServerReflectionStub(stranger)
            held += [reflection.ServerReflectionInfo() for _ in range(20)]
            too_many = await failure_of(watching(stranger))
            check = await health_pb2_grpc.HealthStub(stranger).Check(health_pb2.HealthCheckRequest(), timeout=5)
            key = [("x-api-key", "sesame")]
            answer = await world.prediction.Predict(ROW, metadata=key, timeout=5)
            for call in held:
                call.cancel()
            return too_many, check, answer

    too_many, check, answer = run(scenario())
    assert too_many.code() is StatusCode.RESOURCE_EXHAUSTED
    assert too_many.details() == "more than 3 public streams at the same time"
    assert check.status == check.SERVING
    assert answer.prediction == 1


def test_where_there_are_keys_only_who_has_one_is_told_which_services_there_are():
    async def scenario():
        world = GrpcWorld(gate=OneKey())
        async with world.up():
            ask = reflection_pb2_grpc.ServerReflectionStub(world.channel).ServerReflectionInfo
            names = reflection_pb2.ServerReflectionRequest(list_services="")
            refused = ask(iter([names]))
            told = ask(iter([names]), metadata=[("x-api-key", "sesame")])
            return await failure_of(refused.read()), (await told.read()).list_services_response.service

    failure, services = run(scenario())
    assert failure.code() is StatusCode.UNAUTHENTICATED
    assert "prediction.PredictionService" in {service.name for service in services}


def test_a_stream_that_brings_nothing_for_long_is_ended():
    async def scenario():
        async with GrpcWorld(calls={"idle_s": 1.0, "most": 1}).up() as world:
            stream = world.prediction.PredictStream()
            await stream.write(messages.StreamedPredictRequest(features=[7]))
            assert (await stream.read()).prediction == 1
            failure = await failure_of(stream.read())
            return failure, await world.prediction.Predict(ROW, timeout=5)

    failure, answer = run(scenario())
    assert (failure.code(), failure.details()) == (StatusCode.DEADLINE_EXCEEDED, "nothing came for 1 s")
    assert answer.prediction == 1


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
def test_messages_that_hold_too_much_together_are_told_to_come_back(method):
    def asked(world):
        if method == "Predict":
            return world.prediction.Predict(ROW)
        return anext(aiter(world.prediction.PredictStream(iter([messages.StreamedPredictRequest(features=[7])]))))

    async def scenario():
        world = GrpcWorld(calls={"held": OpenBytes(4)}, max_wait_s=3600.0)
        async with world.up():
            with world.core.coming():
                first = asyncio.ensure_future(world.prediction.Predict(ROW, timeout=5))
                while not world.core._batcher.records:
                    await asyncio.sleep(0.005)
                failure = await failure_of(asked(world))
            return failure, await first

    failure, first = run(scenario())
    assert failure.code() is StatusCode.RESOURCE_EXHAUSTED
    assert first.prediction == 1
