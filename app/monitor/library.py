"""faust as the stages' runs see it: a group, a consumer that fills inboxes, a producer that is waited for."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import faust
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from faust.types import TP

from app.monitor.changelog import Changelogs
from app.monitor.driver import CommittedConsumer, CommittedTransport
from app.monitor.inbox import Inbox
from app.monitor.reading import Place, Reading
from app.monitor.stage import Send
from app.monitor.stream import StreamPolicy

MOST_IN_BATCH = 262_144  # bytes; the library's 16 KiB have a micro-batch's changes wait for the broker dozens of times
PRODUCE_WITHIN_S = 40.0  # the library's 20 minutes would hide a connection that hangs
AGES_S = 10 * 365 * 86_400.0


class FaustLibrary:
    """The app of one process: a `Library`, and what fills the inboxes."""

    def __init__(self, policy: StreamPolicy, reading: Reading, fail: Callable[[BaseException], None]) -> None:
        """reading: of the topics that are fed. fail: gets what ended it."""
        self.app, self.reading = _app(policy), reading
        self.app.transport = CommittedTransport(self.app.conf.broker_consumer, self.app, reading, fail)
        connection = {
            "bootstrap_servers": policy.bootstrap_servers,
            **credentials_to_aiokafka_auth(self.app.conf.broker_credentials, self.app.conf.ssl_context),
        }
        self._changelogs = Changelogs(policy.group_id, connection, lambda: self.app.producer)
        self._assigned = False

    def listen(self, ended: Callable[[], Awaitable[None]], begun: Callable[[], None]) -> None:
        """ended: an assignment goes, and is kept until this returns. begun: one is there, and nothing of it read."""

        async def revoked(app: Any, gone: Any, **_: Any) -> None:  # noqa: ANN401, ARG001 - a faust signal
            self._assigned = False
            await ended()

        async def complete(app: Any, **_: Any) -> None:  # noqa: ANN401, ARG001 - a faust signal
            begun()
            self._assigned = True

        on_revoked: Any = self.app.on_partitions_revoked
        on_complete: Any = self.app.on_rebalance_complete
        on_revoked.connect(revoked, weak=False)
        on_complete.connect(complete, weak=False)

    def feed(self, topic: str, partitions: int, inbox: Inbox) -> None:
        """Have a topic read, and its records put there. To be called before the app starts."""
        source = self.app.topic(topic, key_type=bytes, value_type=bytes, partitions=partitions, allow_empty=True)
        self.app.topics.add(source)
        self.reading.feed(topic, inbox)

    async def start(self) -> None:
        """Returns when it takes part in its group, or is about to."""
        await self.app.start()

    async def stop(self) -> None:
        """May never return, or raise anything."""
        await self.app.stop()

    def check(self) -> None:
        """Raises what ended it by itself, if anything did."""
        if self.app.crash_reason is not None:
            raise self.app.crash_reason
        if self.app.should_stop:
            raise RuntimeError("the stream library stopped by itself")

    @property
    def settled(self) -> bool:
        """Whether there is an assignment, and no rebalance goes on."""
        return self._assigned and not self.app.rebalancing

    def ours(self, topics: Sequence[str]) -> frozenset[int]:
        """The numbers of our partitions of these topics."""
        return frozenset(tp.partition for tp in self.app.consumer.assignment() if tp.topic in topics)

    async def ends(self) -> Mapping[Place, int]:
        """Of each partition of ours where reading ends now, as the broker says."""
        consumer: CommittedConsumer = self.app.consumer  # type: ignore[assignment]
        return await consumer.committed_thread.ends()

    async def commit(self, offsets: Mapping[Place, int]) -> bool:
        """False if that was not done, because of a rebalance."""
        consumer: CommittedConsumer = self.app.consumer  # type: ignore[assignment]
        return await consumer._commit({TP(*place): offset for place, offset in offsets.items()})  # noqa: SLF001 - past acks

    async def keep(self, table: str, partition: int, changes: Mapping[bytes, bytes | None]) -> None:
        """Returns when the changes are in the changelog topic, acknowledged."""
        await self._changelogs.keep(table, partition, changes)

    async def kept(self, table: str, partitions: frozenset[int]) -> Sequence[tuple[int, bytes, bytes]]:
        """(partition, key, value) of what a table has of these partitions."""
        return await self._changelogs.kept(table, partitions)

    async def send(self, step: Send) -> None:
        """Returns when the records are acknowledged."""
        producer = self.app.producer
        waiting = [await producer.send(step.topic, key, value, None, None, None) for key, value in step.records]
        await asyncio.gather(*waiting)


def _app(policy: StreamPolicy) -> faust.App:
    return faust.App(
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
        broker_commit_livelock_soft_timeout=AGES_S,  # nothing is ever acknowledged: docs/decisions/0007
        stream_processing_timeout=AGES_S,  # likewise; `Progress` looks at what comes
        stream_wait_empty=False,  # likewise: it would wait for acknowledgements
        producer_linger=0.005,  # seconds, whatever the documentation says
        producer_max_batch_size=MOST_IN_BATCH,
        producer_request_timeout=PRODUCE_WITHIN_S,
        **policy.faust,
    )
