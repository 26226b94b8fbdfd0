"""What `ports.Sink` promises, asked of the fake that the loop is tested with and of both sinks on the real broker."""

import pytest
from worlds import BrokerWorld, MemoryWorld

from app.errors import Aborted, DeliveryFailed


def real(name):
    return pytest.param(name, marks=pytest.mark.broker)


@pytest.fixture(params=["fake", real("exactly_once"), real("at_least_once")])
def world(request):
    if request.param == "fake":
        made = MemoryWorld()
    else:
        kafka, topics = request.getfixturevalue("kafka"), request.getfixturevalue("topics")
        made = BrokerWorld(kafka, topics, transactional=request.param == "exactly_once")
    yield made
    made.close()


def test_a_new_sink_has_room_and_nothing_to_settle(world):
    assert world.sink.has_room()
    assert world.sink.settle({}, "", idle=True)
    assert world.committed() == {}


def test_outputs_and_offsets_are_there_once_settled_and_in_order(world):
    world.append(0, 10)
    world.append(1, 10)
    world.deliver("0@0", "1@0", "0@1", letters=["1@1"])
    world.deliver("0@2", "1@2")
    assert world.committed() == {}
    world.settle({0: 3, 1: 3})
    assert world.committed() == {0: 3, 1: 3}
    first, second = world.outputs()
    assert first == ["0", "1", "2"]
    assert sorted(second) == ["0", "1", "2"]


def test_settle_now_has_committed_when_it_says_so(world):
    world.append(0, 10)
    world.deliver("0@0")
    assert world.sink.settle_now({world.at(0): 1}, "", 30.0)
    assert world.committed() == {0: 1}
    assert world.outputs() == [["0"], []]


def test_offsets_are_committed_without_any_output(world):
    world.append(1, 10)
    assert world.sink.settle_now({world.at(1): 7}, "", 30.0)
    assert world.committed() == {1: 7}


def test_the_note_is_kept_with_the_offsets(world):
    world.append(0, 10)
    assert world.source.notes({world.at(0)}) == []
    world.deliver("0@0")
    world.settle({0: 1}, "seen: 1")
    assert world.source.notes({world.at(0)}) == ["seen: 1"]


def test_what_is_abandoned_is_never_seen_if_the_sink_is_transactional(world):
    world.append(0, 10)
    world.deliver("0@0")
    world.sink.abandon()
    assert world.sink.recovered()
    world.deliver("0@0")
    world.settle({0: 1})
    assert world.outputs() == [["0"] if world.transactional else ["0", "0"], []]


def test_a_closed_sink_has_committed_nothing_more(world):
    world.append(0, 10)
    world.deliver("0@0")
    world.sink.close()
    assert world.committed() == {}
    if world.transactional:
        assert world.outputs() == [[], []]


@pytest.mark.broker
def test_what_the_broker_refuses_is_not_committed_and_named_at_the_second_attempt(kafka, topics):
    """After a commit exactly_once goes without the reports that name refusals, until a transaction fails."""
    world = BrokerWorld(kafka, topics, output_config={"max.message.bytes": "500"})
    try:
        world.append(0, 3)
        world.deliver("0@0")
        world.settle({0: 1})

        too_large = "0@" + "x" * 1000
        world.deliver(too_large)
        with pytest.raises(Aborted):
            world.sink.settle({world.at(0): 2}, "", idle=True)
        assert world.committed() == {0: 1}
        world.deliver(too_large)
        with pytest.raises(DeliveryFailed, match="MSG_SIZE_TOO_LARGE"):
            world.sink.settle({world.at(0): 2}, "", idle=True)

        assert world.committed() == {0: 1}
        assert world.outputs() == [["0"], []]
    finally:
        world.close()
