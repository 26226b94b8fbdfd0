"""faust's Kafka driver, reading what is committed only.

The end of a partition is the last offset that may be read: behind it, records of a transaction that is still open,
whoever's it is, are neither lag nor something that does not come.

faust reads uncommitted records unless it runs exactly_once, which has bugs of its own (docs/decisions/0007). All it
looks at when it makes its consumer is `in_transaction`, so that is what it is shown for as long as that takes.
"""

from collections.abc import Iterable
from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport, ensure_aiokafka_TP


class CommittedConsumerThread(AIOKafkaConsumerThread):
    """Its consumer isolates what is not committed."""

    def _create_worker_consumer(self, transport: Transport) -> Any:  # noqa: ANN401 - aiokafka's consumer
        before = self.consumer.in_transaction
        self.consumer.in_transaction = True
        try:
            return super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = before

    async def seek_to_start(self, tps: Iterable[Any]) -> None:
        """Go on with the first record that there is."""
        await self.call_thread(self._ensure_consumer().seek_to_beginning, *map(ensure_aiokafka_TP, tps))

    def highwater(self, tp: Any) -> Any:  # noqa: ANN401 - aiokafka's partition; an offset, None if it is not known
        """Where reading ends now; None also of a partition that has just gone, of which a fetch may still tell."""
        try:
            return self._ensure_consumer().last_stable_offset(tp)
        except AssertionError:
            return None


class CommittedConsumer(Consumer):
    """A consumer with such a thread, which is where it should be after each seek."""

    async def perform_seek(self) -> None:
        """Seek each of our partitions to what was committed, or to its beginning if nothing was.

        aiokafka leaves the latter where they are, which is behind records that were fetched and then dropped, because
        the assignment changed: nobody would read those. With `latest` they stay where they are.
        """
        if not self.assignment():
            return
        await super().perform_seek()
        fresh = [tp for tp in self.assignment() if not self._read_offset.get(tp)]
        if fresh and self.app.conf.consumer_auto_offset_reset == "earliest":
            thread: Any = self._thread
            await thread.seek_to_start(fresh)

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return CommittedConsumerThread(self, loop=self.loop, beacon=self.beacon)


class CommittedTransport(Transport):
    """A transport with such a consumer."""

    Consumer = CommittedConsumer
