"""Who looks at a worker costs it little: one snapshot for all, none for nobody, and not more viewers than may look."""

import asyncio
import socket
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, closing
from itertools import pairwise

import pytest
from made_worker import MadeWorker

from app.observe import http, live
from app.observe.live import LiveFeed


class Viewer:
    """The server's side of one connection: what is sent to it, and how it goes."""

    def __init__(self, feed):
        self.sent, self._goes, self._reads = [], asyncio.Event(), asyncio.Event()
        self._reads.set()
        self.task = asyncio.create_task(feed({"type": "http"}, self._receive, self._send))

    async def _receive(self):
        await self._goes.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        await self._reads.wait()
        self.sent.append(message)

    def stop_reading(self):
        self._reads.clear()

    def read_on(self):
        self._reads.set()

    async def go(self):
        self._goes.set()
        await self.task

    @property
    def events(self):
        return [message["body"] for message in self.sent if message.get("body")]

    async def until(self, count):
        async with asyncio.timeout(10):
            while len(self.events) < count:
                await asyncio.sleep(0)


class Numbers:
    """Snapshots 1, 2, …"""

    def __init__(self):
        self.made = self.forgotten = 0

    def __call__(self):
        self.made += 1
        return str(self.made).encode()

    def forget(self):
        self.forgotten += 1


@pytest.fixture
def numbers():
    return Numbers()


def test_every_viewer_gets_the_same_snapshots(numbers):
    async def story():
        feed = LiveFeed(numbers, numbers.forget, every_s=0.0)
        several = [Viewer(feed) for _ in range(3)]
        for viewer in several:
            await viewer.until(3)
        for viewer in several:
            await viewer.go()
        return [viewer.events for viewer in several]

    for events in asyncio.run(story()):
        assert events[0].startswith(b"data: ")
        assert all(event.endswith(b"\n\n") for event in events)


def test_nobody_looks_and_nothing_is_made(numbers):
    async def story():
        feed = LiveFeed(numbers, numbers.forget, every_s=0.0)
        viewer = Viewer(feed)
        await viewer.until(1)
        await viewer.go()
        while not numbers.forgotten:
            await asyncio.sleep(0)
        made = numbers.made
        for _ in range(100):
            await asyncio.sleep(0)
        assert feed.viewers == 0
        return made

    assert asyncio.run(story()) == numbers.made


def test_one_viewer_too_many_is_told_so_and_there_is_room_again_when_one_goes(numbers):
    async def story():
        feed = LiveFeed(numbers, numbers.forget, every_s=0.0, most_viewers=2)
        first, second = Viewer(feed), Viewer(feed)
        await first.until(1)
        third = Viewer(feed)
        await third.task
        await first.go()
        fourth = Viewer(feed)
        await fourth.until(1)
        for viewer in (second, fourth):
            await viewer.go()
        return third

    refused = asyncio.run(story())
    assert refused.sent[0]["status"] == 503
    assert (b"retry-after", b"10") in refused.sent[0]["headers"]
    assert b"2 viewers look at this worker already" in refused.events[0]


def test_a_viewer_that_does_not_read_misses_snapshots_and_holds_nobody_up(numbers):
    async def story():
        feed = LiveFeed(numbers, numbers.forget, every_s=0.0)
        slow, quick = Viewer(feed), Viewer(feed)
        await slow.until(1)
        slow.stop_reading()
        await quick.until(len(quick.events) + 50)
        before = len(slow.events)
        slow.read_on()
        await slow.until(before + 2)
        for viewer in (slow, quick):
            await viewer.go()
        return [int(event.removeprefix(b"data: ")) for event in slow.events]

    seen = asyncio.run(story())
    assert seen == sorted(seen)
    assert max(later - earlier for earlier, later in pairwise(seen)) >= 40


def test_when_the_worker_ends_viewers_are_told(numbers):
    async def story():
        feed = LiveFeed(numbers, numbers.forget, every_s=0.0)
        viewer = Viewer(feed)
        await viewer.until(1)
        feed.close()
        await viewer.task
        return viewer

    viewer = asyncio.run(story())
    assert viewer.events[-1] == b"event: ended\ndata: {}\n\n"
    assert viewer.sent[-1]["more_body"] is False


def test_a_feed_that_nobody_looked_at_closes_too(numbers):
    LiveFeed(numbers).close()
    assert numbers.made == 0


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(http, "REQUEST_WITHIN_S", 0.5)
    with closing(MadeWorker().open(every_s=0.001)) as server:
        yield server


def looking(server):
    """A connection that asked for the events."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(10)
    raw.connect(("127.0.0.1", server.port))
    raw.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
    return raw


def test_a_stream_goes_on_when_a_request_would_long_be_over(server):
    with looking(server) as raw:
        until = time.monotonic() + 4 * http.REQUEST_WITHIN_S
        while time.monotonic() < until:
            assert raw.recv(65536)


def test_a_viewer_that_stopped_reading_is_cut(server, monkeypatch):
    monkeypatch.setattr(http, "STALLED_S", 0.5)
    with looking(server) as raw:
        assert raw.recv(64).startswith(b"HTTP/1.1 200 ")
        deadline = time.monotonic() + 30
        while _is_connected(raw):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _is_connected(raw):
    """Whether the other side still holds it; a connection that was cut with data unread is reset."""
    try:
        raw.send(b"X")
    except OSError:
        return False
    return True


def test_more_viewers_than_may_look_get_words_and_the_probes_go_on():
    with ExitStack() as open_ones:
        server = open_ones.enter_context(closing(MadeWorker().open()))
        for _ in range(live.MOST_VIEWERS):
            assert open_ones.enter_context(looking(server)).recv(64)
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/live", timeout=10)
        with refusal.value as answer:
            assert answer.code == 503
            assert b"16 viewers look at this worker already" in answer.read()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/livez", timeout=10) as answer:
            assert answer.status == 200


def test_a_server_with_viewers_closes_at_once():
    server = MadeWorker().open()
    with looking(server) as raw:
        assert raw.recv(64)
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 4
        said = b""
        while more := raw.recv(65536):
            said += more
    assert b"event: ended" in said
