"""The monitor's streams: stages run, what they did is committed, and whatever goes wrong ends the process by name.

faust brings the consumer group, the assignment of partitions, its consumer and its producer. What it does not do well
is done here and in the modules put together here, each for a reason in docs/decisions/0007:

- it drops records that were read before and after a seek at once: `reading.py` says from where each read goes on, and
  what was read is in the inbox of a stage before the next read begins
- it acknowledges an event when an agent fails on it, and loses count of offsets at transaction markers: here there are
  no agents, nothing is ever acknowledged, and we commit offsets ourselves, of what is durable
- it goes on when a part of it has died: here the first error of anything ends the process, by name
- its tables may be restored in part, or never: here changelogs are read by `changelog.py`
- it may stop consuming and say nothing: here records that are there and do not come end the process as well
- it may never stop: here it gets a few seconds, and then the process ends all the same, having nothing to lose
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from app.clock import Clock
from app.errors import MonitorFailed
from app.monitor.inbox import Inbox
from app.monitor.progress import Progress
from app.monitor.reading import Place, Reading
from app.monitor.stage import Fact, Read, Send, Stage
from app.monitor.stage_run import Library, StageRun

COMMIT_S = 1.0
LOOK_S = 1.0  # between two looks at the progress
STOP_WITHIN_S = 8.0


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """How the monitor takes part in its group. faust: further settings of the library, as for security."""

    group_id: str
    bootstrap_servers: str
    data_directory: str
    session_timeout_s: float = 10.0
    start_from: str = "earliest"
    replication: int = 1
    stalled_s: float = 120.0
    publish_s: float = 5.0
    faust: Mapping[str, Any] = field(default_factory=dict, repr=False)


class StreamLibrary(Library, Protocol):
    """What the stages need of the library, and what their stream does."""

    def listen(self, ended: Callable[[], Awaitable[None]], begun: Callable[[], None]) -> None:
        """ended: an assignment goes, and is kept until this returns. begun: one is there, and nothing of it read."""
        ...

    def feed(self, topic: str, partitions: int, inbox: Inbox) -> None:
        """Have a topic read, and its records put there. To be called before `start`."""
        ...

    async def start(self) -> None:
        """Returns when it takes part in its group, or is about to."""
        ...

    async def stop(self) -> None:
        """May never return, or raise anything."""
        ...

    def check(self) -> None:
        """Raises what ended it by itself, if anything did."""
        ...

    async def ends(self) -> Mapping[Place, int]:
        """Of each partition of ours where reading ends now, as the broker says."""
        ...

    async def commit(self, offsets: Mapping[Place, int]) -> bool:
        """False if that was not done, because of a rebalance."""
        ...


class Publishing(Protocol):
    """What is to be told of what the stages know; asked every so often."""

    def look(self) -> Callable[[], Sequence[Send]]:
        """Take what is to be told now. What comes back is called on a thread, and its result sent."""
        ...


class MonitorStream:
    """Runs stages. `run` is to be called once, in an event loop."""

    def __init__(
        self,
        policy: StreamPolicy,
        stages: Sequence[Stage],
        own_topics: Mapping[str, int],
        tell: Callable[[Fact], None],
        clock: Clock,
        connect: Callable[[StreamPolicy, Reading, Callable[[BaseException], None]], StreamLibrary],
    ) -> None:
        """own_topics: with so many partitions, of what stages send to one another.

        connect: the library, given what it reads for, and what it is to call with what ended its reading.
        """
        self._policy, self._clock = policy, clock
        self._progress = Progress(policy.stalled_s)
        self._done: dict[Place, int] = {}
        # where reading begins is done: with `latest`, a restart would begin behind what came meanwhile
        self._reading = Reading(self._progress.fetched, self._done.update)
        self._library = connect(policy, self._reading, self._fail)
        self._runs = [StageRun(stage, self._library, clock, tell=tell, finished=self._finished) for stage in stages]
        self._committed: dict[Place, int] = {}
        self._epoch = 0
        self._settled_s = 0.0
        self._failed: asyncio.Future[BaseException] | None = None
        for run in self._runs:
            for topic in run.stage.topics:
                self._library.feed(topic, own_topics.get(topic, run.stage.partitions), run.inbox)
        self._library.listen(self._ended, self._begun)

    async def run(self, publishing: Publishing, started: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT. Raises MonitorFailed with what ended it."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        starting = loop.create_task(self._library.start())
        waits: list[asyncio.Future[Any]] = [loop.create_task(stop.wait()), self._failed]
        await asyncio.wait([starting, *waits], timeout=self._policy.stalled_s, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return
        self._raise_failure()
        if not starting.done():
            raise MonitorFailed(f"it has not started within {self._policy.stalled_s:g} s")
        if (exc := starting.exception()) is not None:
            raise MonitorFailed(f"it could not start: {type(exc).__name__}: {exc}") from exc
        started()
        tasks = [loop.create_task(self._guarded(work)) for work in self._work(publishing)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not self._failed.done():
                await self._commit()
        finally:
            for task in [*tasks, *waits]:
                task.cancel()
            await self._stop()
        self._raise_failure()

    @property
    def ready(self) -> bool:
        """Whether partitions were assigned and their tables are restored."""
        return self._library.settled and all(run.restored for run in self._runs)

    def stuck(self) -> str | None:
        """What is wrong with the progress, or None."""
        return self._progress.wrong(self._clock.monotonic())

    def lag(self) -> dict[tuple[str, int], int]:
        """Records that are there and were not taken in, by topic and partition of ours."""
        return self._progress.lag()

    def _work(self, publishing: Publishing) -> list[Awaitable[None]]:
        return [
            *(run.drain() for run in self._runs),
            self._commits(),
            self._looks(),
            self._watches(),
            self._publishes(publishing),
        ]

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, it ends the process by name
            self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(exc)

    def _raise_failure(self) -> None:
        if self._failed is not None and self._failed.done() and not self._failed.cancelled():
            exc = self._failed.result()
            raise MonitorFailed(f"{type(exc).__name__}: {exc}") from exc

    async def _ended(self) -> None:
        """Returns when nothing of the old assignment will be written any more."""
        structlog.get_logger().info("assignment_ended")
        self._begin_anew()
        for run in self._runs:
            await run.quiet()
        self._done.clear()
        self._committed.clear()
        self._progress.begin_anew()

    def _begun(self) -> None:
        """Nothing was read of the new assignment yet; what was of the old one is void, if the library let any pass."""
        self._begin_anew()
        self._progress.begin_anew()
        structlog.get_logger().info("assignment_begun")

    def _begin_anew(self) -> None:
        self._epoch += 1
        self._reading.begin_anew()
        for run in self._runs:
            run.begin_anew()

    def _finished(self, records: Sequence[Read]) -> None:
        for record in records:
            self._done[record.topic, record.partition] = record.offset + 1
            self._progress.finished(record.topic, record.partition, record.offset)

    async def _commits(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            await self._commit()

    async def _commit(self) -> None:
        """Of what is durable; watermarks make up for what is not committed."""
        due = {place: offset for place, offset in self._done.items() if self._committed.get(place) != offset}
        epoch = self._epoch
        if due and self._library.settled:
            done = await self._library.commit(due)
            if done and epoch == self._epoch:
                self._committed |= due

    async def _watches(self) -> None:
        """What is wrong without an error; it waits for nothing that the library would have to answer."""
        self._settled_s = self._clock.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            self._library.check()
            unsettled_s = self._clock.monotonic() - self._settled_s
            if unsettled_s > self._policy.stalled_s:
                raise RuntimeError(f"a rebalance, or the consumer's answer, is not there after {unsettled_s:.0f} s")

    async def _looks(self) -> None:
        """At how far it is. Each step may have to wait for the library: `_watches` sees to it that it comes back."""
        while True:
            await asyncio.sleep(LOOK_S)
            if await self._look():
                self._settled_s = self._clock.monotonic()
            wrong = self.stuck()
            if wrong:
                raise RuntimeError(wrong)

    async def _look(self) -> bool:
        """False if there is no assignment to look at, or it went in the middle of it. Then what was seen is void."""
        epoch = self._epoch
        if not self._library.settled:
            return False
        for run in self._runs:
            await run.restore()
        if epoch != self._epoch:
            return False
        ends = await self._library.ends()
        if epoch != self._epoch:
            return False
        for (topic, partition), end in ends.items():
            place = self._reading.place(topic, partition)
            self._progress.look(topic, partition, end, place, self._clock.monotonic())
        return True

    async def _publishes(self, publishing: Publishing) -> None:
        while True:
            await asyncio.sleep(self._policy.publish_s)
            if self.ready:
                for step in await asyncio.to_thread(publishing.look()):
                    await self._library.send(step)

    async def _stop(self) -> None:
        stopping = asyncio.ensure_future(self._library.stop())
        await asyncio.wait([stopping], timeout=STOP_WITHIN_S)
        if not stopping.done() or stopping.exception() is not None:
            structlog.get_logger().warning("not_stopped_in_order")  # the process ends all the same
