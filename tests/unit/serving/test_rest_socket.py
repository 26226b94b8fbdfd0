"""`/ws/predict`: single events in a stream, answered in their order."""

import asyncio
import json
from threading import Event

import pytest
import websockets
from fakes import ManualClock
from rest_world import RestWorld
from small_pipeline import model_of, tenths
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app.serving.gate import Gate
from app.serving.rest_server import ServerPolicy


def opened(world, **more):
    return connect(world.url.replace("http", "ws") + "/ws/predict", open_timeout=20, close_timeout=5, **more)


def test_events_are_answered_in_their_order_and_bad_ones_are_told_alone():
    with RestWorld() as world, opened(world) as socket:
        sent = [{"id": number, "features": [number % 12]} for number in range(100)]
        for page in sent:
            socket.send(json.dumps(page))
        for page in sent:
            answer = json.loads(socket.recv(20))
            assert answer["id"] == page["id"]
            if page["features"][0] in (9, 10, 11):
                assert answer.keys() & {"error", "prediction"} == (
                    {"prediction"} if page["features"][0] == 10 else {"error"}
                )
            else:
                assert answer["probabilities"][1] == pytest.approx(page["features"][0] / 10)
        assert world.core.answered_rows < 100


def test_what_is_sent_together_shares_batches():
    with RestWorld() as world, opened(world) as socket:
        for _ in range(50):
            socket.send('{"features": [1]}')
        for _ in range(50):
            socket.recv(20)
        assert len(world.seen.batches) < 50


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("{", 400),
        ("[]", 422),
        ('{"features": [11]}', 422),
        (b'{"features": 1}', 422),
        ('{"features": [1], "version": "9"}', 404),
    ],
)
def test_a_bad_message_does_not_end_the_stream(message, status):
    with RestWorld() as world, opened(world) as socket:
        socket.send(message)
        assert json.loads(socket.recv(20))["error"]["status"] == status
        socket.send('{"features": [1]}')
        assert json.loads(socket.recv(20))["prediction"] == 0


def test_who_may_not_ask_is_refused_at_the_door():
    with RestWorld(gate=Gate(["caller"], [], None, ManualClock())) as world:
        with pytest.raises(InvalidStatus) as refusal, opened(world):
            pass
        assert refusal.value.response.status_code == 403
        with opened(world, additional_headers={"x-api-key": "caller"}) as socket:
            socket.send('{"features": [1]}')
            assert json.loads(socket.recv(20))["prediction"] == 0


def test_a_message_that_is_too_large_ends_the_connection_and_not_the_server():
    with RestWorld(server=ServerPolicy(message_bytes=2000)) as world:
        with opened(world) as socket:
            socket.send("x" * 5000)
            with pytest.raises(ConnectionClosed) as end:
                socket.recv(20)
        assert end.value.rcvd.code == 1009
        assert world.post("/predict", {"features": [1]}).status_code == 200


def test_who_leaves_without_a_word_takes_nothing_along():
    release = Event()

    def slow(tensors):
        assert release.wait(20)
        return tenths(tensors)

    with RestWorld(model_of("7", slow)) as world:
        with opened(world) as socket:
            for _ in range(300):
                socket.send('{"features": [1]}')
            socket.socket.shutdown(2)
        release.set()
        assert world.post("/predict", {"features": [1]}).status_code == 200


def test_at_the_end_of_the_server_the_stream_is_closed_in_order():
    with RestWorld() as world, opened(world) as socket:
        socket.send('{"features": [1]}')
        assert json.loads(socket.recv(20))["prediction"] == 0
        world.end()
        with pytest.raises(ConnectionClosed) as end:
            socket.recv(20)
        assert end.value.rcvd.code in (1001, 1012)


def test_a_client_that_sends_much_while_the_model_is_slow_is_not_read_on():
    release = Event()

    def slow(tensors):
        assert release.wait(20)
        return tenths(tensors)

    async def flood(url):
        async with websockets.connect(url, max_size=None, compression=None) as socket:
            sent = 0

            async def send():
                nonlocal sent
                for _ in range(60):
                    await socket.send('{"features": [1]' + " " * 1_000_000 + "}")
                    sent += 1

            sending = asyncio.create_task(send())
            await asyncio.sleep(2)
            held, _ = sent, release.set()
            for _ in range(60):
                assert json.loads(await asyncio.wait_for(socket.recv(), 20))["prediction"] == 0
            await sending
            return held

    with RestWorld(model_of("7", slow)) as world:
        assert asyncio.run(flood(world.url.replace("http", "ws") + "/ws/predict")) < 20  # and 256 of a megabyte before


def test_every_event_is_a_request_to_the_metrics():
    with RestWorld() as world:
        with opened(world) as socket:
            for message in ('{"features": [1]}', '{"features": [11]}'):
                socket.send(message)
                socket.recv(20)
        assert world.calls == [("/ws/predict", "200"), ("/ws/predict", "422")]


def test_an_event_that_comes_while_too_much_waits_is_told_when_to_come_back():
    release, asked = Event(), Event()

    def slow(tensors):
        asked.set()
        assert release.wait(20)
        return tenths(tensors)

    with RestWorld(model_of("7", slow), most_waiting_rows=1, max_rows=1) as world, opened(world) as socket:
        socket.send('{"features": [1]}')
        assert asked.wait(20)
        for _ in range(2):
            socket.send('{"features": [1]}')
        with opened(world) as other:
            refused = None
            while refused is None:
                other.send('{"features": [1]}')
                try:
                    refused = json.loads(other.recv(1))
                except TimeoutError:
                    continue
        release.set()
        assert refused["error"]["status"] == 429
        assert refused["error"]["retry_after"] > 0
