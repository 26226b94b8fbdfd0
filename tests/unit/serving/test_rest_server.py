"""A real server and clients that are slow, many, hostile, or leave: what others see of it is nothing."""

import asyncio
import re
import socket
import ssl
import time
from contextlib import ExitStack, suppress
from threading import Event, Thread

import httpx2
import pytest
import trustme
import uvicorn
from rest_world import RestWorld
from small_pipeline import model_of, tenths
from uvicorn.server import ServerState

from app.errors import BadSettings
from app.serving.admission import OpenBytes
from app.serving.rest import Routes
from app.serving.rest_calls import RestPolicy
from app.serving.rest_connections import Doors, HeadWithBody, Unread, connections_of
from app.serving.rest_server import RestServer, ServerPolicy, ServerTls

GOOD = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{"features": [1]}'
UPGRADE = b"GET /ws/predict HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
HANDSHAKE = UPGRADE + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
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
        pytest.param(UPGRADE[:-9], id="half an upgrade"),
    ],
)
def test_a_request_that_does_not_come_is_not_waited_for(impatient, sent):
    began = time.monotonic()
    with connected(impatient) as raw:
        raw.sendall(sent)
        try:
            while raw.recv(4096):
                pass
        except ConnectionResetError:
            pass
        assert 0.3 <= time.monotonic() - began < 8


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(UPGRADE + b"Content-Length: 1\r\n\r\n", id="a body that does not come"),
        pytest.param(UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n", id="chunks that do not come"),
        pytest.param(UPGRADE.replace(b"GET", b"POST") + b"\r\n", id="POST"),
        pytest.param(UPGRADE.replace(b"GET", b"POST") + b"Content-Length: 16\r\n\r\n", id="POST without its body"),
        pytest.param(UPGRADE.replace(b"GET", b"PUT") + b"\r\n", id="PUT"),
        pytest.param(UPGRADE + b"\r\n", id="no key"),
    ],
)
def test_an_upgrade_that_cannot_be_one_is_refused_at_once(impatient, sent):
    with connected(impatient) as raw:
        raw.sendall(sent)
        assert raw.recv(64).startswith(b"HTTP/1.1 4")
        while raw.recv(4096):
            pass


def test_who_comes_beyond_the_limit_takes_the_place_of_one_that_says_nothing():
    with RestWorld(server=ServerPolicy(connections=20)) as world, ExitStack() as open_ones:
        assert world.get("/livez").status_code == 200
        silent = [open_ones.enter_context(connected(world)) for _ in range(40)]
        for path in ("/livez", "/readyz", "/health"):
            assert world.get(path).status_code == 200, "an old connection is as good as before"
        assert httpx2.post(f"{world.url}/predict", json={"features": [1]}, trust_env=False).status_code == 200
        assert not silent[0].recv(1), "the oldest had to go"


