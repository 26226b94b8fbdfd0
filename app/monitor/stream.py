"""The monitor's streams: stages run, what they did is committed, and whatever goes wrong ends the process by name.

faust brings the consumer group, the assignment of partitions, and a stream for each topic. What it does not do well is
done here and in the modules put together here, each for a reason in docs/decisions/0007:

- it acknowledges an event when an agent fails on it, and loses count of offsets at transaction markers: here agents
  only fill inboxes, nothing is ever acknowledged, and we commit offsets ourselves, of what is durable
- it goes on when an agent has died: here the first error of anything ends the process, by name
- its tables may be restored in part, or never: here changelogs are read by `changelog.py`
- it may go on behind records that it dropped: `driver.py` seeks to where each partition has to be read from
- it may stop consuming and say nothing: here records that are there and do not come end the process as well
- it may never stop: here it gets a few seconds, and then the process ends all the same, having nothing to lose
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from aiokafka.errors import IllegalStateError  # type: ignore[import-untyped]
from faust.types import TP

from app.clock import Clock
from app.errors import MonitorFailed
from app.monitor.library import FaustLibrary, StreamPolicy
from app.monitor.progress import Progress
from app.monitor.stage import Fact, Read, Send, Stage
from app.monitor.stage_run import StageRun

COMMIT_S = 1.0
LOOK_S = 1.0  # between two looks at the progress
STOP_WITHIN_S = 8.0


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
    ) -> None:
        """own_topics: to be made, with so many partitions, of what stages send to one another."""
        self._policy, self._clock = policy, clock
        self._progress = Progress(policy.stalled_s)
        self._library = FaustLibrary(policy, self._progress)
        self._app = self._library.app
        self._runs = [StageRun(stage, self._library, clock, tell=tell, finished=self._finished) for stage in stages]
        self._done: dict[TP, int] = {}
        self._committed: dict[TP, int] = {}
        self._epoch = 0
        self._settled_s = 0.0
        self._failed: asyncio.Future[BaseException] | None = None
        for run in self._runs:
            for topic in run.stage.topics:
                self._library.pump(run.stage, topic, own_topics.get(topic), run.inbox, self._fail)
        self._library.listen(self._ended, self._begun)

    async def run(self, publishing: Publishing, started: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT. Raises MonitorFailed with what ended it."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        starting = loop.create_task(self._app.start())
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
        for run in self._runs:
            run.begin_anew()

    def _finished(self, records: Sequence[Read]) -> None:
        for record in records:
            self._done[TP(record.topic, record.partition)] = record.offset + 1
            self._progress.finished(record.topic, record.partition, record.offset)

    async def _commits(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            await self._commit()

    async def _commit(self) -> None:
        """Of what is durable; watermarks make up for what is not committed."""
        due = {tp: offset for tp, offset in self._done.items() if self._committed.get(tp) != offset}
        epoch = self._epoch
        if due and self._library.settled:
            committer: Any = self._app.consumer
            done = await committer._commit(due)  # noqa: SLF001 - the only way past faust's count of acknowledgements
            if done and epoch == self._epoch:
                self._committed |= due

    async def _watches(self) -> None:
        """What is wrong without an error; it waits for nothing that the library would have to answer."""
        self._settled_s = self._clock.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            if self._app.crash_reason is not None:
                raise self._app.crash_reason
            if self._app.should_stop:
                raise RuntimeError("the stream library stopped by itself")
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
        names = {topic for run in self._runs for topic in run.stage.topics}
        for tp in [tp for tp in self._app.consumer.assignment() if tp.topic in names]:
            try:
                end, position = await self._end_and_position(tp)
            except (IllegalStateError, AssertionError, AttributeError):  # not ours any more, and we were not told yet
                return False
            if epoch != self._epoch:
                return False
            self._progress.look(tp.topic, tp.partition, end, position, self._clock.monotonic())
        return True

    async def _end_and_position(self, tp: TP) -> tuple[int | None, int | None]:
        """Where reading ends, and where it is. The consumer knows the end of what it has fetched; else it asks."""
        consumer: Any = self._app.consumer
        position = await consumer.position(tp)
        end = consumer.highwater(tp)
        if end is None:
            end = (await consumer.highwaters(tp)).get(tp)
        return end, position

    async def _publishes(self, publishing: Publishing) -> None:
        while True:
            await asyncio.sleep(self._policy.publish_s)
            if self.ready:
                for step in await asyncio.to_thread(publishing.look()):
                    await self._library.send(step)

    async def _stop(self) -> None:
        stopping = asyncio.ensure_future(self._app.stop())
        await asyncio.wait([stopping], timeout=STOP_WITHIN_S)
        if not stopping.done() or stopping.exception() is not None:
            structlog.get_logger().warning("not_stopped_in_order")  # the process ends all the same
