"""Why faust's own reading is replaced, and that its consumer is put where `Reading` says before each read."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace

import faust
import pytest
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP

from app.monitor.driver import CommittedConsumer, CommittedConsumerThread, CommittedTransport
from app.monitor.inbox import Inbox
from app.monitor.reading import Reading

TP_OF = TP("summaries", 0)
PLACE = ("summaries", 0)


def record(offset):
    return SimpleNamespace(
        topic="summaries", partition=0, offset=offset, timestamp=offset, timestamp_type=0, headers=(), key=b"k",
        value=b"v", checksum=None, serialized_key_size=1, serialized_value_size=1,
    )  # fmt: skip


class Log:
    """A partition of five records, and a consumer's position in it; what a read brings and where it goes on."""

    def __init__(self):
        self.position = 0

    def read(self):
        found, self.position = [record(offset) for offset in range(self.position, 5)], 5
        return found


def app_of(**more):
    return faust.App("test", broker="kafka://127.0.0.1:1", store="memory://", **more)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_the_librarys_own_loop_passes_over_what_is_read_again_while_a_record_waits_for_its_stream():
    """What this replaces: if it fails, faust is mended, and `driver.py` could be smaller."""

    async def rebalanced():
        log, held, came = Log(), asyncio.Event(), []

        async def to_the_stream(message):
            came.append(message.offset)
            if message.offset == 3:
                await held.wait()

        class Own(Consumer):
            async def _getmany(self, active_partitions, timeout):
                await asyncio.sleep(0)
                return {TP_OF: log.read()}

            async def seek_to_committed(self):
                log.position = 1
                return {TP_OF: 1}

            def highwater(self, tp):
                return 5

        app = app_of()
        consumer = Own(app.transport, to_the_stream, None, None)
        consumer.scheduler = SimpleNamespace(iterate=lambda found: [(tp, one) for tp in found for one in found[tp]])
        consumer._set_active_tps({TP_OF})
        loop = asyncio.create_task(consumer._drain_messages(consumer))
        await until(lambda: came == [0, 1, 2, 3])
        await consumer.perform_seek()  # the assignment is another one: what came is void, and read again from 1 on
        came.clear()
        held.set()
        await until(lambda: came[-1:] == [4] and log.position == 5 and len(came) > 1)
        loop.cancel()
        consumer._thread.thread_loop.close()
        return came

    came = asyncio.run(rebalanced())
    assert 1 not in came
    assert 2 not in came


class FakeState:
    has_valid_position = True

    def __init__(self, position):
        self.position = position


class FakeAioConsumer:
    """As much of aiokafka's as a read looks at: one partition with offsets 0 to 9, of which 5 is a marker."""

    first = 0

    def __init__(self):
        tp = TopicPartition(*PLACE)
        self.state, self.seeks = FakeState(None), []
        self.state.has_valid_position = False
        self.assigned = SimpleNamespace(active=True, tps={tp}, state_value=lambda tp: self.state)
        self._subscription = SimpleNamespace(
            subscription=SimpleNamespace(assignment=self.assigned), reassignment_in_progress=False,
            fetch_context=nullcontext,
        )  # fmt: skip
        self._fetcher = self
        self.meanwhile = lambda: None

    def assignment(self):
        return set(self.assigned.tps)

    async def committed(self, tp):
        return None

    async def beginning_offsets(self, tps):
        return dict.fromkeys(tps, self.first)

    async def end_offsets(self, tps):
        return dict.fromkeys(tps, 10)

    def seek(self, tp, offset):
        self.seeks.append(offset)
        self.state.position, self.state.has_valid_position = offset, True

    async def fetched_records(self, tps, timeout, most):
        start = self.state.position
        if start < self.first:
            raise OffsetOutOfRangeError({tps[0]: start})
        self.state.position = min(start + 4, 10)
        self.meanwhile()
        return {tps[0]: [record(offset) for offset in range(start, self.state.position) if offset != 5]}


@pytest.fixture
def reading_of():
    """Runs a test with a consumer of ours over such a fake one, and the inbox it fills."""

    def run(test, start_from="earliest"):
        async def running():
            reading, inbox = Reading(lambda *last: None, lambda places: None), Inbox(100, 10**6)
            reading.feed(PLACE[0], inbox)
            app = app_of(consumer_auto_offset_reset=start_from)
            app.transport = CommittedTransport(app.conf.broker_consumer, app, reading, pytest.fail)
            consumer = CommittedConsumer(app.transport, print, None, None)
            behind = FakeAioConsumer()
            thread = consumer.committed_thread
            thread._consumer = behind

            async def here(function, *arguments):
                return await function(*arguments)

            thread.call_thread = here
            try:
                await test(consumer, reading, behind)
            finally:
                thread.thread_loop.close()
            return [read.offset for read in inbox._records]

        return asyncio.run(running())

    return run


def test_each_read_goes_on_where_the_last_one_that_arrived_has_ended(reading_of):
    async def test(consumer, reading, behind):
        await consumer.perform_seek()
        for _ in range(3):
            await consumer._read_some()
            behind.state.position = 9  # wherever the library puts its consumer meanwhile
        assert behind.seeks == [0, 4, 8]

    assert reading_of(test) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_a_read_over_which_the_assignment_ended_brings_nothing(reading_of):
    async def test(consumer, reading, behind):
        await consumer.perform_seek()
        behind.meanwhile = lambda: setattr(behind.assigned, "active", False)
        await consumer._read_some()
        assert reading.place(*PLACE) == 0

    assert reading_of(test) == []


def test_while_a_rebalance_goes_on_nothing_is_asked_for(reading_of):
    async def test(consumer, reading, behind):
        await consumer.perform_seek()
        behind._subscription.reassignment_in_progress = True
        await consumer._read_some()
        behind._subscription.subscription = None
        await consumer._read_some()
        assert behind.seeks == []

    assert reading_of(test) == []


@pytest.mark.parametrize(("start_from", "goes_on_at"), [("earliest", 7), ("latest", 10)])
def test_what_retention_took_is_named_and_passed(start_from, goes_on_at, reading_of, capsys):
    async def test(consumer, reading, behind):
        reading.start(reading.epoch, {PLACE: 2})
        behind.first = 7
        await consumer._read_some()
        assert reading.place(*PLACE) == goes_on_at

    assert reading_of(test, start_from) == []
    assert "committed_offset_out_of_range" in capsys.readouterr().out


def test_a_thread_of_ours_never_resets_an_offset_by_itself(reading_of):
    async def test(consumer, reading, behind):
        made = consumer.committed_thread._create_worker_consumer(consumer.transport)
        made._closed = True  # it was never opened
        assert made._auto_offset_reset == "none"
        assert made._isolation_level == "read_committed"
        assert isinstance(consumer._thread, CommittedConsumerThread)

    reading_of(test)
