"""Batching loses, repeats and reorders nothing, and is due exactly when its policy says."""

import math

import pytest
from fakes import FakeRecord, ManualClock, records_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.pipeline.batcher import BatchPolicy, FixedWait, MicroBatcher

POLICY = BatchPolicy(max_records=4, max_bytes=100)
MAX_WAIT_S = 0.5


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def batcher(clock):
    return MicroBatcher(POLICY, clock, FixedWait(MAX_WAIT_S, clock))


def sized(*sizes: int) -> list[FakeRecord]:
    return records_of([bytes(size) for size in sizes])


def test_an_empty_batcher_is_never_due(batcher, clock):
    assert batcher.due_in() == math.inf
    clock.advance(3600)
    batcher.add([])
    assert batcher.due_in() == math.inf
    assert len(batcher) == 0
    with pytest.raises(IndexError):
        batcher.take()


def test_a_batch_is_due_at_the_last_record_that_fits(batcher):
    batcher.add(sized(1, 1, 1))
    assert batcher.due_in() == 0.5
    assert batcher.room() == 1
    batcher.add(sized(1))
    assert (batcher.due_in(), batcher.room()) == (0.0, 0)
    assert (batcher.take().cause, len(batcher)) == ("records", 0)


def test_what_is_there_leaves_together_if_that_is_allowed_and_nothing_waits_for_it(batcher):
    batcher.allow(3)
    batcher.add(sized(1, 1, 1))
    assert (batcher.due_in(), batcher.room()) == (0.5, 9)
    batcher.add(sized(1))
    assert (batcher.due_in(), batcher.room()) == (0.0, 8)
    batcher.add(sized(*[1] * 12))
    batch = batcher.take()
    assert (batch.cause, batch.runs, len(batcher)) == ("records", [4, 4, 4], 4)
    batcher.allow(1)
    assert batcher.take().runs == [4]


def test_gathering_for_a_batch_ends_when_it_is_due(batcher):
    batcher.allow(3)
    assert batcher.lacks() == 4
    batcher.add(sized(1, 1, 1))
    assert (batcher.room(), batcher.lacks()) == (9, 1)


def test_an_empty_batcher_expects_records_like_the_last(batcher):
    batcher.allow(3)
    batcher.add(sized(20, 20, 20, 20))
    batcher.take()
    assert batcher.room() == 5  # of 12: 100 bytes at most


def test_a_batch_is_due_at_the_byte_that_fills_it(batcher):
    batcher.add(sized(60, 39))
    assert (batcher.due_in(), batcher.size_bytes) == (0.5, 99)
    batcher.add(sized(1))
    assert (batcher.due_in(), batcher.room()) == (0.0, 0)
    batch = batcher.take()
    assert (batch.cause, len(batch)) == ("bytes", 3)


def test_a_record_that_would_exceed_the_bytes_waits_for_the_next_batch(batcher):
    batcher.add(sized(60, 60))
    first = batcher.take()
    assert (first.cause, [len(record) for record in first.records]) == ("bytes", [60])
    assert (len(batcher), batcher.size_bytes) == (1, 60)


def test_a_record_larger_than_the_bytes_goes_alone(batcher):
    batcher.add(sized(500, 1))
    assert batcher.due_in() == 0.0
    assert [len(record) for record in batcher.take().records] == [500]
    assert [len(record) for record in batcher.take().records] == [1]


def test_a_batch_is_due_when_its_oldest_record_is_old_enough(batcher, clock):
    batcher.add(sized(1))
    clock.advance(0.3)
    batcher.add(sized(1))
    assert batcher.due_in() == pytest.approx(0.2)
    clock.advance(0.2)
    assert batcher.due_in() == pytest.approx(0.0, abs=1e-9)
    clock.advance(1)
    assert batcher.due_in() == 0.0
    batch = batcher.take()
    assert (batch.cause, batch.waited_s) == ("age", pytest.approx(1.5))


def test_the_first_record_after_an_idle_spell_waits_for_company(batcher, clock):
    batcher.add(sized(1))
    batcher.take()
    clock.advance(3600)
    batcher.add(sized(1))
    assert batcher.due_in() == 0.5


def test_what_a_full_batch_leaves_behind_keeps_its_own_age(batcher, clock):
    batcher.add(sized(1, 1, 1))
    clock.advance(0.1)
    batcher.add(sized(1, 1))
    assert batcher.take().waited_s == pytest.approx(0.1)
    assert batcher.due_in() == pytest.approx(0.5)
    clock.advance(0.25)
    assert batcher.due_in() == pytest.approx(0.25)
    assert batcher.take().waited_s == pytest.approx(0.25)


def test_dropped_records_take_their_age_with_them(batcher, clock):
    batcher.add(records_of([b"a"], partition=1))
    clock.advance(0.4)
    batcher.add([*records_of([b"bb"], partition=2), *records_of([b"c"], partition=1)])
    assert batcher.drop(lambda record: record.partition() == 1) == 2
    assert [record.value() for record in batcher.records] == [b"bb"]
    assert batcher.size_bytes == 2
    assert batcher.due_in() == pytest.approx(0.5)
    clock.advance(0.1)
    assert batcher.take().waited_s == pytest.approx(0.1)


