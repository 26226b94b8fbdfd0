"""The consumer: records in, and every assignment change out. Hides the client library's consumer.

Longer than most files because the client calls back in the middle of a poll: what is owned, held, paused and given up
is one state, and every call has to leave it right.
"""

from collections.abc import Iterable, Mapping, Sequence, Set

import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from app.clock import Clock
from app.errors import BrokerUnavailable, ConsumerDead
from app.kafka.client_config import Properties, settings_accepted
from app.kafka.consumer_errors import is_without_start, raise_if_final
from app.kafka.group_offsets import GroupOffsets, StartFrom, places, readable
from app.kafka.watchdog import Watchdog
from app.ports import AssignmentListener, SourceObserver
from app.records import Record, TopicPartition

CALL_DEADLINE_S = 30.0  # the watchdog's: well past the timeout that the call itself was given
# Between two questions where partitions begin; as long as the last one took at least, which held all others up.
ASK_AGAIN_FIRST_S, ASK_AGAIN_MOST_S = 0.1, 2.0
ANYWHERE = OFFSET_BEGINNING  # of a paused partition, until it is known where it begins: never out of range


class KafkaSource:
    """One consumer of one group. One thread only; callbacks run inside `poll` and `close`."""

    def __init__(
        self,
        properties: Properties,
        topics: Sequence[str],
        start_from: StartFrom,
        clock: Clock,
        watchdog: Watchdog,
        observer: SourceObserver,
    ) -> None:
        self._topics, self._start_from = list(topics), start_from
        self._clock, self._watchdog, self._observer = clock, watchdog, observer
        self._listener: AssignmentListener | None = None
        self._log = structlog.get_logger().bind(group=properties["group.id"])
        self._failed_commits: dict[TopicPartition, int] = {}
        with settings_accepted():
            self._consumer = Consumer({**properties, "error_cb": self._on_error, "on_commit": self._on_commit})
        self._offsets = GroupOffsets(self._consumer, properties["group.id"], start_from, clock, observer)
        self._owned: set[TopicPartition] = set()
        self._given_up: set[TopicPartition] = set()  # during the current poll
        self._to_begin: dict[TopicPartition, int | None] = {}  # where, if that is known; nothing of them is given
        # The offset that each was last told to begin at: an error below it is of an earlier assignment.
        self._begun_at: dict[TopicPartition, int] = {}
        self._ask_again_s, self._ask_again_at = ASK_AGAIN_FIRST_S, 0.0
        self._paused = False
        self._held: set[TopicPartition] = set()
        self._closed = False
        self._joined = False
        # Under `consumer` an empty assignment calls nobody back; the member's epoch, in here, changes all the same.
        # Under `classic` this changes before the group answers.
        by_epoch = properties["group.protocol"] == "consumer"
        self._stranger = self._consumer.consumer_group_metadata() if by_epoch else None

    @property
    def consumer(self) -> Consumer:
        """The client itself, for the sinks: they commit in its name."""
        return self._consumer

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """Partitions assigned now."""
        return frozenset(self._owned)

    @property
    def joined(self) -> bool:
        """Whether the group has answered at least once, with an assignment or an empty one."""
        return self._joined

    def subscribe(self, listener: AssignmentListener) -> None:
        """Join the group; the listener hears of assignments while polling."""
        self._listener = listener
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """What is there, up to `max_records`; waits up to `timeout_s` for a first record, never for more.

        Raises ConsumerDead if the consumer would never deliver again, BrokerRefused if the group refuses us.
        """
        self._given_up.clear()
        messages = self._consumer.consume(max_records, 0)
        if not messages and timeout_s > 0:
            messages = self._consumer.consume(1, timeout_s)
            if messages and max_records > 1:
                messages += self._consumer.consume(max_records - 1, 0)
        return self._usable(messages)

    def gather(self, max_records: int, timeout_s: float) -> list[Record]:
        """The same, but waits for all of `max_records`: one call instead of one per record that comes meanwhile."""
        self._given_up.clear()
        return self._usable(self._consumer.consume(max_records, timeout_s))

    def _usable(self, messages: list[Message]) -> list[Record]:
        if messages and any([message.error() for message in messages]):  # noqa: C419 - a list is quicker here
            messages = [message for message in messages if message.error() is None or self._report(message)]
        if self._given_up or self._to_begin:
            # in the middle of consume(), which also gives back what it had taken before; or not where they begin
            unwanted = self._given_up | self._to_begin.keys()
            messages = [m for m in messages if (m.topic(), m.partition()) not in unwanted]
            self._begin()
        if not self._joined and self._stranger is not None:
            self._joined = self._consumer.consumer_group_metadata() != self._stranger
        return messages  # type: ignore[return-value] # the client's messages are Records

    def pause(self) -> None:
        """Stop fetching; polling goes on. Throws away what the client had fetched ahead."""
        if not self._paused and self._owned:
            self._consumer.pause([ClientPartition(*source) for source in self._owned])
            self._paused = True

    def resume(self) -> None:
        """Fetch again."""
        if self._paused:
            self._paused = False
            self._let_flow(self._owned)

    def hold(self, sources: Set[TopicPartition]) -> None:
        """Stop fetching these partitions, whatever `resume` says, until they are released or taken away."""
        mine = self._owned & sources
        self._held |= mine
        self._consumer.pause([ClientPartition(*source) for source in mine])

    def release(self, sources: Set[TopicPartition]) -> None:
        """Fetch held partitions again."""
        free = self._held & sources
        self._held -= free
        self._let_flow(free)

    def rewind(self, points: Mapping[TopicPartition, int]) -> None:
        """Read these owned partitions again from these offsets; those yet to begin do so at the group's."""
        for source, offset in points.items():
            if source in self._owned - self._to_begin.keys():
                self._seek(source, offset)

    def positions(self) -> dict[TopicPartition, int]:
        """Where the next read of each owned partition would start, transaction markers passed over.

        Partitions of which nothing was read, or is given yet, are absent.
        """
        begun = self._owned - self._to_begin.keys()
        found = self._consumer.position([ClientPartition(*source) for source in begun])
        return {TopicPartition(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def end_offsets(self) -> dict[TopicPartition, int]:
        """End of each owned partition as the last fetch response told; partitions never fetched are absent."""
        ends = {}
        for source in self._owned:
            _, high = self._consumer.get_watermark_offsets(ClientPartition(*source), cached=True)
            if high >= 0:
                ends[source] = high
        return ends

    def unread(self) -> int:
        """How many offsets lie between what was read and the ends, of partitions that are not held."""
        positions = self.positions()
        ends = self.end_offsets()
        return sum(max(0, ends[source] - positions[source]) for source in ends.keys() & positions.keys() - self._held)

    def committed(self, sources: Set[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's offsets; partitions without one are absent. Raises BrokerUnavailable, also if one is in doubt."""
        return self._offsets.committed(sources)

    def starts(self, sources: Set[TopicPartition]) -> dict[TopicPartition, int]:
        """Where the group stands, or will start, in these partitions; those not known are absent."""
        return self._offsets.starts(sources - self._to_begin.keys())  # of those it is asked already

    def notes(self, sources: Set[TopicPartition]) -> list[str]:
        """What was committed along with the offsets of these partitions, as far as that is known."""
        return self._offsets.notes(sources)

    def take_failed_commits(self) -> dict[TopicPartition, int]:
        """Offsets of owned partitions whose asynchronous commit failed since the last call."""
        failed, self._failed_commits = self._failed_commits, {}
        return {source: offset for source, offset in failed.items() if source in self._owned}

    def close(self) -> None:
        """Leave the group. Records not yet committed are read again by whoever gets their partitions."""
        if not self._closed:
            self._closed = True
            with self._watchdog.expecting("close", CALL_DEADLINE_S):
                self._consumer.close()

    def _begin(self) -> None:
        """Seek the partitions that are not where they begin; what cannot be done now is left to a later poll.

        Nobody knew where that was when they were assigned; or they were given up and are ours again within one call:
        records taken before and after cannot be told apart, and the client counts both as delivered; taken as they are,
        those before would be committed over what lies between the group's offset and them.
        """
        began = self._clock.monotonic()
        if not self._to_begin or began < self._ask_again_at:
            return
        if unknown := {source for source, offset in self._to_begin.items() if offset is None}:
            self._to_begin |= self._offsets.beginnings(unknown)
        for source, offset in list(self._to_begin.items()):
            if offset is not None:
                try:
                    self._seek(source, offset)
                except BrokerUnavailable as exc:  # such as: the client has not yet begun to fetch it
                    self._log.warning("partition_not_begun", reason=str(exc))
                    continue
                self._begins(source, offset)
                self._let_flow({source})
        if self._to_begin:
            self._ask_again(began)

    def _ask_again(self, began: float) -> None:
        """Not at once, after a question that began then."""
        now = self._clock.monotonic()
        self._ask_again_at = now + max(self._ask_again_s, now - began)
        self._ask_again_s = min(2 * self._ask_again_s, ASK_AGAIN_MOST_S)

    def _begins(self, source: TopicPartition, offset: int) -> None:
        """It was told to begin there: nobody need look for it any more."""
        self._to_begin.pop(source, None)
        self._begun_at[source] = offset

    def _let_flow(self, sources: Set[TopicPartition]) -> None:
        """Have the client fetch those of these that nobody wants it not to."""
        if not self._paused and (free := sources - self._held - self._to_begin.keys()):
            self._consumer.resume([ClientPartition(*source) for source in free])

    def _seek(self, source: TopicPartition, offset: int) -> None:
        try:
            with self._watchdog.expecting("seek", CALL_DEADLINE_S):
                self._consumer.seek(ClientPartition(source.topic, source.partition, offset))
        except KafkaException as exc:
            raise BrokerUnavailable(f"cannot go to {source.topic}[{source.partition}]@{offset}: {exc}") from exc

    def _on_assign(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        self._joined = True
        sources = _sources(partitions)
        self._owned |= sources
        for source in sources:
            self._failed_commits.pop(source, None)  # from when it was ours before
        if not self._to_begin:
            self._ask_again_s, self._ask_again_at = ASK_AGAIN_FIRST_S, 0.0
        began = self._clock.monotonic()
        starts = self._offsets.beginnings(sources)
        if starts.keys() != sources:
            self._ask_again(began)
        self._begun_at |= starts
        self._to_begin |= {s: starts.get(s) for s in sources if s not in starts or s in self._given_up}
        # Each with a number, or the client asks the group itself: a coordinator that has moved it asks once, and then
        # reads nothing of the partition for ever (librdkafka #5586).
        consumer.incremental_assign(places({source: starts.get(source, ANYWHERE) for source in sources}))
        if resting := sources if self._paused else sources & self._to_begin.keys():
            consumer.pause([ClientPartition(*source) for source in resting])
        self._let_flow(sources)  # paused when they were taken from us, they would stay so, silently
        self._log.info("partitions_assigned", partitions=readable(sources))
        self._heard().on_assigned(sources)

    def _on_revoke(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        sources = _sources(partitions) & self._owned  # the list may name partitions that are not ours
        self._log.info("partitions_revoked", partitions=readable(sources))
        self._heard().on_revoked(sources)
        self._give_up(sources)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        sources = _sources(partitions) & self._owned
        self._log.warning("partitions_lost", partitions=readable(sources))
        self._give_up(sources)
        self._heard().on_lost(sources)
        consumer.incremental_unassign(partitions)

    def _give_up(self, sources: set[TopicPartition]) -> None:
        self._owned -= sources
        self._held -= sources
        self._given_up |= sources
        for source in sources:
            self._to_begin.pop(source, None)
            self._begun_at.pop(source, None)

    def _heard(self) -> AssignmentListener:
        if self._listener is None:
            raise RuntimeError("callbacks come only after subscribe")
        return self._listener

    def _on_commit(self, error: KafkaError | None, partitions: list[ClientPartition]) -> None:
        """Answers come in the order of the requests, so a later one, good or bad, replaces an earlier failure."""
        for partition in partitions:
            source, failure = TopicPartition(partition.topic, partition.partition), error or partition.error
            self._failed_commits.pop(source, None)
            if failure is not None:
                self._log.warning("offset_not_committed", source=readable([source]), message=failure.str())
                self._failed_commits[source] = partition.offset

    def _on_error(self, error: KafkaError) -> None:
        self._log.warning("broker_error", code=error.name(), message=error.str())

    def _report(self, message: Message) -> bool:
        """Act on an error that came as a message, or raise if nothing will follow it. Always False."""
        error = message.error()
        if error is None:
            raise RuntimeError("only messages that are errors are reported")
        raise_if_final(error)
        if is_without_start(error):
            self._start(TopicPartition(str(message.topic()), int(message.partition() or 0)), message.offset(), error)
        else:
            self._log.warning("consumer_error", code=error.name(), message=error.str())
        return False

    def _start(self, source: TopicPartition, offset: int | None, error: KafkaError) -> None:
        """The record at the offset we had is gone: start where the setting says, or wait on if it was none of ours.

        The client is told to report this instead of doing it, because it would do it silently.
        """
        if source not in self._owned:
            return
        waits = source in self._to_begin
        at = None if offset is None or offset < 0 else offset
        if not waits and at is not None and at < self._begun_at.get(source, 0):
            return  # said of an earlier assignment
        if not waits and self._start_from == "fail":
            raise ConsumerDead(
                f"no record at the committed offset of {source.topic}[{source.partition}], "
                f"and kafka.start_from is fail: {error.str()}"
            )
        # A partition in this state cannot be sought. At once, before anything that waits: a rebalance that comes
        # meanwhile must find the assignment as it left it.
        beginning = OFFSET_BEGINNING if self._start_from == "earliest" else OFFSET_END
        where = ClientPartition(*source, ANYWHERE if waits else beginning)
        told = self._begun_at.pop(source, None)
        self._consumer.incremental_unassign([where])
        self._consumer.incremental_assign([where])
        if self._paused or waits or source in self._held:
            self._consumer.pause([where])
        if waits or (at is None and told is None):
            return  # it was a logical one, which the client could not look up, and does now
        missed = 0 if at is None else self._offsets.missed(source, at)  # None: the log was cut off before where we were
        self._log.error(
            "committed_offset_out_of_range",
            source=readable([source]), offset=at, at=self._start_from, records_missed=missed,
        )  # fmt: skip
        self._observer.offset_reset("out_of_range", missed)


def _sources(partitions: Iterable[ClientPartition]) -> set[TopicPartition]:
    return {TopicPartition(item.topic, item.partition) for item in partitions}
