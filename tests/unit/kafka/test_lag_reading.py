"""What comes out of the client while stretches are read: records, ends, and what belongs to neither."""

import pytest
from confluent_kafka import KafkaError, Message
from fakes import NOW_MS
from hypothesis import given
from hypothesis import strategies as st

from app.group_marks import Stretch
from app.kafka.lag import _of_group
from app.kafka.stretches import _Reading
from app.records import TopicPartition

T0, T1 = TopicPartition("events", 0), TopicPartition("events", 1)


def record(offset, *, partition=0, timestamp=(1, NOW_MS)):
    return Message(topic="events", partition=partition, offset=offset, value=b"v", timestamp=timestamp)


def end(offset, *, partition=0, code=KafkaError._PARTITION_EOF):
    return Message(topic="events", partition=partition, offset=offset, error=KafkaError(code))


def closed(partitions):
    return [(p.topic, p.partition) for p in partitions]


def test_a_stretch_ends_with_its_last_offset():
    reading = _Reading({T0: Stretch(5, 8, 100)})
    assert reading.take(record(5)) == []
    assert closed(reading.take(record(7))) == [T0]
    seen = reading.seen()[T0]
    assert (seen.offsets.tolist(), seen.first_ms, seen.reached) == ([5, 7], NOW_MS, 8)
    assert not reading.open


def test_markers_at_the_end_are_known_by_what_comes_after_them_or_by_the_partitions_end():
    for last in (record(9), end(8), end(12)):
        reading = _Reading({T0: Stretch(5, 8, 100)})
        reading.take(record(5))
        assert closed(reading.take(last)) == [T0]
        assert (reading.seen()[T0].offsets.tolist(), reading.seen()[T0].reached) == ([5], 8)


def test_an_end_that_comes_too_soon_is_that_of_a_replica_that_is_behind():
    reading = _Reading({T0: Stretch(5, 8, 100)})
    assert reading.take(end(6)) == []
    assert T0 in reading.open


def test_no_more_is_taken_than_was_asked_for():
    reading = _Reading({T0: Stretch(5, 100, 2)})
    reading.take(record(5))
    assert closed(reading.take(record(9))) == [T0]
    assert reading.take(record(10)) == []
    assert (reading.seen()[T0].offsets.tolist(), reading.seen()[T0].reached) == ([5, 9], 10)


def test_what_is_left_of_an_earlier_assignment_is_not_taken():
    reading = _Reading({T0: Stretch(5, 8, 100)})
    assert reading.take(record(3)) == []
    assert reading.take(record(3, partition=1)) == []
    assert reading.seen() == {}


def test_a_partition_that_cannot_be_read_is_given_up_once():
    reading = _Reading({T0: Stretch(5, 8, 100), T1: Stretch(0, 2, 100)})
    refused = end(-1, code=KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert closed(reading.give_up(refused)) == [T0]
    assert reading.give_up(refused) == []
    assert list(reading.open) == [T1]


@pytest.mark.parametrize("timestamp", [(0, 0), (0, -1), (1, -1), (1, 0)])
def test_a_record_without_a_timestamp_has_no_age(timestamp):
    reading = _Reading({T0: Stretch(0, 1, 1)})
    reading.take(record(0, timestamp=timestamp))
    assert reading.seen()[T0].first_ms is None


@given(
    places=st.sets(st.integers(0, 30)),
    first=st.integers(0, 20),
    length=st.integers(1, 15),
    most=st.integers(1, 10),
    stop=st.integers(0, 40),
)
def test_everything_below_what_was_reached_was_seen(places, first, length, most, stop):
    stretch = Stretch(first, first + length, most)
    reading = _Reading({T0: stretch})
    for offset in [place for place in sorted(places) if place >= first][:stop]:
        reading.take(record(offset))
    for seen in reading.seen().values():
        really = [place for place in sorted(places) if first <= place < seen.reached]
        assert seen.offsets.tolist() == really
        assert seen.reached <= stretch.end
        assert len(seen.offsets) <= most


def test_troubles_belong_to_the_groups_that_read_there():
    unknown = {"group a": "1", "group b": "2", "topic x": "3", "x[4]": "4", "y[0]": "5"}
    assert _of_group(unknown, "a", ("x",)) == {"group a": "1", "topic x": "3", "x[4]": "4"}
    assert _of_group(unknown, "b", ("y", "z")) == {"group b": "2", "y[0]": "5"}