def test_dropping_everything_leaves_an_empty_batcher(batcher):
    batcher.add(sized(1, 2))
    assert batcher.drop(lambda _record: True) == 2
    assert batcher.due_in() == math.inf
    assert (len(batcher), batcher.size_bytes) == (0, 0)


def test_dropping_nothing_changes_nothing(batcher, clock):
    batcher.add(sized(1, 2))
    clock.advance(0.1)
    assert batcher.drop(lambda _record: False) == 0
    assert batcher.due_in() == pytest.approx(0.4)
    assert len(batcher) == 2


def test_draining_makes_whatever_is_left_due_at_once(batcher):
    batcher.drain()
    assert batcher.due_in() == math.inf
    batcher.add(sized(1, 1, 1, 1, 1))
    assert batcher.due_in() == 0.0
    assert [batcher.take().cause, batcher.take().cause] == ["records", "drain"]


def test_tombstones_count_as_records_without_bytes(batcher):
    batcher.add(records_of([None, None, b"x"]))
    assert (len(batcher), batcher.size_bytes, batcher.room()) == (3, 1, 1)


def test_no_wait_makes_every_record_due_at_once(clock):
    batcher = MicroBatcher(BatchPolicy(), clock, FixedWait(0, clock))
    batcher.add(sized(1))
    assert batcher.due_in() == 0.0


@given(
    sizes=st.lists(st.lists(st.integers(0, 150), max_size=9), max_size=8),
    max_records=st.integers(1, 5),
    max_bytes=st.integers(1, 200),
)
def test_batches_in_a_row_are_the_records_in_a_row(sizes, max_records, max_bytes):
    clock = ManualClock()
    batcher = MicroBatcher(BatchPolicy(max_records, max_bytes), clock, FixedWait(1.0, clock))
    added, taken = [], []
    for polled in sizes:
        records = sized(*polled)
        added += records
        batcher.add(records)
        while batcher.due_in() == 0.0:
            taken.append(batcher.take())
    batcher.drain()
    while len(batcher):
        taken.append(batcher.take())
    assert [record for batch in taken for record in batch.records] == added
    for batch in taken:
        assert 1 <= len(batch) <= max_records
        assert len(batch) == 1 or sum(map(len, batch.records)) <= max_bytes


class BatcherMachine(RuleBasedStateMachine):
    """The batcher against a list of (record, arrival)."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.batcher = MicroBatcher(POLICY, self.clock, FixedWait(MAX_WAIT_S, self.clock))
        self.held: list[tuple[FakeRecord, float]] = []
        self.draining = False
        self.most_records = POLICY.max_records

    @rule(together=st.integers(1, 3))
    def allow(self, together):
        self.batcher.allow(together)
        self.most_records = together * POLICY.max_records

    @rule(sizes=st.lists(st.integers(0, 60), max_size=6), partition=st.integers(0, 2))
    def add(self, sizes, partition):
        records = records_of([bytes(size) for size in sizes], partition=partition)
        self.batcher.add(records)
        self.held += [(record, self.clock.monotonic()) for record in records]

    @rule(seconds=st.sampled_from([0.0, 0.125, 0.25, 0.5]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def drain(self):
        self.batcher.drain()
        self.draining = True

    @rule(partition=st.integers(0, 2))
    def drop(self, partition):
        kept = [(record, when) for record, when in self.held if record.partition() != partition]
        assert self.batcher.drop(lambda record: record.partition() == partition) == len(self.held) - len(kept)
        self.held = kept

    @precondition(lambda self: self.held)
    @rule()
    def take(self):
        batch = self.batcher.take()
        expected = self.held[: len(batch)]
        assert list(batch.records) == [record for record, _ in expected]
        assert batch.waited_s == self.clock.monotonic() - expected[0][1]
        assert len(batch) <= self.most_records
        assert sum(batch.runs) == len(batch)
        assert max(batch.runs) <= POLICY.max_records
        size = sum(map(len, batch.records))
        assert size <= POLICY.max_bytes or len(batch) == 1
        rest = self.held[len(batch) :]
        by_bytes = rest and size + len(rest[0][0]) > POLICY.max_bytes
        assert len(batch) == self.most_records or by_bytes or not rest
        if by_bytes and len(batch) < self.most_records:
            assert batch.cause == "bytes"
        elif len(batch) >= POLICY.max_records:
            assert batch.cause == "records"
        elif size >= POLICY.max_bytes:
            assert batch.cause == "bytes"
        else:
            assert batch.cause == ("drain" if self.draining else "age")
        self.held = rest

    @invariant()
    def agrees(self):
        assert list(self.batcher.records) == [record for record, _ in self.held]
        assert self.batcher.size_bytes == sum(len(record) for record, _ in self.held)
        full = len(self.held) >= self.most_records or self.batcher.size_bytes >= POLICY.max_bytes
        assert (self.batcher.room() == 0) == full
        if not self.held:
            assert self.batcher.due_in() == math.inf
        elif full or self.draining or len(self.held) >= POLICY.max_records:
            assert self.batcher.due_in() == 0.0
        else:
            assert self.batcher.due_in() == max(0.0, self.held[0][1] + MAX_WAIT_S - self.clock.monotonic())


TestBatcherMachine = BatcherMachine.TestCase
