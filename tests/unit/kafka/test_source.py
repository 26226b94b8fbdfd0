"""Assignment changes in the middle of a call of the client, which no real broker can be made to time."""

from types import SimpleNamespace

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition
from fakes import ManualClock

from app.errors import ConsumerDead
from app.kafka.audit_source import AuditSource
from app.kafka.group_offsets import STARTS_LEAST_S, STARTS_TIMEOUT_S
from app.kafka.source import ANYWHERE, ASK_AGAIN_FIRST_S, KafkaSource
from app.kafka.watchdog import Watchdog
from app.records import TopicPartition

TOPIC = "events"
NO_OFFSET = -1001


class ScriptedConsumer:
    """Its next `consume` gives the records of a script, and calls the functions between them."""

    def __init__(self, _properties):
        self.script, self.calls, self.group = [], [], {}
        self.starts, self.commits = {}, {}
        self.in_doubt, self.leaderless = set(), set()
        self.refusals = self.silences = 0
        self.silence_s = 0.0
        self.timeouts = []

    def subscribe(self, _topics, on_assign, on_revoke, on_lost):
        self.on_assign, self.on_revoke, self.on_lost = on_assign, on_revoke, on_lost

    def consumer_group_metadata(self):
        return "epoch"

    def consume(self, _count, _timeout_s):
        found = []
        for step in self.script:
            if callable(step):
                step()
            else:
                found.append(step)
        self.script = []
        return found

    def committed(self, partitions, _timeout_s):
        if self.silences:
            self.silences -= 1
            self.clock.advance(self.silence_s)
            raise KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
        return [self._standing(partition) for partition in partitions]

    def _standing(self, partition):
        found = ClientPartition(partition.topic, partition.partition, self.group.get(partition.partition, NO_OFFSET))
        if partition.partition in self.in_doubt:
            error = KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT)
            return SimpleNamespace(topic=found.topic, partition=found.partition, offset=NO_OFFSET, error=error)
        return found

    def get_watermark_offsets(self, partition, timeout):
        self.timeouts.append(timeout)
        if partition.partition in self.leaderless:
            self.clock.advance(timeout)
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        return 10 + partition.partition, 20 + partition.partition

    def commit(self, offsets, asynchronous):
        assert asynchronous
        self.commits |= {p.partition: p.offset for p in offsets}

    def incremental_assign(self, partitions):
        self.calls.append(("assign", numbers(partitions)))
        self.starts |= {p.partition: p.offset for p in partitions}

    def incremental_unassign(self, partitions):
        self.calls.append(("unassign", numbers(partitions)))

    def position(self, partitions):
        return [ClientPartition(p.topic, p.partition, 100) for p in partitions]

    def seek(self, partition):
        if self.refusals:
            self.refusals -= 1
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.calls.append(("seek", partition.partition, partition.offset))

    def pause(self, partitions):
        self.calls.append(("pause", numbers(partitions)))

    def resume(self, partitions):
        self.calls.append(("resume", numbers(partitions)))


def numbers(partitions):
    return sorted(p.partition for p in partitions)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def begun(monkeypatch, clock):
    """A source by what it starts from, subscribed, owning nothing; `resets` are what its observer was told."""
    monkeypatch.setattr("app.kafka.source.Consumer", ScriptedConsumer)

    def begin(start_from="earliest", kind=KafkaSource):
        properties = {"group.id": "group", "group.protocol": "consumer"}
        resets = []
        observer = SimpleNamespace(offset_reset=lambda reason, _missed: resets.append(reason))
        source = kind(properties, [TOPIC], start_from, clock, Watchdog(clock), observer)
        source.consumer.clock = clock
        source.resets = resets
        source.subscribe(SimpleNamespace(on_assigned=ignored, on_revoked=ignored, on_lost=ignored))
        return source

    return begin


def ignored(_sources):
    pass


@pytest.fixture
def source(begun):
    """Owns 0 and 1, of which the group stands at 8 and 5; it stands at 30 in 2."""
    source = begun()
    source.consumer.group = {0: 8, 1: 5, 2: 30}
    given(source, 0, 1)
    source.consumer.calls.clear()
    return source


