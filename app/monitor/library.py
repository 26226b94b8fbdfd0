"""faust as the stages' runs see it: a group, streams that fill inboxes, a producer that is waited for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import faust
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from app.monitor.changelog import Changelogs
from app.monitor.driver import CommittedTransport
from app.monitor.inbox import Inbox
from app.monitor.progress import Progress
from app.monitor.stage import Read, Send, Stage

MOST_IN_BATCH = 262_144  # bytes; the library's 16 KiB have a micro-batch's changes wait for the broker dozens of times
PRODUCE_WITHIN_S = 40.0  # the library's 20 minutes would hide a connection that hangs
AGES_S = 10 * 365 * 86_400.0


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


class FaustLibrary:
    """The app of one process: a `Library`, and the streams that fill the inboxes."""

    def __init__(self, policy: StreamPolicy, progress: Progress) -> None:
        self.app = _app(policy)
        connection = {
            "bootstrap_servers": policy.bootstrap_servers,
            **credentials_to_aiokafka_auth(self.app.conf.broker_credentials, self.app.conf.ssl_context),
        }
        self._changelogs = Changelogs(policy.group_id, connection, lambda: self.app.producer)
        self.app.sensors.add(_Fetched(progress))
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

    def pump(
        self, stage: Stage, topic: str, own_partitions: int | None, inbox: Inbox, fail: Callable[[BaseException], None]
    ) -> None:
        """An agent that does nothing but fill an inbox. own_partitions: of a topic that is the monitor's own."""
        source = self.app.topic(
            topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw",
            partitions=own_partitions or stage.partitions, internal=own_partitions is not None, allow_empty=True,
        )  # fmt: skip

        async def pump(stream: Any) -> None:  # noqa: ANN401 - faust's stream
            events: AsyncIterator[Any] = stream.noack().events()
            try:
                async for event in events:
                    message = event.message
                    timestamp_ms = round(1000 * (message.timestamp or 0))
                    await inbox.put(
                        Read(message.topic, message.partition, message.offset, timestamp_ms, message.key, message.value)
                    )
            except Exception as exc:  # whatever it is: the library would go on without this agent
                fail(exc)
                raise

        self.app.agent(source, name=f"{stage.name}-{topic}")(pump)

    @property
    def settled(self) -> bool:
        """Whether there is an assignment, and no rebalance goes on."""
        return self._assigned and not self.app.rebalancing

    def ours(self, topics: Sequence[str]) -> frozenset[int]:
        """The numbers of our partitions of these topics."""
        return frozenset(tp.partition for tp in self.app.consumer.assignment() if tp.topic in topics)

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
        broker_commit_livelock_soft_timeout=AGES_S,  # nothing is ever acknowledged: docs/decisions/0007
        stream_processing_timeout=AGES_S,  # likewise; `Progress` looks at what comes
        stream_wait_empty=False,  # likewise: it would wait for acknowledgements
        producer_linger=0.005,  # seconds, whatever the documentation says
        producer_max_batch_size=MOST_IN_BATCH,
        producer_request_timeout=PRODUCE_WITHIN_S,
        **policy.faust,
    )
    app.transport = CommittedTransport(app.conf.broker_consumer, app)
    return app