def test_where_everybody_is_busy_a_new_one_may_ask_for_probes_only():
    release, asked = Event(), Event()

    def slow(tensors):
        asked.set()
        assert release.wait(20)
        return tenths(tensors)

    def answer_to(world, sent):
        with connected(world) as raw:
            raw.sendall(sent)
            said = b""
            while more := raw.recv(65536):
                said += more
            return said

    with RestWorld(model_of("7", slow), server=ServerPolicy(connections=3)) as world, ExitStack() as open_ones:
        busy = [open_ones.enter_context(connected(world)) for _ in range(3)]
        for raw in busy:
            raw.sendall(GOOD)
        assert asked.wait(20)
        assert answer_to(world, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        for sent in (GOOD, HANDSHAKE):
            refused = answer_to(world, sent)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in refused
            assert refused.endswith(b'{"detail":"too many connections","error":"too many connections"}')
        release.set()
        for raw in busy:
            assert raw.recv(64).startswith(b"HTTP/1.1 200 ")


def test_a_connection_that_is_made_while_the_server_ends_does_not_keep_it():
    doors = Doors(10, 10.0, frozenset())
    doors.ending = True
    loop = asyncio.new_event_loop()
    try:
        requests, _ = connections_of(doors)
        config = uvicorn.Config(None, http=requests, log_config=None)
        config.load()
        made = requests(config=config, server_state=ServerState(), app_state={}, _loop=loop)
        ours, theirs = socket.socketpair()
        with theirs:
            loop.run_until_complete(loop.connect_accepted_socket(lambda: made, ours))
            began = time.monotonic()
            loop.run_until_complete(asyncio.wait_for(_closed(made), 8))
            assert time.monotonic() - began < 4
    finally:
        loop.close()


async def _closed(protocol):
    while protocol.connections:
        await asyncio.sleep(0.02)


def test_many_who_ask_while_the_server_ends_do_not_make_it_late():
    with RestWorld() as world:
        stop = Event()

        def ask():
            with httpx2.Client(base_url=world.url, timeout=10, trust_env=False) as client:
                while not stop.is_set():
                    try:
                        client.post("/predict", json={"features": [1]})
                    except httpx2.HTTPError:
                        return

        threads = [Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        while world.core.answered_rows < 100:
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 4.5, "of 5 that it may take"
    stop.set()
    for thread in threads:
        thread.join(20)


def test_a_handshake_that_does_not_come_is_not_waited_for(certificates):
    files = certificates / "127.0.0.1.pem", certificates / "127.0.0.1.key"
    policy = ServerPolicy(receive_s=0.5, tls=ServerTls(*files))
    with RestWorld(server=policy) as world, connected(world) as raw:
        began = time.monotonic()
        with suppress(ConnectionResetError):
            assert not raw.recv(64)
        assert time.monotonic() - began < 8


def test_handshakes_that_do_not_come_take_no_place_of_the_others_and_all_end(certificates):
    files = certificates / "127.0.0.1.pem", certificates / "127.0.0.1.key"
    policy = ServerPolicy(receive_s=2.0, connections=2, tls=ServerTls(*files))
    trusted = ssl.create_default_context(cafile=certificates / "ca.pem")
    with RestWorld(server=policy) as world, ExitStack() as open_ones:
        silent = [open_ones.enter_context(connected(world)) for _ in range(100)]
        with httpx2.Client(verify=trusted, trust_env=False) as client:
            for _ in range(3):
                assert client.post(f"{world.url}/predict", json={"features": [1]}).status_code == 200
        for raw in silent:
            with suppress(ConnectionResetError):
                assert not raw.recv(64), "it is closed"


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


def narrow(world):
    """Connected, with hardly any room for what it does not read."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.settimeout(20)
    raw.connect(("127.0.0.1", world.port))
    return raw


def test_a_client_that_does_not_read_is_cut_and_gives_its_place_back():
    rows = b'{"instances":[' + b",".join([b"[1]"] * 10_000) + b"]}"
    request = b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(rows) + rows
    with RestWorld(server=ServerPolicy(receive_s=0.5, connections=1)) as world, narrow(world) as raw:
        raw.sendall(request * 5)  # behind each other, so that none of them leaves the connection waiting for a request
        until, status = time.monotonic() + 20, 0
        while status != 200:
            assert time.monotonic() < until
            answer = httpx2.post(f"{world.url}/predict/batch", content=rows, trust_env=False)
            status = answer.status_code
        received = 0
        with suppress(ConnectionResetError):
            while more := raw.recv(65536):
                received += len(more)
        assert received < 4 * len(answer.content), "what the system had taken, and nothing after it"


def test_a_stream_whose_client_does_not_read_is_cut():
    payload = b'{"id": "%s", "features": [1]}' % (b"x" * 50_000)  # which comes back with the answer
    frame = bytes([0x81, 0x80 | 126]) + len(payload).to_bytes(2, "big") + bytes(4) + payload  # masked with zeros
    with RestWorld(server=IMPATIENT) as world, narrow(world) as raw:
        raw.sendall(HANDSHAKE)
        with pytest.raises(ConnectionError):
            raw.sendall(frame * 2_000)
        assert world.post("/predict", {"features": [1]}).status_code == 200


class Transport:
    """What of it `Unread` asks for. left: in its buffer, at each look."""

    def __init__(self, *left):
        self._left, self.aborted = list(left), False

    def get_write_buffer_size(self):
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]

    def abort(self):
        self.aborted = True


@pytest.mark.parametrize(
    ("left", "cut"), [((9, 8, 7, 6, 0), False), ((9, 8, 8), True), ((9, 9), True), ((9, 10), True)]
)
def test_who_reads_something_within_the_time_is_not_cut(left, cut):
    async def scenario():
        transport = Transport(*left)
        unread = Unread(transport, 0.01)
        unread.begins()
        for _ in range(500):
            if transport.aborted or transport.get_write_buffer_size() == 0:
                break
            await asyncio.sleep(0.01)
        unread.ends()
        return transport.aborted

    assert asyncio.run(scenario()) is cut


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


def test_bodies_that_hold_too_much_together_are_told_to_come_back():
    release, asked = Event(), Event()

    def slow(tensors):
        asked.set()
        assert release.wait(20)
        return tenths(tensors)

    with RestWorld(model_of("7", slow), held=OpenBytes(1_000)) as world:
        answers = []
        padded = b'{"features": [1]}' + b" " * 900
        thread = Thread(target=lambda: answers.append(world.post("/predict", content=padded)))
        thread.start()
        assert asked.wait(20)
        refused = httpx2.post(f"{world.url}/predict", content=padded, trust_env=False)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        release.set()
        thread.join(20)
        assert answers[0].status_code == 200
        assert world.post("/predict", content=padded).status_code == 200


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"{", b"}"],
         [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", b"}"]),
        ([b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", b""],
         [b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"]),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n", b"1"],
         [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1"]),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n1\r\n"],
         [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n1\r\n"]),
    ],
)  # fmt: skip
def test_the_head_of_an_answer_goes_with_its_body(written, sent):
    """A server that dies between the two costs nginx's client its answer."""
    found = []

    class Transport:
        def write(self, data):
            found.append(data)

    transport = HeadWithBody(Transport())
    for data in written:
        transport.write(data)
    assert found == sent


def test_an_answer_of_a_real_server_is_written_at_once(monkeypatch):
    written = []
    plain = HeadWithBody.write

    def write(self, data):
        before = self._head
        plain(self, data)
        written.append((bool(before), bool(self._head)))

    monkeypatch.setattr(HeadWithBody, "write", write)
    with RestWorld() as world:
        assert world.get("/health").status_code == 200
    assert written[-2:] == [(False, True), (True, False)]  # the server has ended