def partitions(*numbers):
    return [ClientPartition(TOPIC, number) for number in numbers]


def comes_unknown(source, partition, silences=1):
    """Given while the group does not answer so many questions, the first of which is asked at once."""
    source.consumer.silences = silences
    source.consumer.script = [lambda: given(source, partition)]
    source.poll(100, 0)


def sought(source, partition):
    return [call for call in source.consumer.calls if call[:2] == ("seek", partition)]


def out_of_range(partition, offset):
    error = KafkaError(KafkaError._AUTO_OFFSET_RESET)
    return Message(topic=TOPIC, partition=partition, offset=offset, error=error)


def given(source, *numbers):
    source.consumer.on_assign(source.consumer, partitions(*numbers))


def lost(source, *numbers):
    source.consumer.on_lost(source.consumer, partitions(*numbers))


def revoked(source, *numbers):
    source.consumer.on_revoke(source.consumer, partitions(*numbers))


def record(partition, offset):
    return Message(topic=TOPIC, partition=partition, offset=offset, value=b"")


def places(records):
    return [(r.partition(), r.offset()) for r in records]


@pytest.mark.parametrize("goes", [lost, revoked])
@pytest.mark.parametrize("call", ["poll", "gather"])
def test_records_of_a_partition_that_went_in_the_middle_are_not_given(source, goes, call):
    source.consumer.script = [record(0, 10), record(1, 5), lambda: goes(source, 0), record(1, 6)]
    assert places(getattr(source, call)(100, 0)) == [(1, 5), (1, 6)]
    assert source.consumer.calls == [("unassign", [0])]


@pytest.mark.parametrize("goes", [lost, revoked])
@pytest.mark.parametrize("call", ["poll", "gather"])
def test_a_partition_that_went_and_came_in_one_call_begins_again_at_the_groups_offset(source, goes, call):
    """Records 10 and 11 were taken before; the group stands at 8: given, they would be committed over 8 and 9."""
    source.consumer.script = [
        record(0, 10), record(0, 11), record(1, 5), lambda: goes(source, 0), lambda: given(source, 0), record(0, 8)
    ]  # fmt: skip
    assert places(getattr(source, call)(100, 0)) == [(1, 5)]
    assert source.consumer.calls[-2:] == [("seek", 0, 8), ("resume", [0])]
    source.consumer.script = [record(0, 8), record(0, 9)]
    assert places(getattr(source, call)(100, 0)) == [(0, 8), (0, 9)]


def test_until_it_can_begin_again_nothing_of_a_partition_is_given(source, clock):
    source.consumer.refusals = 2
    source.consumer.script = [record(0, 10), lambda: lost(source, 0), lambda: given(source, 0)]
    assert places(source.gather(100, 0)) == []
    source.consumer.script = [record(0, 11), record(1, 5)]
    assert places(source.gather(100, 0)) == [(1, 5)]
    assert source.consumer.refusals == 1  # not with every poll
    clock.advance(ASK_AGAIN_FIRST_S)
    source.gather(100, 0)
    clock.advance(2 * ASK_AGAIN_FIRST_S)
    source.consumer.script = [record(0, 12)]
    assert places(source.gather(100, 0)) == []  # sought after this call: it was fetched before
    source.consumer.script = [record(0, 8)]
    assert places(source.gather(100, 0)) == [(0, 8)]


def test_where_a_partition_starts_is_never_left_to_the_client(source):
    """It asks a group's coordinator that has moved only once, and reads nothing for ever (librdkafka #5586)."""
    assert source.consumer.starts == {0: 8, 1: 5}
    comes_unknown(source, 2)
    assert source.consumer.starts[2] == ANYWHERE


