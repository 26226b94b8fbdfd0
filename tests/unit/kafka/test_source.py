"""Assignment changes in the middle of a call of the client, which no real broker can be made to time."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition
from fakes import ManualClock

from app.kafka.source import ASK_AGAIN_S, KafkaSource
from app.kafka.watchdog import Watchdog
from app.records import TopicPartition

TOPIC = "events"


class ScriptedConsumer:
    """Its next `consume` gives the records of a script, and calls the functions between them."""

    def __init__(self, _properties):
        self.script, self.calls, self.group = [], [], {}
        self.starts = {}
        self.refusals = self.silences = 0

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
            raise KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
        return [ClientPartition(p.topic, p.partition, self.group.get(p.partition, -1001)) for p in partitions]

    def incremental_assign(self, partitions):
        self.calls.append(("assign", [p.partition for p in partitions]))
        self.starts |= {p.partition: p.offset for p in partitions}

    def incremental_unassign(self, partitions):
        if self.refusals:
            self.refusals -= 1
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.calls.append(("unassign", [p.partition for p in partitions]))

    def position(self, partitions):
        return [ClientPartition(p.topic, p.partition, 100) for p in partitions]

    def seek(self, partition):
        self.calls.append(("seek", [partition.partition]))

    def pause(self, partitions):
        self.calls.append(("pause", [p.partition for p in partitions]))

    def resume(self, partitions):
        self.calls.append(("resume", [p.partition for p in partitions]))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def source(monkeypatch, clock):
    monkeypatch.setattr("app.kafka.source.Consumer", ScriptedConsumer)
    properties = {"group.id": "group", "group.protocol": "consumer"}
    nobody = SimpleNamespace(offset_reset=lambda *_: None)
    source = KafkaSource(properties, [TOPIC], "earliest", clock, Watchdog(clock), nobody)
    listener = SimpleNamespace(on_assigned=lambda _: None, on_revoked=lambda _: None, on_lost=lambda _: None)
    source.subscribe(listener)
    source.consumer.group = {0: 8, 1: 5}
    given(source, 0, 1)
    source.consumer.calls.clear()
    return source


def partitions(*numbers):
    return [ClientPartition(TOPIC, number) for number in numbers]


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
    begun = source.consumer.calls[-2:]
    assert begun == [("unassign", [0]), ("assign", [0])]
    source.consumer.script = [record(0, 8), record(0, 9)]
    assert places(getattr(source, call)(100, 0)) == [(0, 8), (0, 9)]


def test_until_it_can_begin_again_nothing_of_a_partition_is_given(source):
    def goes_and_comes():
        lost(source, 0)
        source.consumer.refusals = 2
        given(source, 0)

    source.consumer.script = [record(0, 10), goes_and_comes]
    assert places(source.gather(100, 0)) == []
    source.consumer.script = [record(0, 11), record(1, 5)]
    assert places(source.gather(100, 0)) == [(1, 5)]
    source.consumer.script = [record(0, 12)]
    assert places(source.gather(100, 0)) == []  # begun again after this call: it was fetched before
    source.consumer.script = [record(0, 8)]
    assert places(source.gather(100, 0)) == [(0, 8)]


def test_where_a_partition_starts_is_never_left_to_the_client(source):
    """It asks a group's coordinator that has moved only once, and reads nothing for ever (librdkafka #5586)."""
    assert source.consumer.starts == {0: 8, 1: 5}


def test_a_partition_of_which_nobody_can_say_where_it_starts_begins_once_it_is_known(source, clock):
    def comes():
        source.consumer.silences = 2
        given(source, 2)

    source.consumer.group[2] = 30
    source.consumer.script = [comes, record(2, 0), record(1, 5)]
    assert places(source.poll(100, 0)) == [(1, 5)]  # wherever the client found record 0
    two = TopicPartition(TOPIC, 2)
    assert two not in source.positions()  # the client's own counts what was not given
    source.rewind({two: 7})
    assert ("seek", [2]) not in source.consumer.calls

    assert places(source.poll(100, 0)) == []
    assert source.consumer.silences == 1  # not asked with every poll
    for _ in range(2):
        clock.advance(ASK_AGAIN_S)
        assert places(source.poll(100, 0)) == []
    assert source.consumer.calls[-2:] == [("unassign", [2]), ("assign", [2])]
    assert source.consumer.starts[2] == 30
    assert source.positions()[two] == 100

    source.consumer.script = [record(2, 30)]
    assert places(source.poll(100, 0)) == [(2, 30)]


def test_a_partition_that_is_held_begins_held(source, clock):
    def comes():
        source.consumer.silences = 1
        given(source, 2)

    source.consumer.group[2] = 30
    source.consumer.script = [comes]
    source.poll(100, 0)
    source.hold({TopicPartition(TOPIC, 2)})
    clock.advance(ASK_AGAIN_S)
    source.poll(100, 0)
    assert source.consumer.calls[-2:] == [("assign", [2]), ("pause", [2])]


def test_one_that_goes_before_it_is_known_is_forgotten(source, clock):
    def comes_and_goes():
        source.consumer.silences = 1
        given(source, 2)
        lost(source, 2)

    source.consumer.script = [comes_and_goes]
    source.poll(100, 0)
    clock.advance(ASK_AGAIN_S)
    source.poll(100, 0)
    assert source.consumer.calls[-1] == ("unassign", [2])
    assert 2 not in source.consumer.starts or source.consumer.starts[2] < 0
