"""The core looks once in the next round, however often it is asked to, and knows whether that round was empty."""

import asyncio

import pytest
from fakes import ManualClock
from online_world import rounds, run

from app.serving.rounds import QUEUE_QUIET_ROUNDS, QUEUE_QUIET_S, QUIET_S, Rounds


class Looks:
    """What a `Rounds` did: (when, whether the loop was busy) of each look."""

    def __init__(self):
        self.clock = ManualClock()
        self.rounds = Rounds(lambda: self.seen.append(self.rounds.busy), self.clock)
        self.seen = []


@pytest.fixture
def looks():
    return Looks()


def test_before_the_loop_is_known_nobody_looks(looks):
    looks.rounds.soon()
    looks.rounds.from_thread(lambda: pytest.fail("there is no loop"))
    assert looks.seen == []


def test_however_often_it_is_asked_for_there_is_one_look(looks):
    async def often():
        looks.rounds.on(asyncio.get_running_loop())
        for delay_s in (3600.0, 0.0, 0.0, 3600.0):
            looks.rounds.again(delay_s)
        assert looks.seen == []
        await rounds()

    run(often())
    assert looks.seen == [False]


@pytest.mark.parametrize(("took_s", "busy"), [(0.0, False), (QUIET_S / 2, False), (2 * QUIET_S, True)])
def test_a_round_that_took_longer_than_an_empty_one_was_busy(looks, took_s, busy):
    async def one():
        looks.rounds.on(asyncio.get_running_loop())
        looks.rounds.soon()
        looks.clock.advance(took_s)
        await rounds()

    run(one())
    assert looks.seen == [busy]


def test_a_look_at_once_takes_the_place_of_those_that_were_asked_for(looks):
    async def two():
        looks.rounds.on(asyncio.get_running_loop())
        looks.rounds.soon()
        looks.clock.advance(1.0)
        looks.rounds.now()
        await rounds()

    run(two())
    assert looks.seen == [False]


def test_behind_a_queue_the_loop_is_busy_until_nobody_has_come_for_a_while(looks):
    async def watched():
        looks.rounds.on(asyncio.get_running_loop())
        looks.rounds.queued = True
        for passes_s in (QUEUE_QUIET_S / 2, QUEUE_QUIET_S, 0.0):
            looks.rounds.again()
            await rounds(1)
            looks.clock.advance(passes_s)
        return looks.seen

    looks.clock.advance(1.0)
    looks.rounds.soon()
    assert run(watched()) == [True, True, False]


def test_behind_a_queue_nobody_is_waited_for_through_many_empty_rounds_whatever_the_clock_says(looks):
    async def many():
        looks.rounds.on(asyncio.get_running_loop())
        looks.rounds.queued = True
        looks.rounds.soon()
        for _ in range(QUEUE_QUIET_ROUNDS + 1):
            await rounds(1)
            looks.rounds.again()
        return looks.seen

    seen = run(many())
    assert seen[0]
    assert not seen[-1]