def test_a_partition_of_which_nobody_can_say_where_it_begins_does_once_it_is_known(source, clock):
    comes_unknown(source, 2, silences=2)
    source.consumer.script = [record(2, 0), record(1, 5)]
    assert places(source.poll(100, 0)) == [(1, 5)]
    two = TopicPartition(TOPIC, 2)
    assert two not in source.positions()  # the client's own counts what was not given
    source.rewind({two: 7})
    assert not sought(source, 2)
    source.pause()
    source.resume()
    assert ("resume", [0, 1]) in source.consumer.calls  # not 2

    assert places(source.poll(100, 0)) == []
    assert source.consumer.silences == 1  # not asked with every poll
    clock.advance(ASK_AGAIN_FIRST_S)
    source.poll(100, 0)
    assert not sought(source, 2)
    clock.advance(2 * ASK_AGAIN_FIRST_S)
    source.poll(100, 0)
    assert source.consumer.calls[-2:] == [("seek", 2, 30), ("resume", [2])]
    assert source.positions()[two] == 100

    source.consumer.script = [record(2, 30)]
    assert places(source.poll(100, 0)) == [(2, 30)]


def test_the_others_of_an_assignment_begin_at_once(source):
    source.consumer.group[3] = 40
    source.consumer.in_doubt = {2}
    source.consumer.script = [lambda: given(source, 2, 3)]
    source.poll(100, 0)
    source.consumer.script = [record(2, 0), record(3, 40)]
    assert places(source.poll(100, 0)) == [(3, 40)]


def test_a_partition_without_an_offset_begins_once_its_leader_says_where_its_log_does(source, clock):
    del source.consumer.group[2]
    source.consumer.leaderless = {2}
    source.consumer.script = [lambda: given(source, 2, 3)]
    source.poll(100, 0)
    assert source.consumer.starts == {0: 8, 1: 5, 2: ANYWHERE, 3: 13}
    source.consumer.leaderless = set()
    clock.advance(STARTS_TIMEOUT_S)
    source.poll(100, 0)
    assert sought(source, 2) == [("seek", 2, 12)]
    assert source.resets == ["no_committed_offset"] * 2  # each once


@pytest.mark.parametrize("rests", ["held", "paused"])
def test_a_partition_that_is_to_rest_begins_resting(source, clock, rests):
    comes_unknown(source, 2)
    if rests == "held":
        source.hold({TopicPartition(TOPIC, 2)})
    else:
        source.pause()
    clock.advance(ASK_AGAIN_FIRST_S)
    source.poll(100, 0)
    assert source.consumer.calls[-1] == ("seek", 2, 30)


def test_one_that_goes_before_it_is_known_is_forgotten(source, clock):
    comes_unknown(source, 2)
    source.consumer.script = [lambda: lost(source, 2)]
    source.poll(100, 0)
    clock.advance(ASK_AGAIN_FIRST_S)
    source.poll(100, 0)
    assert not sought(source, 2)


def test_one_that_could_not_be_looked_up_from_anywhere_waits_on(source, clock):
    """The client takes no seek after it has said so."""
    comes_unknown(source, 2)
    source.consumer.script = [out_of_range(2, NO_OFFSET)]
    source.poll(100, 0)
    assert source.consumer.calls[-3:] == [("unassign", [2]), ("assign", [2]), ("pause", [2])]
    assert source.consumer.starts[2] == ANYWHERE
    clock.advance(ASK_AGAIN_FIRST_S)
    source.poll(100, 0)
    assert sought(source, 2) == [("seek", 2, 30)]
    assert source.resets == []


def test_what_the_client_says_of_an_earlier_assignment_is_not_heard(source):
    """Such an error outlives the assignment: taken at its word, the whole log would be read again."""
    source.consumer.script = [out_of_range(0, 7)]
    source.poll(100, 0)
    assert source.consumer.calls == []
    source.consumer.script = [out_of_range(0, 8)]
    source.poll(100, 0)
    assert source.consumer.calls == [("unassign", [0]), ("assign", [0])]
    assert source.resets == ["out_of_range"]


def test_a_log_that_was_cut_off_is_counted_and_a_beginning_that_was_not_found_is_only_looked_for_again(source):
    """Both without an offset; the second is our own answer to the first."""
    for _ in range(2):
        source.consumer.script = [out_of_range(0, NO_OFFSET)]
        source.poll(100, 0)
        assert source.consumer.starts[0] == OFFSET_BEGINNING
        assert source.resets == ["out_of_range"]


