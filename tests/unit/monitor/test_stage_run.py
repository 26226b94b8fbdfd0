"""What a stage takes in, and when, while assignments come and go."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from app.errors import SchemaRegistryUnavailable
from app.monitor.inbox import Inbox
from app.monitor.stage import Keep, Read, Send, Taken
from app.monitor.stage_run import MOST_WAITING, StageRun
from app.monitor.window_stage import WindowStage
from app.monitor.windows import WindowPolicy
from tests.fakes import ManualClock
from tests.made_summaries import START_MS, summary


def read_of(offset, partition=0, value=b"v"):
    return Read("summaries", partition, offset, START_MS, b"churn/1", value)


class FakeLibrary:
    """One group member: what it wrote is durable at once, unless `slow`."""

    def __init__(self):
        self.settled, self.mine = True, frozenset({0, 1})
        self.tables, self.sent, self.slow = {}, [], None

    def ours(self, topics):
        return self.mine

    async def keep(self, table, partition, changes):
        if self.slow is not None:
            await self.slow.wait()
        content = self.tables.setdefault(table, {})
        for key, value in changes.items():
            content[partition, key] = value

    async def kept(self, table, partitions):
        content = self.tables.get(table, {})
        return [(number, key, value) for (number, key), value in content.items() if value and number in partitions]

    async def send(self, step):
        self.sent.append(step)


class Counting:
    """A stage that keeps, by partition, how often it was given which offset; as windows do, none below the next one."""

    name, topics, tables, partitions = "counting", ("summaries",), ("seen",), 2

    def __init__(self):
        self.seen, self.restores, self.away = {}, 0, False

    def restore(self, kept):
        self.restores += 1
        self.seen = {number: list(value) for number, _, value in kept["seen"]}
        return [Send("parts", [])]

    def take(self, partition, records, now_ms):
        if self.away:
            raise SchemaRegistryUnavailable("away")
        seen = self.seen.setdefault(partition, [])
        for record in records:
            if record.offset >= (seen[-1] + 1 if seen else 0):
                seen.append(record.offset)
        return Taken([Keep("seen", {b"k": bytes(offset % 256 for offset in seen)})], [("taken", partition)])


@asynccontextmanager
async def draining(stage=None, library=None):
    """A run at work; what it told and finished are lists of it."""
    library, told, finished = library or FakeLibrary(), [], []
    run = StageRun(
        stage or Counting(), library, ManualClock(), tell=told.append,
        finished=finished.extend, linger_s=0,
    )  # fmt: skip
    run.told, run.finished, run.library = told, finished, library
    task = asyncio.create_task(run.drain())
    try:
        yield run
        assert not task.done()
    finally:
        task.cancel()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def in_a_loop(test):
    return lambda: asyncio.run(test())


@in_a_loop
async def test_records_are_finished_once_all_that_comes_of_them_is_durable():
    async with draining() as run:
        run.library.slow = asyncio.Event()
        run.inbox.add([read_of(0)])
        for _ in range(20):
            await asyncio.sleep(0)
        assert (run.finished, run.told) == ([], [])
        run.library.slow.set()
        await until(lambda: run.finished)
        assert run.told == [("taken", 0)]


@in_a_loop
async def test_records_that_come_again_with_the_next_assignment_count_once():
    run = StageRun(
        WindowStage("summaries", "parts", 1, WindowPolicy(), lambda value: summary([0.5]), ["churn"]), FakeLibrary(),
        ManualClock(now_ms=START_MS), tell=lambda fact: None, finished=lambda records: None, linger_s=0,
    )  # fmt: skip
    records = [read_of(offset) for offset in range(MOST_WAITING + 1)]
    run.inbox.add(records)
    draining = asyncio.create_task(run.drain())
    await until(lambda: len(run.inbox) < MOST_WAITING)
    run.begin_anew()
    run.inbox.add(records)
    await until(lambda: not len(run.inbox))
    await run.quiet()
    draining.cancel()
    (view,) = run.stage.view(START_MS)
    assert view.records_total == MOST_WAITING + 1


@in_a_loop
async def test_nothing_is_taken_in_before_the_assignment_is_settled():
    async with draining() as run:
        run.library.settled = False
        run.inbox.add([read_of(0)])
        await asyncio.sleep(0.12)
        assert run.stage.restores == 0
        run.library.settled = True
        await until(lambda: run.finished)
        assert run.stage.seen == {0: [0]}


@in_a_loop
async def test_what_was_taken_when_the_assignment_ended_is_written_before_it_goes_and_is_not_finished():
    async with draining() as run:
        run.library.slow = asyncio.Event()
        run.inbox.add([read_of(0)])
        await until(lambda: run.stage.seen)
        run.begin_anew()
        quiet = asyncio.create_task(run.quiet())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not quiet.done()
        run.library.slow.set()
        await quiet
        assert run.library.tables["seen"] == {(0, b"k"): b"\x00"}
        assert run.finished == []


@in_a_loop
async def test_waiting_for_a_schema_ends_with_the_assignment():
    async with draining() as run:
        run.stage.away = True
        run.inbox.add([read_of(0)])
        await until(lambda: run.stage.restores)
        run.begin_anew()
        async with asyncio.timeout(5):
            await run.quiet()
        assert (run.finished, run.library.tables) == ([], {})


@in_a_loop
async def test_after_each_change_the_state_is_that_of_our_partitions_and_what_was_not_sent_is_sent():
    async with draining() as run:
        for partition in (0, 1):
            run.inbox.add([read_of(0, partition)])
        await until(lambda: len(run.finished) == 2)
        run.begin_anew()
        run.library.mine = frozenset({1})
        assert not run.restored
        await run.restore()
        assert (run.restored, run.stage.seen) == (True, {1: [0]})
        assert len(run.library.sent) == 2


@in_a_loop
async def test_a_state_that_was_restored_while_the_assignment_ended_is_restored_again():
    async with draining() as run:
        send = run.library.send

        async def ends_meanwhile(step):
            run.library.send = send
            run.begin_anew()

        run.library.send = ends_meanwhile
        await run.restore()
        assert not run.restored


@in_a_loop
async def test_without_an_assignment_nothing_is_restored():
    async with draining() as run:
        run.library.settled = False
        await run.restore()
        assert run.stage.restores == 0


@in_a_loop
async def test_the_refusal_of_a_step_ends_the_run():
    library = FakeLibrary()
    run = StageRun(Counting(), library, ManualClock(), tell=print, finished=print, linger_s=0)

    async def refused(table, partition, changes):
        raise OSError("no")

    library.keep = refused
    run.inbox.add([read_of(0)])
    with pytest.raises(OSError, match="no"):
        await run.drain()


@pytest.mark.parametrize(("records", "most"), [(3, (3, 10**6)), (2, (100, 20))])
def test_an_inbox_that_is_full_by_records_or_by_bytes_has_no_room(records, most):
    async def filled():
        inbox = Inbox(*most)
        for offset in range(records):
            assert inbox.has_room
            inbox.add([read_of(offset, value=b"0123456789")])
        assert not inbox.has_room
        inbox.add([read_of(9)])  # was read while there was room
        _, taken = await inbox.take(100)
        assert [record.offset for record in taken] == [*range(records), 9]
        assert inbox.has_room

    asyncio.run(filled())


def test_what_an_inbox_had_when_its_epoch_ended_is_gone():
    async def dropped():
        inbox = Inbox(1, 10**6)
        inbox.add([read_of(0), read_of(1)])
        inbox.clear()
        assert (len(inbox), inbox.has_room) == (0, True)
        inbox.add([])
        inbox.add([read_of(2)])
        epoch, taken = await inbox.take(5)
        assert (epoch, [record.offset for record in taken]) == (1, [2])

    asyncio.run(dropped())
