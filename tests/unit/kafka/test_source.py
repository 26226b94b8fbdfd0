"""Assignment changes in the middle of a call of the client, which no real broker can be made to time."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from app.clock import SystemClock
from app.kafka.source import KafkaSource
from app.kafka.watchdog import Watchdog

TOPIC = "events"


class ScriptedConsumer:
    """Its next `consume` gives the records of a script, and calls the functions between them."""

    def __init__(self, _properties):
        self.script, self.calls, self.group = [], [], {}
        self.refusals = 0

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
        return [ClientPartition(p.topic, p.partition, self.group.get(p.partition, -1001)) for p in partitions]

    def incremental_assign(self, partitions):
        self.calls.append(("assign", [p.partition for p in partitions]))

    def incremental_unassign(self, partitions):
        if self.refusals:
            self.refusals -= 1
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.calls.append(("unassign", [p.partition for p in partitions]))

    def pause(self, partitions):
        self.calls.append(("pause", [p.partition for p in partitions]))

    def resume(self, partitions):
        self.calls.append(("resume", [p.partition for p in partitions]))


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setattr("app.kafka.source.Consumer", ScriptedConsumer)
    properties = {"group.id": "group", "group.protocol": "consumer"}
    nobody = SimpleNamespace(offset_reset=lambda *_: None)
    source = KafkaSource(properties, [TOPIC], "earliest", Watchdog(SystemClock()), nobody)
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
