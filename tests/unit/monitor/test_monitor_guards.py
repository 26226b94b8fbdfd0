"""Whatever the stream library does, or does no more, ends the monitor by name."""

import asyncio
import signal

import pytest

from app.errors import MonitorFailed
from app.monitor import stream as stream_module
from app.monitor.reading import Stretch
from app.monitor.stage import Read, Taken
from app.monitor.stream import MonitorStream, StreamPolicy
from tests.fakes import ManualClock

STALLED_S = 120.0
PLACE = ("summaries", 0)


class OneTopic:
    """A stage that remembers the offsets it was given."""

    name, topics, tables, partitions = "one", ("summaries",), (), 1

    def __init__(self):
        self.seen = []

    def restore(self, kept):
        return ()

    def take(self, partition, records, now_ms):
        self.seen += [record.offset for record in records]
        return Taken([], [])


class FakeStreamLibrary:
    """A group of one, whose rebalances, reads and death are the test's to make."""

    def __init__(self, reading, fail):
        self.reading, self.fail = reading, fail
        self.settled, self.end, self.committed, self.died = False, 0, [], None
        self.starting, self.stopping, self.answering = (asyncio.Event() for _ in range(3))
        for event in (self.starting, self.stopping, self.answering):
            event.set()

    def listen(self, ended, begun):
        self.ended, self.begun = ended, begun

    def feed(self, topic, partitions, inbox):
        self.reading.feed(topic, inbox)

    async def start(self):
        await self.starting.wait()

    async def stop(self):
        await self.stopping.wait()

    def check(self):
        if self.died is not None:
            raise self.died

    def ours(self, topics):
        return frozenset({0})

    async def kept(self, table, partitions):
        return []

    async def ends(self):
        await self.answering.wait()
        return {PLACE: self.end}

    async def commit(self, offsets):
        self.committed.append(dict(offsets))
        return True

    async def send(self, step):
        pass

    def assign(self, start=0):
        self.begun()
        self.reading.start(self.reading.epoch, {PLACE: start})
        self.settled = True

    def read(self, start, end):
        records = [Read(*PLACE, offset, 0, b"k", b"v") for offset in range(start, end)]
        self.reading.take(self.reading.epoch, {PLACE: Stretch(start, end, records)})


class NothingToSay:
    def look(self):
        return list


@pytest.fixture
def running(monkeypatch):
    """Runs a monitor with a test beside it; returns what the monitor ended with, None if by a signal."""
    for name in ("COMMIT_S", "LOOK_S", "STOP_WITHIN_S"):
        monkeypatch.setattr(stream_module, name, 0.01)

    def run(beside):
        async def both():
            clock, stage, made = ManualClock(), OneTopic(), []

            def connect(policy, reading, fail):
                made.append(FakeStreamLibrary(reading, fail))
                return made[0]

            policy = StreamPolicy("g", "b:1", "d", stalled_s=STALLED_S, publish_s=0.01)
            monitor = MonitorStream(policy, [stage], {}, lambda fact: None, clock, connect)
            going = asyncio.create_task(monitor.run(NothingToSay(), lambda: None))
            async with asyncio.timeout(30):
                await beside(made[0], clock, stage, monitor)
                return (await asyncio.gather(going, return_exceptions=True))[0]

        return asyncio.run(both())

    return run


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def some_looks():
    await asyncio.sleep(0.05)


def test_a_rebalance_that_never_ends_is_named(running):
    async def beside(library, clock, stage, monitor):
        library.assign()
        await until(lambda: monitor.ready)
        await library.ended()
        library.settled = False
        await some_looks()
        clock.advance(STALLED_S + 1)

    ended = running(beside)
    assert isinstance(ended, MonitorFailed)
    assert "a rebalance, or the consumer's answer, is not there after 121 s" in str(ended)


def test_a_consumer_that_does_not_answer_is_named(running):
    async def beside(library, clock, stage, monitor):
        library.assign()
        await until(lambda: monitor.ready)
        library.answering.clear()
        await some_looks()
        clock.advance(STALLED_S + 1)

    assert "the consumer's answer, is not there" in str(running(beside))


def test_a_reading_that_has_died_and_says_nothing_is_named_by_the_records_that_do_not_come(running):
    async def beside(library, clock, stage, monitor):
        library.assign()
        library.read(0, 3)
        await until(lambda: stage.seen == [0, 1, 2])
        library.end = 5  # the broker has more, and nobody reads it
        await some_looks()
        clock.advance(STALLED_S / 2)
        await some_looks()
        assert monitor.stuck() is None
        clock.advance(STALLED_S)

    ended = running(beside)
    assert isinstance(ended, MonitorFailed)
    assert "summaries 0 has not moved" in str(ended)


@pytest.mark.parametrize("how", ["fails", "dies"])
def test_what_the_library_ended_with_ends_the_monitor(how, running):
    async def beside(library, clock, stage, monitor):
        library.assign()
        await until(lambda: monitor.ready)
        if how == "fails":
            library.fail(OSError("no route"))
        else:
            library.died = OSError("no route")

    assert str(running(beside)) == "OSError: no route"


def test_a_start_that_never_ends_is_named(running, monkeypatch):
    monkeypatch.setattr(f"{__name__}.STALLED_S", 0.05)

    async def beside(library, clock, stage, monitor):
        library.starting.clear()

    assert "it has not started within 0.05 s" in str(running(beside))


def test_a_library_that_does_not_stop_is_left_behind_and_what_is_durable_is_committed(running):
    async def beside(library, clock, stage, monitor):
        library.assign(start=7)
        library.read(7, 9)
        await until(lambda: stage.seen == [7, 8])
        library.stopping.clear()
        await until(lambda: library.committed and library.committed[-1] == {PLACE: 9})
        signal.raise_signal(signal.SIGTERM)

    assert running(beside) is None


def test_where_reading_begins_is_committed_before_anything_came(running):
    async def beside(library, clock, stage, monitor):
        library.assign(start=7)  # with `latest`, the end: a restart would begin behind what came meanwhile
        await until(lambda: library.committed == [{PLACE: 7}])
        signal.raise_signal(signal.SIGTERM)

    assert running(beside) is None
