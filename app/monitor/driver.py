"""faust's Kafka driver, reading what is committed only.

faust reads uncommitted records unless it runs exactly_once, which has bugs of its own (docs/decisions/0007). All it
looks at when it makes its consumer is `in_transaction`, so that is what it is shown for as long as that takes.
"""

from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport


class CommittedConsumerThread(AIOKafkaConsumerThread):
    """Its consumer isolates what is not committed."""

    def _create_worker_consumer(self, transport: Transport) -> Any:  # noqa: ANN401 - aiokafka's consumer
        before = self.consumer.in_transaction
        self.consumer.in_transaction = True
        try:
            return super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = before


class CommittedConsumer(Consumer):
    """A consumer with such a thread."""

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return CommittedConsumerThread(self, loop=self.loop, beacon=self.beacon)


class CommittedTransport(Transport):
    """A transport with such a consumer."""

    Consumer = CommittedConsumer
