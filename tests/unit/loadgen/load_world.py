"""A run's world without a machine: time that passes when everybody waits, and a server that is a function."""

import asyncio
import heapq
import itertools

from loadgen.online.target import ANSWERED, Reply

TURNS = 12  # of the event loop: after so many without a word everybody waits for time to pass


class VirtualClock:
    """Time stands still while anybody has something to do, and then jumps to who wakes first."""

    def __init__(self):
        self._now_ms = 1_000.0
        self._sleepers = []
        self._order = itertools.count()
        self._driver = None

    def now_ms(self):
        return self._now_ms

    async def sleep_until(self, at_ms):
        if at_ms <= self._now_ms:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (at_ms, next(self._order), woken))
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        await woken

    async def _drive(self):
        while self._sleepers:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            self._now_ms, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)


class ServerOfTimes:
    """Takes `takes_ms(number)` for a request; `asked` has each number and when it came."""

    rows = 1
    description = "a function"

    def __init__(self, clock, takes_ms, outcome=lambda number: ANSWERED):
        self.asked, self.at_once, self.is_open = [], 0, False
        self._clock, self._takes_ms, self._outcome, self._now = clock, takes_ms, outcome, 0

    async def open(self):
        self.is_open = True
        self._start_ms = self._clock.now_ms()

    async def ask(self, number):
        self.asked.append((number, self._clock.now_ms() - self._start_ms))
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        await self._clock.sleep_until(self._clock.now_ms() + self._takes_ms(number))
        self._now -= 1
        return Reply(self._outcome(number), "1")

    async def close(self):
        self.is_open = False
