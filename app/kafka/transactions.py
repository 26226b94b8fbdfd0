"""Exactly-once: predictions, dead letters and offsets become visible together, or not at all.

One transaction spans the batches of a commit interval. It begins when a batch's outputs exist, not before
inference, and commits at once when nothing else waits. Group metadata is asked for every
time, so that a worker whose partitions were taken away is fenced (KIP-447). Errors are told apart by their
flags, not their codes: requires-abort → abort, deliver again; retriable → the same call again; fatal or
indefinite → a new producer with the same transactional id, whose `init_transactions` settles what the old
one left open. Whether that was a commit is then asked of the group: a commit may take effect unheard.

Known limit: librdkafka lacks part 2 of KIP-890 (its issue 5423).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as ClientPartition

from app.clock import Clock
from app.errors import Aborted, BrokerRefused, DeliveryFailed, Fenced, InDoubt
from app.kafka.client_config import DeliveryPolicy, Properties
from app.kafka.outbox import Outbox, OutputTopics, new_producer
from app.kafka.watchdog import CALL_MARGIN_S, Watchdog
from app.ports import DeliveryObserver, Summaries
from app.records import DeadLetter, Predictions, TopicPartition

PURGE_ATTEMPTS, PURGE_S = 3, 0.2
RECOVERY_CALL_S = 5.0  # short, so that the stream thread keeps polling between attempts
LONGEST_CALL_S = 15.0  # so that a commit and an abort in one turn stay below what liveness allows
# Once is what a frozen worker gets that wakes up. More often, or twice without a commit between: somebody lives on it.
FENCED_TOO_OFTEN, FENCED_WITHIN_S = 3, 60.0
LEAST_CALL_S = 0.1  # a call without any time would fail although the broker is there
# The one call known to wait for ever, after its coordinator died (librdkafka #5456, #5511): recovery waits for this.
OFFSETS_MARGIN_S = 3.0
RETRIES = 3  # of a call the client calls retriable; after that its result counts as indefinite

_FENCED = {
    KafkaError._FENCED,  # noqa: SLF001 - the client's names
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
}


class TransactionalSink:
    """One producer, at most one open transaction."""

    def __init__(
        self,
        properties: Properties,
        consumer: Consumer,
        topics: OutputTopics,
        policy: DeliveryPolicy,
        clock: Clock,
        watchdog: Watchdog,
        observer: DeliveryObserver,
        summaries: Summaries | None = None,
    ) -> None:
        """Starts no connection; `recovered` must say True before the first `deliver`.

        summaries: told of in each transaction, as its last records.
        """
        self._summaries = summaries
        self._properties, self._consumer, self._topics, self._policy = properties, consumer, topics, policy
        self._clock, self._watchdog, self._observer = clock, watchdog, observer
        self._log = structlog.get_logger().bind(transactional_id=policy.transactional_id)
        self._outbox: Outbox | None = None
        self._candidate: Producer | None = new_producer(properties)  # now, so that bad settings are a bad start
        self._begun_at: float | None = None
        self._longest_s = min(policy.transaction_timeout_s, LONGEST_CALL_S)
        self._fenced_at: deque[float] = deque(maxlen=FENCED_TOO_OFTEN)
        self._last_fenced = False

    def has_room(self) -> bool:
        """Whether another batch may be delivered now."""
        if self._outbox is None:
            return False
        with self._translated():
            return self._outbox.has_room()

    def deliver(self, predictions: Predictions, dead_letters: Sequence[DeadLetter]) -> None:
        """Queue a batch's outputs in the open transaction, opening one if need be."""
        outbox = self._ready()
        try:
            with self._translated():
                self._begin(outbox)
                outbox.put(predictions, dead_letters)
        except DeliveryFailed:
            self.abandon()
            raise

    def settle(self, offsets: Mapping[TopicPartition, int], note: str, *, idle: bool) -> bool:
        """Commit if nothing else waits, or the commit interval has passed."""
        if self._begun_at is None:
            return True
        if not idle and self._clock.monotonic() - self._begun_at < self._policy.commit_interval_s:
            return False
        self._commit(offsets, note, self._longest_s)
        return True

    def settle_now(self, offsets: Mapping[TopicPartition, int], note: str, within_s: float) -> bool:
        """Commit within this time."""
        self._commit(offsets, note, within_s)
        return True

    def abandon(self) -> None:
        """Abort the open transaction, if there is one; if that fails, the next producer does it."""
        if self._begun_at is None or self._outbox is None:
            return
        self._begun_at = None
        self._outbox.asks_for_refusals = True  # if it was one, the next attempt shows which
        try:
            self._call("abort_transaction", self._longest_s)
            self._outbox.drained()  # serves the callbacks of what the abort took back
            self._observer.transaction("aborted")
        except KafkaException as exc:
            self._drop_producer(f"abort failed: {exc}")

    def recovered(self) -> bool:
        """Whether there is a producer whose transactions the broker knows; makes one if not.

        Raises Fenced if another producer took our transactional id meanwhile, BrokerRefused if the broker will
        never let us use it.
        """
        if self._outbox is not None:
            return True
        producer = self._candidate = self._candidate or new_producer(self._properties)
        try:
            with self._watchdog.expecting("init_transactions", RECOVERY_CALL_S + CALL_MARGIN_S):
                producer.init_transactions(RECOVERY_CALL_S)
        except KafkaException as exc:
            error = exc.args[0]
            if error.fatal() and error.code() in _FENCED:
                raise self._fenced(error) from exc
            if not error.retriable():
                raise BrokerRefused(
                    f"transactional id {self._policy.transactional_id!r} may not be used: {error.name()}: {error.str()}"
                ) from exc
            self._log.warning("transactions_not_ready", error=error.str())
            return False
        self._outbox = Outbox(producer, self._topics, self._policy.max_queued_bytes, self._clock)
        self._candidate = None
        return True

    def forget(self, sources: Set[TopicPartition]) -> None:
        """Nothing to do: offsets are committed with their outputs, or not at all."""

    def close(self) -> None:
        """Abort what is open; its records are read again."""
        self.abandon()
        self._outbox = None

    def _ready(self) -> Outbox:
        if self._outbox is None:
            raise Aborted("no producer: the last one was dropped")
        return self._outbox

    def _begin(self, outbox: Outbox) -> None:
        if self._begun_at is None:
            outbox.producer.begin_transaction()
            self._begun_at = self._clock.monotonic()

    def _commit(self, offsets: Mapping[TopicPartition, int], note: str, within_s: float) -> None:
        if self._begun_at is None and not offsets:
            return
        outbox = self._ready()
        try:
            with self._translated():
                self._begin(outbox)
                if self._summaries is not None:
                    outbox.put_summaries(self._summaries.to_commit(at_once=True))
        except DeliveryFailed:
            self.abandon()
            raise
        partitions = [ClientPartition(*source, offset, note) for source, offset in offsets.items()]
        deadline = self._clock.monotonic() + within_s
        try:
            if partitions:
                group = self._consumer.consumer_group_metadata()
                self._call("send_offsets_to_transaction", within_s, partitions, group)
            self._call("commit_transaction", max(LEAST_CALL_S, deadline - self._clock.monotonic()))
        except KafkaException as exc:
            undone = self._after_failure(exc.args[0])
            outbox.raise_refusal(passing=True)
            if undone:
                raise Aborted(f"transaction not committed: {exc.args[0].str()}") from exc
            raise InDoubt(f"not known whether the transaction was committed: {exc.args[0].str()}") from exc
        self._begun_at = None
        self._last_fenced = False
        outbox.asks_for_refusals = False
        self._observer.transaction("committed")
        try:
            outbox.drained()
        except KafkaException as exc:  # too late to matter: the transaction is committed
            self._drop_producer(exc.args[0].str())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """A producer that failed says so in any call: its transaction is lost, the worker is not."""
        try:
            yield
        except KafkaException as exc:
            self._after_failure(exc.args[0])
            raise Aborted(f"transaction not finished: {exc.args[0].str()}") from exc

    def _call(self, name: str, within_s: float, *arguments: object) -> None:
        """Call the producer, again while the client says that is all it takes."""
        method = getattr(self._ready().producer, name)
        margin_s = OFFSETS_MARGIN_S if name == "send_offsets_to_transaction" else CALL_MARGIN_S
        deadline = self._clock.monotonic() + within_s
        for attempt in range(RETRIES):
            left_s = max(LEAST_CALL_S, deadline - self._clock.monotonic())
            try:
                with self._watchdog.expecting(name, left_s + margin_s):
                    method(*arguments, left_s)
            except KafkaException as exc:
                in_time = self._clock.monotonic() < deadline
                if attempt == RETRIES - 1 or not in_time or not exc.args[0].retriable():
                    raise
                continue
            return

    def _after_failure(self, error: KafkaError) -> bool:
        """Whether nothing of the transaction can be committed any more; if not, the producer was dropped."""
        self._log.warning("transaction_failed", code=error.name(), error=error.str(), fatal=error.fatal())
        if error.code() in _FENCED and error.fatal():
            fenced = self._fenced(error)
            self._drop_producer(error.str())
            now = self._clock.monotonic()
            self._fenced_at.append(now)
            often = len(self._fenced_at) == FENCED_TOO_OFTEN and now - self._fenced_at[0] < FENCED_WITHIN_S
            if self._last_fenced or often:
                raise fenced
            self._last_fenced = True
        elif error.txn_requires_abort():
            self.abandon()
            return True
        else:
            self._drop_producer(error.str())
        return False

    def _drop_producer(self, why: str) -> None:
        self._log.warning("producer_dropped", reason=why)
        self._observer.transaction("dropped")
        if self._outbox is not None:
            self._outbox.producer.purge()
            # Serves the callbacks of what was purged: unserved they would keep the producer and its records. The
            # client raises the error we are dropping it for again, from whatever is called, hence the attempts.
            for _ in range(PURGE_ATTEMPTS):
                with suppress(KafkaException, SystemError), self._watchdog.expecting("flush", CALL_MARGIN_S):
                    self._outbox.producer.flush(PURGE_S)
        self._outbox = None
        self._begun_at = None

    def _fenced(self, error: KafkaError) -> Fenced:
        return Fenced(
            f"another producer uses transactional id {self._policy.transactional_id!r}; give every live worker "
            f"its own worker.instance_id ({error.str()})"
        )
