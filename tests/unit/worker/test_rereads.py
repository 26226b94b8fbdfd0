"""What has to be read again is left out until it is, and then read from the right place."""

import pytest
from fakes import ManualClock

from app.errors import BrokerUnavailable
from app.records import TopicPartition
from app.worker.rereads import WAIT_FIRST_S, WAIT_MOST_S, Rereads

P0, P1 = TopicPartition("events", 0), TopicPartition("events", 1)


class Positions:
    """The part of a `ports.Source` that goes back."""

    def __init__(self):
        self.owned, self.held, self.rewound, self.group = {P0, P1}, set(), [], {}
        self.refuses = False

    def hold(self, sources):
        self.held |= set(sources)

    def release(self, sources):
        self.held -= set(sources)

    def rewind(self, points):
        if self.refuses:
            raise BrokerUnavailable("in the middle of a rebalance")
        self.rewound.append(dict(points))

    def committed(self, sources):
        return {source: self.group[source] for source in sources if source in self.group}


@pytest.fixture
def source():
    return Positions()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def rereads(source, clock):
    return Rereads(source, clock)


def test_a_partition_is_left_out_until_it_was_rewound(rereads, source):
    rereads.undone({P0: 7}, in_doubt=False)
    assert rereads.not_yet() == {P0}
    rereads.rewind()
    assert (source.rewound, rereads.not_yet()) == ([{P0: 7}], frozenset())


def test_undone_twice_before_it_was_rewound_it_goes_back_to_the_earlier(rereads, source):
    rereads.undone({P0: 7}, in_doubt=False)
    rereads.undone({P0: 9, P1: 3}, in_doubt=False)
    rereads.rewind()
    assert source.rewound == [{P0: 7, P1: 3}]


def test_a_rewind_that_fails_is_still_due(rereads, source):
    rereads.undone({P0: 7}, in_doubt=False)
    source.refuses = True
    with pytest.raises(BrokerUnavailable):
        rereads.rewind()
    source.refuses = False
    rereads.rewind()
    assert source.rewound == [{P0: 7}]


def test_in_doubt_what_was_committed_after_all_is_not_read_again(rereads, source):
    source.group = {P0: 20}
    rereads.undone({P0: 7, P1: 3}, in_doubt=True)
    rereads.rewind()
    assert source.rewound == [{P0: 20, P1: 3}]


def test_a_partition_that_waits_is_held_and_then_rewound(rereads, source, clock):
    rereads.hold({P1: 5})
    rereads.rewind()
    assert (source.held, source.rewound, dict(rereads.waiting)) == ({P1}, [], {P1: 5})
    clock.advance(WAIT_FIRST_S)
    rereads.rewind()
    assert (source.held, source.rewound, dict(rereads.waiting)) == (set(), [{P1: 5}], {})


def test_what_is_undone_of_a_partition_that_waits_does_not_end_its_wait(rereads, source):
    rereads.hold({P1: 5})
    rereads.undone({P1: 2}, in_doubt=False)
    rereads.rewind()
    assert (source.rewound, dict(rereads.waiting)) == ([], {P1: 2})


def test_it_waits_longer_each_time_until_something_of_it_is_delivered(rereads, clock):
    waits = []
    for _ in range(10):
        waits.append(rereads.hold({P0: 1}))
        clock.advance(waits[-1])
        rereads.rewind()
    assert waits[:3] == [WAIT_FIRST_S, 2 * WAIT_FIRST_S, 4 * WAIT_FIRST_S]
    assert waits[-1] == WAIT_MOST_S
    rereads.delivered({P1})
    assert rereads.hold({P0: 1}) == WAIT_MOST_S
    clock.advance(WAIT_MOST_S)
    rereads.rewind()
    rereads.delivered({P0})
    assert rereads.hold({P0: 1}) == WAIT_FIRST_S


def test_a_partition_that_left_is_not_read_again(rereads, source, clock):
    rereads.undone({P0: 7}, in_doubt=False)
    rereads.hold({P1: 5})
    rereads.forget({P0, P1})
    clock.advance(WAIT_MOST_S)
    rereads.rewind()
    assert (source.rewound, rereads.not_yet()) == ([], frozenset())
