"""A real server and clients that are slow, many, hostile, or leave: what others see of it is nothing."""

import asyncio
import re
import socket
import ssl
import time
from contextlib import ExitStack
from threading import Event, Thread

import httpx2
import pytest
import trustme
from rest_world import RestWorld
from small_pipeline import model_of, tenths

from app.errors import BadSettings
from app.serving.rest import Routes
from app.serving.rest_calls import RestPolicy
from app.serving.rest_server import RestServer, ServerPolicy, ServerTls

GOOD = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{"features": [1]}'
IMPATIENT = ServerPolicy(receive_s=0.5, idle_s=60)


def connected(world):
    return socket.create_connection(("127.0.0.1", world.port), timeout=10)


@pytest.fixture(scope="module")
def impatient():
    with RestWorld(server=IMPATIENT) as world:
        yield world


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /predict HTTP/1.1\r\nHost: x\r\n", id="half a head"),
        pytest.param(GOOD[:-5], id="half a body"),
        pytest.param(GOOD + GOOD[:30], id="a second head that does not come"),
        pytest.param(GOOD + GOOD[:-5], id="a second body that does not come"),
    ],
)
def test_a_request_that_does_not_come_is_not_waited_for(impatient, sent):
    with connected(impatient) as raw:
        raw.sendall(sent)
        began = time.monotonic()
        try:
            while raw.recv(4096):
                pass
        except ConnectionResetError:
            pass
        assert 0.3 <= time.monotonic() - began < 8


def test_a_request_that_drips_is_not_waited_for(impatient):
    def drip(raw):
        for letter in b"POST /predict HTTP/1.1\r\n" + 1000 * b"X: y\r\n":
            raw.sendall(bytes([letter]))
            time.sleep(0.01)

    with connected(impatient) as raw, pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
        drip(raw)


def test_slow_ones_take_nothing_from_the_others(impatient):
    with ExitStack() as open_ones:
        for _ in range(300):
            raw = open_ones.enter_context(connected(impatient))
            raw.sendall(GOOD[:40])
        assert impatient.post("/predict", {"features": [1]}).status_code == 200


def test_a_head_that_never_ends_is_cut(impatient):
    with connected(impatient) as raw:
        began = time.monotonic()
        try:
            raw.sendall(b"GET /livez HTTP/1.1\r\n")
            for _ in range(200):
                raw.sendall(b"X: " + b"y" * 4096 + b"\r\n")
            assert not raw.recv(64)
        except OSError:
            pass
        assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\xfe garbage\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_refused(impatient, sent):
    with connected(impatient) as raw:
        raw.sendall(sent)
        try:
            answer = raw.recv(64)
        except ConnectionResetError:
            answer = b""
        assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert impatient.get("/livez").status_code == 200


def test_an_announced_body_that_is_too_large_is_refused_before_it_comes():
    with RestWorld(routes=Routes(policy=RestPolicy(body_bytes=1000))) as world, connected(world) as raw:
        raw.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert raw.recv(64).startswith(b"HTTP/1.1 413 ")


def test_several_requests_in_one_packet_are_answered_in_their_order():
    with RestWorld() as world, connected(world) as raw:
        raw.sendall(b"".join(GOOD.replace(b"[1]", b"[%d]" % number) for number in (1, 7, 2)))
        answered = b""
        while answered.count(b"prediction") < 3:
            answered += raw.recv(65536)
        assert [int(found) for found in re.findall(rb'"prediction":(\d)', answered)] == [0, 1, 0]


def test_a_thousand_clients_at_once_are_all_answered_each_with_its_own():
    async def one(port, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        x = number % 9
        for _ in range(3):
            body = b'{"features":[%d]}' % x
            writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
            answer = await reader.readexactly(size)
            assert head.startswith(b"HTTP/1.1 200"), head
            assert f'"prediction":{int(x >= 5)}'.encode() in answer
        writer.close()

    async def everybody(port):
        await asyncio.gather(*(one(port, number) for number in range(1000)))

    with RestWorld(routes=Routes(policy=RestPolicy(concurrent=2000, answer_s=60))) as world:
        asyncio.run(everybody(world.port))
        assert world.core.answered_rows == 3000
        assert len(world.seen.batches) < 3000, "they shared batches"


def test_more_at_a_time_than_allowed_are_told_to_come_back():
    release = Event()

    def slow(tensors):
        assert release.wait(20)
        return tenths(tensors)

    async def crowd(url):
        async with httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
            asked = [asyncio.ensure_future(client.post("/predict", json={"features": [1]})) for _ in range(6)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            probe = await client.get("/livez")
            release.set()
            return probe, await asyncio.gather(*asked)

    with RestWorld(model_of("7", slow), routes=Routes(policy=RestPolicy(concurrent=2))) as world:
        probe, answers = asyncio.run(crowd(world.url))
        assert probe.status_code == 200, "probes are answered whatever else is"
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 4


def test_what_is_being_answered_at_the_end_is_answered():
    release, asked = Event(), Event()

    def slow(tensors):
        asked.set()
        assert release.wait(20)
        return tenths(tensors)

    with RestWorld(model_of("7", slow)) as world:
        answers = []
        thread = Thread(target=lambda: answers.append(world.post("/predict", {"features": [7]})))
        thread.start()
        assert asked.wait(20)
        world.end()
        release.set()
        thread.join(20)
    assert answers[0].json()["prediction"] == 1


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("127.0.0.1", "client@example.org"):
        made = authority.issue_cert(name)
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        made.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


def test_over_tls_and_with_certificates_of_clients(certificates):
    files = certificates / "127.0.0.1.pem", certificates / "127.0.0.1.key"
    trusted = ssl.create_default_context(cafile=certificates / "ca.pem")
    with RestWorld(server=ServerPolicy(tls=ServerTls(*files))) as world:
        with httpx2.Client(verify=trusted, trust_env=False) as client:
            assert client.post(f"{world.url}/predict", json={"features": [7]}).json()["prediction"] == 1
        with pytest.raises(httpx2.ConnectError), httpx2.Client(trust_env=False) as client:
            client.get(f"{world.url}/livez")
        old = ssl.create_default_context(cafile=certificates / "ca.pem")
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.minimum_version = ssl.TLSVersion.TLSv1_2
        with httpx2.Client(verify=old, trust_env=False) as client:
            assert client.get(f"{world.url}/livez").status_code == 200
    both = ServerTls(*files, client_ca_file=certificates / "ca.pem")
    with RestWorld(server=ServerPolicy(tls=both)) as world:
        with pytest.raises(httpx2.HTTPError), httpx2.Client(verify=trusted, trust_env=False) as client:
            client.get(f"{world.url}/livez")
        mine = ssl.create_default_context(cafile=certificates / "ca.pem")
        mine.load_cert_chain(certificates / "client@example.org.pem", certificates / "client@example.org.key")
        with httpx2.Client(verify=mine, trust_env=False) as client:
            assert client.get(f"{world.url}/livez").status_code == 200


def test_an_address_that_is_taken_and_files_that_are_no_certificates_are_told(certificates):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            BadSettings, match=rf"serving: cannot listen on 127\.0\.0\.1:{port}: Address already in use"
        ):
            RestServer(None, ServerPolicy(port=port))
    with pytest.raises(BadSettings, match=r"serving\.tls: "):
        RestServer(None, ServerPolicy(tls=ServerTls(certificates / "ca.pem", certificates / "127.0.0.1.key")))
