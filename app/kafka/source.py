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
from app.kafka.group_offsets import GroupOffsets, StartFrom
from app.kafka.watchdog import Watchdog
from app.ports import AssignmentListener, SourceObserver
from app.records import Record, TopicPartition

CALL_DEADLINE_S = 30.0  # the watchdog's: well past the timeout that the call itself was given
ASK_AGAIN_S = 0.1  # after a group that did not say where it stands; and as long again as it took not to say


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
        self._offsets = GroupOffsets(self._consumer, start_from)
        self._owned: set[TopicPartition] = set()
        self._given_up: set[TopicPartition] = set()  # during the current poll
        self._to_begin_again: set[TopicPartition] = set()  # nothing of them is given until then
        self._ask_again_at = 0.0
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
        if self._given_up or self._to_begin_again:
            # In the middle of consume(), which also gives back what it had taken before; or not yet begun where we say.
            unwanted = self._given_up | self._to_begin_again
            messages = [m for m in messages if (m.topic(), m.partition()) not in unwanted]
            self._begin_again(unwanted & self._owned)
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
            self._consumer.resume([ClientPartition(*source) for source in self._owned - self._held])
            self._paused = False

    def hold(self, sources: Set[TopicPartition]) -> None:
        """Stop fetching these partitions, whatever `resume` says, until they are released or taken away."""
        mine = self._owned & sources
        self._held |= mine
        self._consumer.pause([ClientPartition(*source) for source in mine])

    def release(self, sources: Set[TopicPartition]) -> None:
        """Fetch held partitions again."""
        free = self._held & sources
        self._held -= free
        if not self._paused:
            self._consumer.resume([ClientPartition(*source) for source in free])

    def rewind(self, points: Mapping[TopicPartition, int]) -> None:
        """Read these owned partitions again from these offsets; those yet to begin do so at the group's."""
        for source, offset in points.items():
            if source in self._owned - self._to_begin_again:
                with self._watchdog.expecting("seek", CALL_DEADLINE_S):
                    self._seek(source, offset)

    def positions(self) -> dict[TopicPartition, int]:
        """Where the next read of each owned partition would start, transaction markers passed over.

        Partitions of which nothing was read, or is given yet, are absent.
        """
        begun = self._owned - self._to_begin_again
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

    def committed(self, sources: Set[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's offsets; partitions without one are absent. Raises BrokerUnavailable, also if one is in doubt."""
        return self._offsets.committed(sources)

    def starts(self, sources: Set[TopicPartition]) -> dict[TopicPartition, int]:
        """Where the group stands, or will start, in these partitions; those not known are absent."""
        return self._offsets.starts(sources)

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

    def _begin_again(self, sources: set[TopicPartition]) -> None:
        """Read these from where the group stands, or try again with the next poll.

        They were given up and are ours again within one call: records taken before and after cannot be told apart, and
        the client counts both as delivered; taken as they are, those before would be committed over what lies between
        the group's offset and them. Or nobody knew where they start when they were assigned.
        """
        self._to_begin_again = sources
        if not sources or self._clock.monotonic() < self._ask_again_at:
            return
        partitions = [ClientPartition(*source) for source in sources]
        starts = self._starts_of(sources)
        if starts is None:
            return
        try:
            self._consumer.incremental_unassign(partitions)
            self._consumer.incremental_assign(starts)
        except KafkaException as exc:
            # such as another rebalance already under way; until then nothing of them is given
            self._log.warning("partitions_not_begun_again", partitions=_readable(sources), reason=str(exc))
            return
        self._to_begin_again = set()
        if resting := sources if self._paused else sources & self._held:
            self._consumer.pause([ClientPartition(*source) for source in resting])

    def _seek(self, source: TopicPartition, offset: int) -> None:
        try:
            self._consumer.seek(ClientPartition(source.topic, source.partition, offset))
        except KafkaException as exc:
            raise BrokerUnavailable(f"cannot go back to {source.topic}[{source.partition}]@{offset}: {exc}") from exc

    def _on_assign(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        self._joined = True
        sources = _sources(partitions)
        self._owned |= sources
        for source in sources:
            self._failed_commits.pop(source, None)  # from when it was ours before
        starts = self._starts_of(sources)
        if starts is None:
            self._to_begin_again |= sources  # the client has to have them all the same
        consumer.incremental_assign(partitions if starts is None else starts)
        if self._paused:
            consumer.pause(partitions)
        else:
            consumer.resume(partitions)  # paused when they were taken from us, they would stay so, silently
        self._log.info("partitions_assigned", partitions=_readable(sources))
        self._heard().on_assigned(sources)

    def _on_revoke(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        sources = _sources(partitions) & self._owned  # the list may name partitions that are not ours
        self._log.info("partitions_revoked", partitions=_readable(sources))
        self._heard().on_revoked(sources)
        self._owned -= sources
        self._held -= sources
        self._given_up |= sources
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        sources = _sources(partitions) & self._owned
        self._log.warning("partitions_lost", partitions=_readable(sources))
        self._owned -= sources
        self._held -= sources
        self._given_up |= sources
        self._heard().on_lost(sources)
        consumer.incremental_unassign(partitions)

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
                self._log.warning("offset_not_committed", source=_readable([source]), message=failure.str())
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

    def _starts_of(self, sources: Set[TopicPartition]) -> list[ClientPartition] | None:
        """Where to read them from, each with a number: the group's, or where it has none the one decided here, once.

        None while that cannot be asked. Never left to the client: when the group's coordinator has moved it asks the
        old one, once, and then reads nothing of the partition for ever (librdkafka #5586).

        `latest` is committed at once: whoever comes next must not pass over what arrives from now on.
        """
        began = self._clock.monotonic()
        try:
            known = self.committed(sources)
            if self._start_from == "fail" and (without := sources - known.keys()):
                raise ConsumerDead(f"no committed offset for {_readable(without)}, and kafka.start_from is fail")
            decided = {source: self._offsets.first_of(source) for source in sorted(sources - known.keys())}
        except (BrokerUnavailable, KafkaException) as exc:
            now = self._clock.monotonic()
            self._ask_again_at = now + (now - began) + ASK_AGAIN_S
            self._log.warning("start_not_decided", partitions=_readable(sources), reason=str(exc))
            return None
        for source, offset in decided.items():
            self._log.info("starting_without_a_committed_offset", source=_readable([source]), at=offset)
            self._observer.offset_reset("no_committed_offset", 0)
        if decided and self._start_from == "latest":
            self._consumer.commit(offsets=_at(decided), asynchronous=True)
        return _at(known | decided)

    def _start(self, source: TopicPartition, offset: int | None, error: KafkaError) -> None:
        """The record at the offset we had is gone: start where the setting says.

        The client is told to report this instead of doing it, because it would do it silently.
        """
        if source not in self._owned - self._to_begin_again:
            return
        if self._start_from == "fail":
            raise ConsumerDead(
                f"no record at the committed offset of {source.topic}[{source.partition}], "
                f"and kafka.start_from is fail: {error.str()}"
            )
        # A partition in this state cannot be sought. At once, before anything that waits: a rebalance that comes
        # meanwhile must find the assignment as it left it.
        where = ClientPartition(*source, OFFSET_BEGINNING if self._start_from == "earliest" else OFFSET_END)
        self._consumer.incremental_unassign([where])
        self._consumer.incremental_assign([where])
        if self._paused or source in self._held:
            self._consumer.pause([where])
        if offset is None or offset < 0:
            return  # from there the client could not find the way here; now it looks again
        missed = self._offsets.missed(source, offset)
        self._log.error(
            "committed_offset_out_of_range",
            source=_readable([source]), offset=offset, at=self._start_from, records_missed=missed,
        )  # fmt: skip
        self._observer.offset_reset("out_of_range", missed)


def _sources(partitions: Iterable[ClientPartition]) -> set[TopicPartition]:
    return {TopicPartition(item.topic, item.partition) for item in partitions}


def _at(offsets: Mapping[TopicPartition, int]) -> list[ClientPartition]:
    return [ClientPartition(*source, offset) for source, offset in offsets.items()]


def _readable(sources: Iterable[TopicPartition]) -> list[str]:
    return [f"{source.topic}[{source.partition}]" for source in sorted(sources)]