def test_one_that_comes_again_before_anybody_answered_begins_where_the_group_stands(source, clock):
    source.consumer.silences = 1
    source.consumer.script = [record(0, 10), lambda: lost(source, 0), lambda: given(source, 0)]
    assert places(source.gather(100, 0)) == []
    assert source.consumer.starts[0] == ANYWHERE
    clock.advance(ASK_AGAIN_FIRST_S)
    source.gather(100, 0)
    assert sought(source, 0) == [("seek", 0, 8)]


def test_it_is_asked_less_and_less_often_and_for_others_anew(source, clock):
    comes_unknown(source, 2, silences=1_000)
    asked_at = []
    for _ in range(100):
        clock.advance(0.1)
        before = source.consumer.silences
        source.poll(100, 0)
        if source.consumer.silences < before:
            asked_at.append(round(clock.monotonic() - 1000, 1))
    assert asked_at == pytest.approx([0.1, 0.3, 0.7, 1.5, 3.1, 5.1, 7.1, 9.1], abs=0.11)
    source.consumer.silences = 0
    clock.advance(2.0)
    source.poll(100, 0)
    source.consumer.group[3] = 40
    comes_unknown(source, 3)
    clock.advance(ASK_AGAIN_FIRST_S)
    source.poll(100, 0)
    assert sought(source, 3) == [("seek", 3, 40)]


def test_a_question_that_takes_long_is_not_asked_for_more_than_half_of_the_time(source, clock):
    source.consumer.silence_s = 1.0
    comes_unknown(source, 2, silences=2)
    clock.advance(0.9)
    source.poll(100, 0)
    assert source.consumer.silences == 1
    clock.advance(0.11)
    source.poll(100, 0)
    assert source.consumer.silences == 0


def test_leaders_that_do_not_answer_have_a_second_together(source):
    source.consumer.leaderless = set(range(10, 60))
    source.consumer.script = [lambda: given(source, *range(10, 60))]
    source.poll(100, 0)
    assert sum(source.consumer.timeouts) == pytest.approx(STARTS_TIMEOUT_S)
    assert min(source.consumer.timeouts) >= STARTS_LEAST_S


@pytest.mark.parametrize(("told", "said", "believed"), [(5, 5, True), (20, 8, False), (None, NO_OFFSET, True)])
def test_the_audit_trail_says_where_to_read_and_what_is_out_of_range(begun, told, said, believed):
    source = begun(kind=AuditSource)
    source.consumer.group = {0: 8}
    given(source, 0)
    source.read_from(TopicPartition(TOPIC, 0), told)
    source.consumer.calls.clear()
    source.consumer.script = [out_of_range(0, said)]
    source.poll(100, 0)
    assert bool(source.consumer.calls) == believed


def test_where_the_audit_trail_reads_from_is_not_sought_again(begun, clock):
    source = begun(kind=AuditSource)
    comes_unknown(source, 0)
    source.hold({TopicPartition(TOPIC, 0)})
    source.read_from(TopicPartition(TOPIC, 0), 20)
    clock.advance(ASK_AGAIN_FIRST_S)
    source.consumer.script = [record(0, 20)]
    assert places(source.poll(100, 0)) == [(0, 20)]
    assert not sought(source, 0)


@pytest.mark.parametrize("silences", [0, 1])
def test_a_group_without_offsets_that_may_start_nowhere_is_dead(begun, clock, silences):
    source = begun("fail")
    source.consumer.silences = silences
    source.consumer.script = [lambda: given(source, 0)]
    for _ in range(silences):
        source.poll(100, 0)
        clock.advance(ASK_AGAIN_FIRST_S)
    with pytest.raises(ConsumerDead, match=r"no committed offset for events\[0\], and kafka.start_from is fail"):
        source.poll(100, 0)


def test_with_latest_where_a_partition_begins_is_committed_once_and_at_once(begun, clock):
    source = begun("latest")
    source.consumer.silences = 1
    source.consumer.script = [lambda: given(source, 0, 1)]
    source.consumer.group = {1: 5}
    source.poll(100, 0)
    assert source.consumer.commits == {}
    clock.advance(ASK_AGAIN_FIRST_S)
    source.poll(100, 0)
    assert source.consumer.commits == {0: 20}
    assert sought(source, 0) == [("seek", 0, 20)]
    assert sought(source, 1) == [("seek", 1, 5)]
    assert source.resets == ["no_committed_offset"]
