"""faust's Kafka driver, made to read what is committed only, and all of it.

faust's consumer drops what is below the last offset it has seen. What it has seen may be of a fetch from before a seek,
or of an assignment that has ended: then records that nobody got are below it. Its loop is replaced here: `Reading` says
where each partition is read from, and the consumer is put there before each read (docs/decisions/0007).

It reads uncommitted records unless it runs exactly_once, which has bugs of its own. All it looks at when it makes its
consumer is `in_transaction`, so that is what it is shown for as long as that takes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aiokafka.errors import ConsumerStoppedError, NoOffsetForPartitionError, OffsetOutOfRangeError  # type: ignore[import-untyped]
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport, ensure_aiokafka_TP
from faust.types import TP

from app.monitor.reading import Place, Reading, Stretch
from app.monitor.stage import Read

READ_S = 1.0  # how long a read waits for a record
PAUSE_S = 0.05  # while there is nothing that could be read
MOST_READ = 500  # records of one read: what may be in the inboxes beyond their room


class CommittedConsumerThread(AIOKafkaConsumerThread):
    """The thread in which faust has its aiokafka consumer. What is called from outside goes through `call_thread`."""

    def _create_worker_consumer(self, transport: Transport) -> Any:  # noqa: ANN401 - aiokafka's consumer
        before = self.consumer.in_transaction
        self.consumer.in_transaction = True
        try:
            consumer: Any = super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = before
        consumer._auto_offset_reset = "none"  # noqa: SLF001 - it is never to go anywhere by itself
        return consumer

    async def starts(self) -> Mapping[Place, int]:
        """Where to begin with each partition of ours: at what is committed or, if nothing is, at its edge."""
        found: Mapping[Place, int] = await self.call_thread(self._starts)
        return found

    async def edges(self, places: list[Place]) -> Mapping[Place, int]:
        """Their first offsets, or with `latest` the last ones."""
        found: Mapping[Place, int] = await self.call_thread(self._edges, places)
        return found

    async def ends(self) -> Mapping[Place, int]:
        """Of each partition of ours the offset behind the last that may be read, as the broker says.

        That is the last stable one: behind it, records of a transaction that is still open, whoever's it is, are
        neither lag nor something that does not come.
        """
        found: Mapping[Place, int] = await self.call_thread(self._ends)
        return found

    async def read(self, places: Mapping[Place, int]) -> Mapping[Place, Stretch]:
        """What there is from these places on, after READ_S at the latest. Raises OffsetOutOfRangeError."""
        found: Mapping[Place, Stretch] = await self.call_thread(self._read, places)
        return found

    async def _starts(self) -> Mapping[Place, int]:
        consumer: Any = self._ensure_consumer()
        ours = consumer.assignment()
        committed = {_place(tp): await consumer.committed(tp) for tp in ours}
        edges = await self._edges([place for place, offset in committed.items() if offset is None])
        return {place: offset for place, offset in committed.items() if offset is not None} | edges

    async def _edges(self, places: list[Place]) -> dict[Place, int]:
        consumer: Any = self._ensure_consumer()
        latest = self.app.conf.consumer_auto_offset_reset == "latest"
        asked = consumer.end_offsets if latest else consumer.beginning_offsets
        found = await asked([ensure_aiokafka_TP(TP(*place)) for place in places]) if places else {}
        return {_place(tp): offset for tp, offset in found.items()}

    async def _ends(self) -> Mapping[Place, int]:
        consumer: Any = self._ensure_consumer()
        ours = list(consumer.assignment())
        return {_place(tp): offset for tp, offset in (await consumer.end_offsets(ours) if ours else {}).items()}

    async def _read(self, places: Mapping[Place, int]) -> Mapping[Place, Stretch]:
        consumer: Any = self._ensure_consumer()
        subscriptions, fetcher = consumer._subscription, consumer._fetcher  # noqa: SLF001 - `getmany` says no positions
        assignment = subscriptions.subscription.assignment if subscriptions.subscription else None
        if assignment is None or not assignment.active or subscriptions.reassignment_in_progress:
            return {}
        wanted = {ensure_aiokafka_TP(TP(*place)): offset for place, offset in places.items()}
        states = {tp: assignment.state_value(tp) for tp in wanted if tp in assignment.tps}
        if not states:
            return {}
        for tp, state in states.items():
            if not state.has_valid_position or state.position != wanted[tp]:
                consumer.seek(tp, wanted[tp])
        with subscriptions.fetch_context():
            try:
                records = await fetcher.fetched_records(list(states), READ_S, MOST_READ)
            except NoOffsetForPartitionError:  # from before it was put where it belongs
                return {}
        if not assignment.active:
            return {}
        return {
            _place(tp): Stretch(wanted[tp], state.position, [_read_of(record) for record in records.get(tp, ())])
            for tp, state in states.items()
            if state.has_valid_position
        }


class CommittedConsumer(Consumer):
    """A consumer with such a thread, which reads for a `Reading`."""

    async def perform_seek(self) -> None:
        """Begin with what is committed. faust asks for it when an assignment is complete."""
        reading: Reading = self.transport.reading  # type: ignore[attr-defined]
        epoch = reading.epoch
        reading.start(epoch, await self.committed_thread.starts())

    @property
    def committed_thread(self) -> CommittedConsumerThread:
        """For what faust's own interface does not have."""
        thread: Any = self._thread
        return thread  # type: ignore[no-any-return]

    async def _drain_messages(self, fetcher: Any) -> None:  # noqa: ANN401 - the service that runs it
        """Read for as long as the library says. The first error ends the monitor."""
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self._read_some()
        except ConsumerStoppedError:
            if not self.app.should_stop:
                raise
        except Exception as exc:  # whatever it is: the library would go on without reading
            self.transport.fail(exc)  # type: ignore[attr-defined]
            raise

    async def _read_some(self) -> None:
        reading: Reading = self.transport.reading  # type: ignore[attr-defined]
        epoch, places = reading.due()
        try:
            stretches = await self.committed_thread.read(places) if places else {}
        except OffsetOutOfRangeError as exc:
            await self._go_to_the_edge(reading, epoch, {_place(tp): offset for tp, offset in exc.args[0].items()})
            return
        reading.take(epoch, stretches)
        if not stretches:
            await self.sleep(PAUSE_S)

    async def _go_to_the_edge(self, reading: Reading, epoch: int, gone: Mapping[Place, int]) -> None:
        """Of partitions whose next offset is not there any more: retention overtook us, or the topic is another one."""
        edges = await self.committed_thread.edges(list(gone))
        for (topic, partition), offset in gone.items():
            structlog.get_logger().warning(
                "committed_offset_out_of_range", topic=topic, partition=partition, offset=offset,
                goes_on_at=edges.get((topic, partition)),
            )  # fmt: skip
        reading.start(epoch, edges)

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return CommittedConsumerThread(self, loop=self.loop, beacon=self.beacon)


class CommittedTransport(Transport):
    """A transport with such a consumer."""

    Consumer = CommittedConsumer

    def __init__(self, url: Any, app: Any, reading: Reading, fail: Callable[[BaseException], None]) -> None:  # noqa: ANN401
        """fail: gets what ended the reading."""
        super().__init__(url, app)
        self.reading, self.fail = reading, fail


def _place(tp: Any) -> Place:  # noqa: ANN401 - aiokafka's or faust's
    return tp.topic, tp.partition


def _read_of(record: Any) -> Read:  # noqa: ANN401 - aiokafka's
    return Read(record.topic, record.partition, record.offset, record.timestamp or 0, record.key, record.value)
