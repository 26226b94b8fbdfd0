"""A run: each request at its intended time (open loop), or each caller as fast as it is answered (closed loop).

The open loop is what users do: they do not wait for one another. A server that stalls is asked on, and every
request that was due meanwhile counts with the time it took from when it was meant to be sent. A closed loop
asks less of a slow server, so it says how much a server can do, and little about how long users wait.
"""

import asyncio
import math
from collections.abc import Callable

from loadgen.online.load_clock import LoadClock
from loadgen.online.load_log import LoadLog, Outcomes
from loadgen.online.load_plan import LoadPlan
from loadgen.online.target import NOT_SENT, Reply, Target
from loadgen.pacing import Schedule

AHEAD_MS = 100  # how far the schedule is walked at once
BURST = 4096  # intended times taken at once
PROGRESS_EVERY = 256  # requests: a progress bar costs as much as a request

Progress = Callable[[int], None]


async def run_load(plan: LoadPlan, target: Target, clock: LoadClock, progress: Progress) -> Outcomes:
    """Ask all that the plan says, and return when the last request has ended.

    Raises ServerFailed if the server does not answer before the run; nothing was measured then.
    """
    await target.open()
    try:
        log = LoadLog(plan.warmup_s * 1000.0)
        # a clock of the run's own: the first request is due at 0
        run = _Run(target, clock, clock.now_ms(), log, progress)
        await (run.closed(plan) if plan.pace.unpaced else run.opened(plan))
        return log.outcomes()
    finally:
        await target.close()


class _Run:
    def __init__(self, target: Target, clock: LoadClock, start_ms: float, log: LoadLog, progress: Progress) -> None:
        self._target = target
        self._clock = clock
        self._start_ms = start_ms
        self._log = log
        self._progress = progress
        self._in_flight = 0

    def _now(self) -> float:
        return self._clock.now_ms() - self._start_ms

    async def opened(self, plan: LoadPlan) -> None:
        total = plan.extent.paced_total(plan.pace)
        schedule = Schedule(plan.pace, total)
        number = 0
        horizon = 0
        async with asyncio.TaskGroup() as tasks:
            while not schedule.finished:
                times = schedule.take(horizon, BURST)
                if len(times) == 0:
                    # walked up to here, and nothing more is due before it
                    await self._clock.sleep_until(self._start_ms + horizon - AHEAD_MS)
                    horizon = max(horizon, int(self._now())) + AHEAD_MS
                for intended in times.tolist():
                    # sleeps even when late: the requests already sent need their turn to be answered
                    await self._clock.sleep_until(self._start_ms + intended)
                    if self._in_flight >= plan.max_in_flight:
                        now = self._now()
                        self._log.add(intended, now, now, Reply(NOT_SENT))
                    else:
                        self._in_flight += 1
                        tasks.create_task(self._ask(number, intended))
                    number += 1

    async def closed(self, plan: LoadPlan) -> None:
        total = plan.extent.events
        until_ms = math.inf if plan.extent.duration_s is None else plan.extent.duration_s * 1000.0
        numbers = iter(range(total)) if total is not None else iter(range(2**62))

        async def caller() -> None:
            for number in numbers:  # shared: each number is asked once
                now = self._now()
                if now >= until_ms:
                    return
                self._in_flight += 1
                await self._ask(number, now)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(plan.callers):
                tasks.create_task(caller())

    async def _ask(self, number: int, intended_ms: float) -> None:
        sent_ms = self._now()
        reply = await self._target.ask(number)
        self._in_flight -= 1
        self._log.add(intended_ms, sent_ms, self._now(), reply)
        if self._log.ended % PROGRESS_EVERY == 0:
            self._progress(self._log.ended)
