"""The faust app: streams fill inboxes, stages empty them, and what they keep is durable before it is committed.

faust brings the consumer group, the assignment of partitions with their tables, the changelogs and their recovery. What
it does not do well is done here, each for a reason in docs/decisions/0007:

- it acknowledges an event when an agent fails on it, and loses count of offsets at transaction markers: here agents
  only fill inboxes, nothing is ever acknowledged, and we commit offsets ourselves, of what is durable
- it goes on when an agent has died: here the first error of anything ends the process, by name
- it may lose the end of a recovery: `recovery.py` keeps it
- it may stop consuming and say nothing: here records that are there and do not come end the process as well
- it may never stop: here it gets a few seconds, and then the process ends all the same, having nothing to lose
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import faust
import structlog
from faust.types import TP

from app.clock import Clock
from app.errors import MonitorFailed, SchemaRegistryUnavailable, SchemasPending
from app.monitor.driver import CommittedTransport
from app.monitor.inbox import Inbox
from app.monitor.progress import Progress
from app.monitor.recovery import SteadyRecovery
from app.monitor.stage import Fact, Keep, Read, Send, Stage, Taken
from app.monitor.table import DurableTable

MOST_WAITING = 4_096  # records in an inbox
MOST_TAKEN = 512  # records of a micro-batch
COMMIT_S = 1.0
LINGER_S = 0.5  # of a micro-batch: sums are written once for all of its records, at a tenth of the cost of each
LOOK_S = 1.0  # between two looks at the progress
STOP_WITHIN_S = 8.0
SCHEMA_PAUSE_S = 1.0

Tell = Callable[[Fact], None]
Publish = Callable[[], Callable[[], Sequence[Send]]]


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


class MonitorStream:
    """Runs stages. `run` is to be called once, in an event loop."""

    def __init__(
        self, policy: StreamPolicy, stages: Sequence[Stage], own_topics: Mapping[str, int], tell: Tell, clock: Clock
    ) -> None:
        """own_topics: to be made, with so many partitions, of what stages send to one another."""
        self._policy, self._stages, self._tell, self._clock = policy, stages, tell, clock
        self._app = _app(policy)
        self._tables = {
            name: DurableTable(self._app, name=name, key_type=bytes, value_type=bytes, partitions=stage.partitions)
            for stage in stages
            for name in stage.tables
        }
        for table in self._tables.values():
            self._app.tables.add(table)
        self._inboxes = {stage.name: Inbox(MOST_WAITING) for stage in stages}
        self._locks = {stage.name: asyncio.Lock() for stage in stages}
        self._progress = Progress(policy.stalled_s)
        self._app.sensors.add(_Fetched(self._progress))
        self._own = own_topics
        self._done: dict[TP, int] = {}
        self._committed: dict[TP, int] = {}
        self._generation = 0
        self._restored: dict[str, int] = {}
        self._settled_s = 0.0
        self._failed: asyncio.Future[BaseException] | None = None
        for stage in stages:
            for topic in stage.topics:
                self._pump(stage, topic)
        revoked: Any = self._app.on_partitions_revoked
        complete: Any = self._app.on_rebalance_complete
        revoked.connect(self._revoked, weak=False)
        complete.connect(self._rebalanced, weak=False)

    async def run(self, publish: Publish, started: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT. publish: every so often; what it gives is called on a thread, and its result sent.

        Raises MonitorFailed with what ended it.
        """
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
        if not starting.done():
            raise MonitorFailed(f"its tables were not restored within {self._policy.stalled_s:g} s")
        starting.result()
        started()
        tasks = [loop.create_task(self._guarded(work)) for work in self._work(publish)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not self._failed.done():
                await self._commit()
        finally:
            for task in [*tasks, *waits]:
                task.cancel()
            await self._stop()
        if self._failed.done() and not self._failed.cancelled():
            exc = self._failed.result()
            raise MonitorFailed(f"{type(exc).__name__}: {exc}") from exc

    @property
    def ready(self) -> bool:
        """Whether partitions were assigned and their tables are restored."""
        return self._generation > 0 and all(self._restored.get(s.name) == self._generation for s in self._stages)

    def stuck(self) -> str | None:
        """What is wrong with the progress, or None."""
        return self._progress.wrong(self._clock.monotonic())

    def lag(self) -> dict[tuple[str, int], int]:
        """Records that are there and were not taken in, by topic and partition of ours."""
        return self._progress.lag()

    def _work(self, publish: Publish) -> list[Awaitable[None]]:
        return [
            *(self._drain(stage) for stage in self._stages),
            self._commits(),
            self._looks(),
            self._watches(),
            self._publishes(publish),
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

    def _pump(self, stage: Stage, topic: str) -> None:
        """An agent that does nothing but fill the stage's inbox."""
        partitions = self._own.get(topic)
        source = self._app.topic(
            topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw",
            partitions=partitions or stage.partitions, internal=partitions is not None, allow_empty=True,
        )  # fmt: skip
        inbox = self._inboxes[stage.name]

        async def pump(stream: Any) -> None:  # noqa: ANN401 - faust's stream
            events: AsyncIterator[Any] = stream.noack().events()
            try:
                async for event in events:
                    message = event.message
                    timestamp_ms = round(1000 * (message.timestamp or 0))
                    await inbox.put(
                        Read(message.topic, message.partition, message.offset, timestamp_ms, message.key, message.value)
                    )
            except Exception as exc:
                self._fail(exc)
                raise

        self._app.agent(source, name=f"{stage.name}-{topic}")(pump)

    async def _drain(self, stage: Stage) -> None:
        """Micro-batch after micro-batch, each durable before the next."""
        inbox, lock = self._inboxes[stage.name], self._locks[stage.name]
        while True:
            if len(inbox) < MOST_TAKEN:
                await asyncio.sleep(LINGER_S)
            records = await inbox.take(MOST_TAKEN)
            generation = self._generation
            async with lock:
                if generation != self._generation:
                    continue  # they may be somebody else's by now; if not they are read again
                await self._restore(stage)
                for partition, part in _by_partition(records).items():
                    taken = await self._taken(stage, partition, part, generation)
                    if taken is None:
                        break
                    await self._carry_out(partition, taken)
                    for fact in taken.facts:
                        self._tell(fact)
                if generation != self._generation:
                    continue
                for record in records:
                    self._done[TP(record.topic, record.partition)] = record.offset + 1
                    self._progress.finished(record.topic, record.partition, record.offset)

    async def _taken(self, stage: Stage, partition: int, records: Sequence[Read], generation: int) -> Taken | None:
        """None if the partitions have gone while a schema was waited for."""
        while generation == self._generation:
            try:
                return stage.take(partition, records, self._clock.now_ms())
            except (SchemaRegistryUnavailable, SchemasPending) as exc:
                structlog.get_logger().warning("waiting_for_a_schema", stage=stage.name, error=str(exc))
                await asyncio.sleep(SCHEMA_PAUSE_S)
        return None

    async def _carry_out(self, partition: int, taken: Taken) -> None:
        for step in taken.steps:
            if isinstance(step, Keep):
                await self._tables[step.table].keep(partition, step.changes)
            else:
                await self._send(step)

    async def _send(self, step: Send) -> None:
        producer = self._app.producer
        waiting = [await producer.send(step.topic, key, value, None, None, None) for key, value in step.records]
        for acknowledged in waiting:
            await acknowledged

    async def _restore(self, stage: Stage) -> None:
        """After each rebalance the stage begins anew with what the changelogs have."""
        if self._restored.get(stage.name) == self._generation:
            return
        ours = self._ours(stage)
        for step in stage.restore({name: self._tables[name].kept(ours) for name in stage.tables}):
            await self._send(step)
        self._restored[stage.name] = self._generation

    def _ours(self, stage: Stage) -> frozenset[int]:
        return frozenset(tp.partition for tp in self._app.consumer.assignment() if tp.topic in stage.topics)

    async def _revoked(self, app: Any, revoked: Any, **_: Any) -> None:  # noqa: ANN401, ARG002 - a faust signal
        """Returns when nothing of the old assignment will be written any more."""
        self._generation += 1
        for inbox in self._inboxes.values():
            inbox.clear()
        for lock in self._locks.values():
            async with lock:
                pass
        self._done.clear()
        self._committed.clear()
        self._progress.begin_anew()

    async def _rebalanced(self, app: Any, **_: Any) -> None:  # noqa: ANN401, ARG002 - a faust signal
        self._generation += 1

    async def _commits(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            await self._commit()

    async def _commit(self) -> None:
        """Of what is durable; watermarks make up for what is not committed."""
        due = {tp: offset for tp, offset in self._done.items() if self._committed.get(tp) != offset}
        if due and not self._app.rebalancing:
            committer: Any = self._app.consumer
            if await committer._commit(due):  # noqa: SLF001 - the only way past faust's count of acknowledgements
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
            if self._app.rebalancing or self._generation == 0:
                continue
            for stage in self._stages:
                async with self._locks[stage.name]:
                    await self._restore(stage)
            consumer: Any = self._app.consumer
            names = {topic for stage in self._stages for topic in stage.topics}
            for tp in consumer.assignment():
                if tp.topic in names:
                    end = consumer.highwater(tp)
                    position = await consumer.position(tp)
                    self._progress.look(tp.topic, tp.partition, end, position, self._clock.monotonic())
            wrong = self.stuck()
            if wrong:
                raise RuntimeError(wrong)
            self._settled_s = self._clock.monotonic()

    async def _publishes(self, publish: Publish) -> None:
        while True:
            await asyncio.sleep(self._policy.publish_s)
            if self.ready and not self._app.rebalancing:
                for step in await asyncio.to_thread(publish()):
                    await self._send(step)

    async def _stop(self) -> None:
        stopping = asyncio.ensure_future(self._app.stop())
        await asyncio.wait([stopping], timeout=STOP_WITHIN_S)
        if not stopping.done() or stopping.exception() is not None:
            structlog.get_logger().warning("not_stopped_in_order")  # the process ends all the same


class _Fetched(faust.Sensor):
    """Sees each record as the library gets it."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def on_message_in(self, tp: Any, offset: int, message: Any) -> None:  # noqa: ANN401, ARG002 - faust's
        """A record came from the broker."""
        self._progress.fetched(tp.topic, tp.partition, offset)


def _app(policy: StreamPolicy) -> faust.App:
    app = faust.App(
        policy.group_id,
        broker=[f"kafka://{server}" for server in policy.bootstrap_servers.split(",")],
        store="memory://",
        datadir=policy.data_directory,
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_replication_factor=policy.replication,
        consumer_auto_offset_reset=policy.start_from,
        broker_session_timeout=policy.session_timeout_s,
        broker_heartbeat_interval=policy.session_timeout_s / 5,
        broker_commit_livelock_soft_timeout=10 * 365 * 86_400.0,  # nothing is ever acknowledged: see above
        stream_processing_timeout=10 * 365 * 86_400.0,  # likewise; `Progress` looks at what comes
        stream_wait_empty=False,  # likewise: it would wait for acknowledgements
        producer_linger=0.005,  # seconds, whatever the documentation says
        **policy.faust,
    )
    app.transport = CommittedTransport(app.conf.broker_consumer, app)
    tables: Any = app.tables
    # before it makes its own
    tables._recovery = SteadyRecovery(app, tables, beacon=tables.beacon, loop=tables.loop)  # noqa: SLF001
    return app


def _by_partition(records: Sequence[Read]) -> dict[int, list[Read]]:
    found: dict[int, list[Read]] = {}
    for record in records:
        found.setdefault(record.partition, []).append(record)
    return found
