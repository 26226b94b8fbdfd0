"""The committable offset never passes an unfinished record, whatever order work finishes in."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.pipeline.offsets import OffsetTracker
from app.records import Span, TopicPartition

A, B = TopicPartition("events", 0), TopicPartition("events", 1)


def span(first: int, next_: int, oldest_ms: int = 0, last_ms: int = 0) -> Span:
    return Span(first, next_, oldest_ms, last_ms)


def test_a_record_is_not_committable_before_it_is_finished():
    tracker = OffsetTracker()
    tracker.taken({A: span(5, 8)})
    assert tracker.committable() == {}
    assert tracker.restart_points() == {A: 5}
    tracker.finished({A: span(5, 8)})
    assert tracker.committable() == {A: 8}
    assert tracker.restart_points() == {A: 5}


def test_a_later_batch_finished_first_waits_for_the_earlier_one():
    tracker = OffsetTracker()
    tracker.taken({A: span(0, 4), B: span(7, 8)})
    tracker.taken({A: span(4, 9)})
    tracker.finished({A: span(4, 9)})
    assert tracker.committable() == {}
    tracker.finished({A: span(0, 4), B: span(7, 8)})
    assert tracker.committable() == {A: 9, B: 8}


def test_gaps_in_offsets_are_not_waited_for():
    tracker = OffsetTracker()
    for one in (span(0, 3), span(10, 12)):
        tracker.taken({A: one})
        tracker.finished({A: one})
    assert tracker.committable() == {A: 12}


def test_what_is_committed_is_no_restart_point():
    tracker = OffsetTracker()
    tracker.taken({A: span(0, 3)})
    tracker.taken({A: span(3, 5)})
    tracker.finished({A: span(0, 3)})
    tracker.committed()
    assert tracker.committable() == {}
    assert tracker.restart_points() == {A: 3}
    assert tracker.in_flight()
    tracker.finished({A: span(3, 5)})
    tracker.committed()
    assert not tracker.in_flight()
    assert tracker.restart_points() == {}


def test_a_forgotten_partition_is_neither_committed_nor_restarted():
    tracker = OffsetTracker()
    tracker.taken({A: span(0, 3), B: span(0, 2)})
    tracker.forget([A, TopicPartition("other", 9)])
    tracker.finished({A: span(0, 3), B: span(0, 2)})
    assert tracker.committable() == {B: 2}
    assert tracker.last_finished_ms(A) is None


def test_work_finished_after_its_partition_was_lost_and_read_again_does_not_count_for_the_new_work():
    tracker = OffsetTracker()
    tracker.taken({A: span(0, 10)})
    tracker.forget([A])
    tracker.taken({A: span(0, 4)})
    tracker.finished({A: span(0, 10)})
    assert tracker.committable() == {}
    tracker.finished({A: span(0, 4)})
    assert tracker.committable() == {A: 4}


def test_the_oldest_record_is_followed_until_it_is_committed():
    tracker = OffsetTracker()
    tracker.taken({A: span(0, 3, oldest_ms=50, last_ms=70)})
    tracker.taken({A: span(3, 5, oldest_ms=40, last_ms=90)})
    assert tracker.oldest_ms() == {A: 40}
    assert tracker.last_finished_ms(A) is None
    tracker.finished({A: span(0, 3, 50, 70)})
    tracker.finished({A: span(3, 5, 40, 90)})
    assert tracker.oldest_ms() == {A: 40}
    assert tracker.last_finished_ms(A) == 90
    tracker.committed()
    assert tracker.oldest_ms() == {}
    assert tracker.last_finished_ms(A) == 90


class OffsetMachine(RuleBasedStateMachine):
    """The tracker against a plain list of what was read, is open, and is committed."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.position = {A: 0, B: 0}
        self.committed_to = {A: 0, B: 0}
        self.takes = 0
        self.open: list[dict[TopicPartition, Span]] = []
        self.stale: list[dict[TopicPartition, Span]] = []
        self.unfinished: dict[TopicPartition, set[int]] = {A: set(), B: set()}

    @rule(sizes=st.dictionaries(st.sampled_from([A, B]), st.integers(1, 3), min_size=1), gap=st.integers(0, 2))
    def take(self, sizes, gap):
        spans = {}
        for source, size in sizes.items():
            first = self.position[source] + gap
            self.takes += 1  # as a timestamp: the same run of records read again is the same work
            spans[source] = span(first, first + size, self.takes, self.takes)
            self.unfinished[source] |= set(range(first, first + size))
            self.position[source] = first + size
        self.tracker.taken(spans)
        self.open.append(spans)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data):
        spans = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.tracker.finished(spans)
        for source, one in spans.items():
            self.unfinished[source] -= set(range(one.first_offset, one.next_offset))

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def finish_what_was_lost(self, data):
        self.tracker.finished(self.stale.pop(data.draw(st.integers(0, len(self.stale) - 1))))

    @rule()
    def commit(self):
        self.committed_to |= self.tracker.committable()
        self.tracker.committed()

    @rule(source=st.sampled_from([A, B]))
    def lose_and_read_again(self, source):
        self.tracker.forget([source])
        for spans in self.open:
            if source in spans:
                self.stale.append({source: spans.pop(source)})
        self.open = [spans for spans in self.open if spans]
        self.unfinished[source].clear()
        self.position[source] = self.committed_to[source]

    @invariant()
    def no_unfinished_record_is_committable(self):
        for source, next_offset in self.tracker.committable().items():
            assert all(offset >= next_offset for offset in self.unfinished[source])
            assert next_offset > self.committed_to[source]

    @invariant()
    def everything_uncommitted_is_read_again_after_a_restart(self):
        points = self.tracker.restart_points()
        for source in (A, B):
            if self.unfinished[source]:
                assert points[source] <= min(self.unfinished[source])
            assert points.get(source, self.committed_to[source]) >= self.committed_to[source]
        assert self.tracker.in_flight() == bool(points)
        assert self.tracker.oldest_ms().keys() == points.keys()


TestOffsetMachine = OffsetMachine.TestCase
