"""At-least-once: offsets are committed up to what the broker has acknowledged, never past it."""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager

import structlog
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from app.clock import Clock
from app.errors import DeliveryFailed
from app.kafka.client_config import DeliveryPolicy, Properties
from app.kafka.outbox import Outbox, OutputTopics, new_producer
from app.kafka.source import KafkaSource
from app.kafka.watchdog import CALL_MARGIN_S, Watchdog
from app.ports import Summaries
from app.records import DeadLetter, Predictions, TopicPartition


class AtLeastOnceSink:
    """Acknowledges in bulk: safe means the producer's queue has drained and nothing was refused."""

    def __init__(
        self,
        properties: Properties,
        source: KafkaSource,
        topics: OutputTopics,
        policy: DeliveryPolicy,
        clock: Clock,
        watchdog: Watchdog,
        summaries: Summaries | None = None,
    ) -> None:
        """summaries: told of when they are due."""
        self._summaries = summaries
        self._source, self._policy, self._clock, self._watchdog = source, policy, clock, watchdog
        self._outbox = Outbox(new_producer(properties), topics, policy.max_queued_bytes, clock)
        self._log = structlog.get_logger()
        self._safe: dict[TopicPartition, int] = {}  # to be committed next
        self._sent: dict[TopicPartition, int] = {}  # committed without waiting for the answer
        self._last_commit = clock.monotonic()

    def has_room(self) -> bool:
        """Whether another batch may be delivered now."""
        with self._translated():
            return self._outbox.has_room()

    def deliver(self, predictions: Predictions, dead_letters: Sequence[DeadLetter]) -> None:
        """Queue a batch's outputs; they are sent at once."""
        with self._translated():
            self._outbox.put(predictions, dead_letters)

    def settle(self, offsets: Mapping[TopicPartition, int], note: str, *, idle: bool) -> bool:
        """True once what was delivered is acknowledged; offsets follow every commit interval."""
        del idle  # offsets cost the same whenever they are sent
        self._put_summaries(at_once=False)
        overdue = self._clock.monotonic() - self._last_commit >= self._policy.commit_interval_s
        if not self._drained(overdue):
            return False
        # one that failed while a later one is on its way is not sent again, behind it: that would move the group back
        failed = {s: at for s, at in self._source.take_failed_commits().items() if at >= self._sent.get(s, at)}
        self._safe = {**failed, **self._safe, **offsets}
        if overdue:
            self._commit(note, asynchronous=True)
        return True

    def settle_now(self, offsets: Mapping[TopicPartition, int], note: str, within_s: float) -> bool:
        """Flush, then commit and wait for the answer."""
        self._put_summaries(at_once=True)
        with self._translated(), self._watchdog.expecting("flush", within_s + CALL_MARGIN_S):
            if self._outbox.producer.flush(within_s):
                return False
        self._outbox.raise_refusal(passing=False)
        self._safe = {**self._sent, **self._safe, **offsets}
        with self._watchdog.expecting("commit", within_s + CALL_MARGIN_S):
            return self._commit(note, asynchronous=False)

    def abandon(self) -> None:
        """Nothing delivered can be taken back; it will be delivered again, which this mode allows."""

    def forget(self, sources: Set[TopicPartition]) -> None:
        """Commit nothing more of these partitions: another member has them."""
        for source in sources:
            self._safe.pop(source, None)
            self._sent.pop(source, None)

    def recovered(self) -> bool:
        """Always: the client retries by itself."""
        return True

    def close(self) -> None:
        """What is still queued is dropped; its offsets were never committed."""
        self._outbox.producer.purge()
        with self._watchdog.expecting("flush", CALL_MARGIN_S):
            self._outbox.producer.flush(1.0)

    def _put_summaries(self, *, at_once: bool) -> None:
        if self._summaries is not None:
            with self._translated():
                self._outbox.put_summaries(self._summaries.to_commit(at_once=at_once))

    def _drained(self, overdue: bool) -> bool:  # noqa: FBT001
        # Under steady load the queue is rarely seen empty, so once per interval wait for it, a little.
        with self._translated():
            if not self._outbox.drained():
                if not overdue:
                    return False
                with self._watchdog.expecting("flush", CALL_MARGIN_S):
                    if self._outbox.producer.flush(0.05):
                        return False
        self._outbox.raise_refusal(passing=False)
        return True

    @staticmethod
    @contextmanager
    def _translated() -> Iterator[None]:
        """Here a producer that failed has records that nobody delivers again: stop, and commit nothing."""
        try:
            yield
        except KafkaException as exc:
            raise DeliveryFailed(f"the producer failed: {exc.args[0].str()}") from exc

    def _commit(self, note: str, *, asynchronous: bool) -> bool:
        self._last_commit = self._clock.monotonic()
        if not self._safe:
            return True
        partitions = [ClientPartition(*source, offset, note) for source, offset in self._safe.items()]
        try:
            if asynchronous:
                self._source.consumer.commit(offsets=partitions, asynchronous=True)
                self._sent |= self._safe
            else:
                answers = self._source.consumer.commit(offsets=partitions, asynchronous=False)
                if refused := next((answer.error for answer in answers if answer.error is not None), None):
                    self._log.warning("offsets_not_committed", error=refused.str())
                    return False
                self._source.take_failed_commits()  # older than what is committed now
                self._sent.clear()
        except KafkaException as exc:
            # the group has moved on or the broker is away: the records are read again
            self._log.warning("offsets_not_committed", error=str(exc))
            return False
        self._safe.clear()
        return True
