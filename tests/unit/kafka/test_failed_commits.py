"""At least once: an asynchronous commit that failed is sent again, but never behind a later one."""

from contextlib import nullcontext

import pytest
from fakes import ManualClock

from app.kafka import sink
from app.kafka.client_config import DeliveryPolicy
from app.kafka.outbox import OutputTopics
from app.kafka.sink import AtLeastOnceSink
from app.records import TopicPartition

PARTITION = TopicPartition("events", 0)
INTERVAL_S = 0.1


class Producer:
    """All that is queued was acknowledged."""

    def poll(self, _timeout_s):
        return 0

    def flush(self, _timeout_s):
        return 0

    def __len__(self):
        return 0


class Consumer:
    """Keeps what it is told to commit."""

    def __init__(self):
        self.commits = []

    def commit(self, offsets, *, asynchronous):
        self.commits += [partition.offset for partition in offsets]
        return None if asynchronous else offsets


class Source:
    """failed: to be told once."""

    def __init__(self):
        self.consumer, self.failed = Consumer(), {}

    def take_failed_commits(self):
        failed, self.failed = self.failed, {}
        return failed


class Watchdog:
    def expecting(self, _what, _within_s):
        return nullcontext()


class World:
    def __init__(self):
        self.clock, self.source = ManualClock(), Source()
        policy = DeliveryPolicy(None, commit_interval_s=INTERVAL_S)
        topics = OutputTopics("predictions", "dead-letters")
        self.sink = AtLeastOnceSink({}, self.source, topics, policy, self.clock, Watchdog())

    def settle(self, at=None):
        """Past the interval, with everything before this offset acknowledged; returns what was committed then."""
        before = len(self.source.consumer.commits)
        self.clock.advance(INTERVAL_S)
        assert self.sink.settle({} if at is None else {PARTITION: at}, "", idle=True)
        return self.source.consumer.commits[before:]


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(sink, "new_producer", lambda _properties: Producer())
    return World()


def test_the_last_one_is_sent_again(world):
    assert world.settle(at=100) == [100]
    world.source.failed = {PARTITION: 100}
    assert world.settle() == [100]


def test_one_that_a_later_one_follows_is_not(world):
    assert world.settle(at=100) == [100]
    assert world.settle(at=200) == [200]
    world.source.failed = {PARTITION: 100}
    assert world.settle() == []
    assert world.sink.settle_now({}, "", 1.0)
    assert world.source.consumer.commits[-1] == 200


def test_and_if_that_fails_too_the_later_one_is(world):
    world.settle(at=100)
    world.settle(at=200)
    world.source.failed = {PARTITION: 100}
    assert world.settle() == []
    world.source.failed = {PARTITION: 200}
    assert world.settle() == [200]
