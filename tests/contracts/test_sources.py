"""What `ports.Source` promises, asked of the fake that the loop is tested with and of the consumer, both protocols."""

import time
import uuid

import pytest
from worlds import WAIT_S, BrokerWorld, Listener, MemoryWorld, RecordingObserver

from app.clock import SystemClock
from app.errors import ConsumerDead
from app.kafka.client_config import ClientPolicy, GroupPolicy, consumer_properties
from app.kafka.group_offsets import GroupOffsets
from app.kafka.source import KafkaSource
from app.kafka.watchdog import Watchdog


def real(name):
    return pytest.param(name, marks=pytest.mark.broker)


@pytest.fixture(params=["fake", real("classic"), real("consumer")])
def world(request):
    if request.param == "fake":
        made = MemoryWorld()
    else:
        kafka, topics = request.getfixturevalue("kafka"), request.getfixturevalue("topics")
        made = BrokerWorld(kafka, topics, protocol=request.param)
    yield made
    made.close()


def of(partition, polled):
    return [offset for where, offset in polled if where == partition]


def test_every_record_comes_once_and_in_order_within_its_partition(world):
    world.append(0, 30)
    world.append(1, 20)
    polled = world.polled(50)
    assert of(0, polled) == list(range(30))
    assert of(1, polled) == list(range(20))
    assert world.source.positions() == {world.at(0): 30, world.at(1): 20}


def test_what_is_known_to_be_there_and_was_not_given_yet_is_counted_but_not_where_nothing_is_asked_for(world):
    world.append(0, 30)
    world.polled(10)
    deadline = time.monotonic() + WAIT_S
    while world.source.unread() != 20:  # the end is what the last answer of the broker said
        assert time.monotonic() < deadline
        time.sleep(0.01)
    world.source.hold({world.at(0)})
    assert world.source.unread() == 0
    world.source.release({world.at(0)})
    world.polled(20)
    assert world.source.unread() == 0


def test_after_a_rewind_records_come_again_from_there(world):
    world.append(0, 30)
    world.append(1, 10)
    world.polled(40)
    world.source.rewind({world.at(0): 12})
    assert world.polled(18) == [(0, offset) for offset in range(12, 30)]


def test_gathering_waits_for_all_that_is_asked_for(world):
    world.append(0, 20)
    world.append(1, 20)
    first = world.polled(10)
    gathered = [(record.partition(), record.offset()) for record in world.source.gather(30, 30.0)]
    assert sorted(first + gathered) == [(partition, offset) for partition in (0, 1) for offset in range(20)]
    assert world.source.gather(10, 0.2) == []


def test_nothing_comes_while_paused_and_nothing_is_lost_by_it(world):
    world.append(0, 30)
    world.polled(10)
    world.source.pause()
    assert world.polled_for(0.5) == []
    world.source.resume()
    assert of(0, world.polled(20)) == list(range(10, 30))


def test_a_held_partition_gives_nothing_until_released_and_the_other_goes_on(world):
    world.append(0, 10)
    world.append(1, 10)
    world.polled(20)
    world.source.hold({world.at(0)})
    world.append(0, 10)
    world.append(1, 10)
    assert world.polled(10) == [(1, offset) for offset in range(10, 20)]
    world.source.pause()
    world.source.resume()
    assert world.polled_for(0.5) == []
    world.source.rewind({world.at(0): 5})
    world.source.release({world.at(0)})
    assert world.polled(15) == [(0, offset) for offset in range(5, 20)]


def test_a_partition_held_while_all_are_paused_stays_held_afterwards(world):
    world.append(0, 10)
    world.append(1, 10)
    world.source.pause()
    world.source.hold({world.at(0)})
    world.source.resume()
    assert {where for where, _ in world.polled(10)} == {1}
    world.source.pause()
    world.source.release({world.at(0)})
    assert world.polled_for(0.3) == []
    world.source.resume()
    assert {where for where, _ in world.polled(10)} == {0}


def test_the_group_starts_at_its_committed_offset(world):
    world.append(0, 10)
    assert world.sink.settle_now({world.at(0): 4}, "", 30.0)
    assert world.source.starts({world.at(0)}) == {world.at(0): 4}
    assert world.source.committed({world.at(0), world.at(1)}) == {world.at(0): 4}


@pytest.mark.broker
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_partition_begins_once_the_group_says_where_and_the_others_at_once(kafka, topics, protocol, monkeypatch):
    """As while its coordinator moves, or a transaction has the offset in its hands; here it says 7 in the end."""
    told, ask = [], GroupOffsets.beginnings

    def reluctant(offsets, sources):
        found = ask(offsets, sources)
        return {s: 7 if s.partition == 0 else offset for s, offset in found.items() if s.partition != 0 or told}

    monkeypatch.setattr(GroupOffsets, "beginnings", reluctant)
    world = BrokerWorld(kafka, topics, protocol=protocol)
    try:
        world.append(0, 30)
        world.append(1, 20)
        assert world.polled(20) == [(1, offset) for offset in range(20)]
        world.source.pause()
        world.source.resume()
        assert world.polled_for(0.5) == []
        assert world.at(0) not in world.source.positions()
        told.append(True)
        assert world.polled(23) == [(0, offset) for offset in range(7, 30)]
    finally:
        world.close()


@pytest.mark.broker
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_without_offsets_that_may_start_nowhere_is_an_error_that_says_so(kafka, topics, protocol):
    clock = SystemClock()
    group = GroupPolicy(f"contract-{uuid.uuid4().hex[:12]}", protocol)
    properties = consumer_properties(ClientPolicy(kafka, "contract"), group, 1_000_000)
    source = KafkaSource(properties, [topics("events", 2)], "fail", clock, Watchdog(clock), RecordingObserver())
    source.subscribe(Listener())
    try:
        with pytest.raises(ConsumerDead, match=r"no committed offset for events.*\[0\].*kafka.start_from is fail"):
            poll_until_dead(source)
    finally:
        source.close()


def poll_until_dead(source):
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        source.poll(100, 0.1)
