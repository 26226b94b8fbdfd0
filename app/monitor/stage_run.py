"""One stage at work: its inbox is emptied in micro-batches, each durable before the next.

Nothing of an assignment that has ended is taken in, or written once the next one may have begun. This knows nothing
of the library but what `Library` says, so that what a rebalance may do to it can be tried without one.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import structlog

from app.clock import Clock
from app.errors import SchemaRegistryUnavailable, SchemasPending
from app.monitor.inbox import Inbox
from app.monitor.stage import Fact, Keep, Read, Send, Stage, Taken, grouped

MOST_WAITING = 4_096  # records in an inbox
MOST_WAITING_BYTES = 33_554_432  # 32 MiB: a record may have a megabyte
MOST_TAKEN = 2_048  # records of a micro-batch: of a backlog, each waits for the broker two or three times
LINGER_S = 0.5  # of a micro-batch: sums are written once for all of its records, at a tenth of the cost of each
SCHEMA_PAUSE_S = 1.0
SETTLING_PAUSE_S = 0.05


class Library(Protocol):
    """What is done by the library that a stage's run knows nothing of."""

    @property
    def settled(self) -> bool:
        """Whether there is an assignment, and no rebalance goes on."""
        ...

    def ours(self, topics: Sequence[str]) -> frozenset[int]:
        """The numbers of our partitions of these topics."""
        ...

    async def keep(self, table: str, partition: int, changes: Mapping[bytes, bytes | None]) -> None:
        """Returns when the changes are durable."""
        ...

    async def kept(self, table: str, partitions: frozenset[int]) -> Iterable[tuple[int, bytes, bytes]]:
        """(partition, key, value) of what a table has of these partitions."""
        ...

    async def send(self, step: Send) -> None:
        """Returns when the records are acknowledged."""
        ...


class StageRun:
    """One stage, its inbox and its state. One event loop only."""

    def __init__(
        self,
        stage: Stage,
        library: Library,
        clock: Clock,
        *,
        tell: Callable[[Fact], None],
        finished: Callable[[Sequence[Read]], None],
        linger_s: float = LINGER_S,
    ) -> None:
        """finished: gets records in the order they were read in, when all that comes of them is durable."""
        self.stage, self._library, self._clock = stage, library, clock
        self._tell, self._finished, self._linger_s = tell, finished, linger_s
        self.inbox = Inbox(MOST_WAITING, MOST_WAITING_BYTES)
        self._writing = asyncio.Lock()
        self._restored: int | None = None

    @property
    def restored(self) -> bool:
        """Whether the state is that of the assignment in force."""
        return self._restored == self.inbox.epoch

    def begin_anew(self) -> None:
        """The assignment changes: what was read is forgotten, and what is known is restored when it is needed."""
        self.inbox.clear()

    async def quiet(self) -> None:
        """Returns when nothing of an assignment that has ended will be written any more."""
        async with self._writing:
            pass

    async def drain(self) -> None:
        """Micro-batch after micro-batch, for ever. Raises what a step is refused with."""
        while True:
            if len(self.inbox) < MOST_TAKEN:
                await asyncio.sleep(self._linger_s)
            epoch, records = await self.inbox.take(MOST_TAKEN)
            if await self._settled(epoch):
                async with self._writing:
                    await self._work(epoch, records)

    async def restore(self) -> None:
        """See to it that the state is that of the assignment in force, if there is one."""
        async with self._writing:
            if self._library.settled:
                await self._restore()

    async def _settled(self, epoch: int) -> bool:
        """Once the library is; False if the epoch ended meanwhile. Records may come a moment before it says so."""
        while epoch == self.inbox.epoch:
            if self._library.settled:
                return True
            await asyncio.sleep(SETTLING_PAUSE_S)
        return False

    async def _work(self, epoch: int, records: Sequence[Read]) -> None:
        if epoch != self.inbox.epoch:
            return  # they may be somebody else's by now; if not they are read again
        await self._restore()
        if not self.restored:
            return  # the assignment changed while changelogs were read
        taken: dict[int, Taken] = {}
        for partition, part in grouped(records, lambda record: record.partition).items():
            one = await self._taken(epoch, partition, part)
            if one is None:
                break
            taken[partition] = one
        # what belongs to one partition is in order; partitions wait for the broker together
        await asyncio.gather(*(self._carry_out(partition, one) for partition, one in taken.items()))
        for one in taken.values():
            for fact in one.facts:
                self._tell(fact)
        if epoch == self.inbox.epoch:
            self._finished(records)

    async def _taken(self, epoch: int, partition: int, records: Sequence[Read]) -> Taken | None:
        """None if the epoch ended, perhaps while a schema was waited for."""
        while epoch == self.inbox.epoch:
            try:
                return self.stage.take(partition, records, self._clock.now_ms())
            except (SchemaRegistryUnavailable, SchemasPending) as exc:
                structlog.get_logger().warning("waiting_for_a_schema", stage=self.stage.name, error=str(exc))
                await asyncio.sleep(SCHEMA_PAUSE_S)
        return None

    async def _carry_out(self, partition: int, taken: Taken) -> None:
        for step in taken.steps:
            if isinstance(step, Keep):
                await self._library.keep(step.table, partition, step.changes)
            else:
                await self._library.send(step)

    async def _restore(self) -> None:
        """After each change of the assignment the stage begins anew with what the changelogs have."""
        epoch = self.inbox.epoch
        if self._restored == epoch:
            return
        ours = self._library.ours(self.stage.topics)
        kept = {name: await self._library.kept(name, ours) for name in self.stage.tables}
        if epoch != self.inbox.epoch:
            return
        for step in self.stage.restore(kept):
            await self._library.send(step)
        self._restored = epoch
