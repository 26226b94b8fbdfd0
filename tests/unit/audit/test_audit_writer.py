"""Who writes which file: each record once, whoever dies when."""

import pytest
from audit_world import (
    DAY_MS,
    FIRST,
    PIPELINE,
    SOURCE,
    TOPIC,
    Topic,
    World,
    objects_in,
    offsets_in,
    prediction,
    rows_in,
    schemas,
    trail_in,
)
from fakes import NOW_MS, FakeRecord, ManualClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audit.lane import RollPolicy
from app.audit.objects import TrailObjects
from app.audit.trail import Claim
from app.errors import AuditBroken, NotReachable
from app.records import TopicPartition

OTHER = TopicPartition(TOPIC, 1)


class Killed(BaseException):
    """SIGKILL: nothing catches it, and nothing of the process is used any more."""


class DyingObjects(TrailObjects):
    """Lets so many writes through, then kills: before the next one, or after it was done and before its answer."""

    def __init__(self, folder, writes, *, after):
        inner = objects_in(folder)
        super().__init__(inner._store, inner.url)  # no folder: a kill takes no power, and syncing is slow
        self._left, self._after = writes, after

    def create(self, path, content):
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Killed
        created = super().create(path, content)
        if self._left < 0:
            raise Killed
        return created


class SickObjects(TrailObjects):
    """Does not answer while it is down."""

    def __init__(self, folder):
        inner = objects_in(folder)
        super().__init__(inner._store, inner.url, folder)
        self.down = False

    def create(self, path, content):
        if self.down:
            raise NotReachable("the store is away")
        return super().create(path, content)


def topic_of(count, **more):
    return Topic([prediction(offset, **more) for offset in range(count)])


def test_every_record_is_in_a_file_once_it_is_due(tmp_path):
    world = World(tmp_path, topic_of(25))
    world.source.assign(SOURCE)
    world.turn(2)
    assert offsets_in(tmp_path) == []
    world.clock.advance(10)
    world.turn()
    assert offsets_in(tmp_path) == list(range(25))
    (file,) = world.trail.files()
    assert (file.source, file.first_offset, file.last_offset) == (SOURCE, 0, 24)


@pytest.mark.parametrize(
    ("value_bytes", "asked"), [(0, 20_000), (1_000, 20_000), (10_000, 3_355), (2_000_000, 32)]
)  # fmt: skip
def test_so_many_records_are_read_at_once_as_fit_the_bytes_for_them(tmp_path, value_bytes, asked):
    topic = Topic([FakeRecord(bytes(value_bytes), topic=TOPIC, offset=n) for n in range(3)])
    world = World(tmp_path, topic)
    world.source.assign(SOURCE)
    world.turn()
    assert world.source.asked == 500
    world.turn()
    assert world.source.asked == asked


def test_an_offset_is_committed_only_after_its_row_is_in_a_file(tmp_path):
    world = World(tmp_path, topic_of(25))
    world.source.assign(SOURCE)
    world.turn(2)
    assert world.source.committed == {}
    world.settle()
    assert world.source.committed == {SOURCE: 25}


def test_a_file_is_closed_by_the_rows_that_fill_it(tmp_path):
    world = World(tmp_path, topic_of(15), RollPolicy(rows=4, age_s=10))
    world.source.at_most = 3
    world.source.assign(SOURCE)
    for _ in range(8):
        world.turn()
    world.settle()
    assert [file.last_offset + 1 - file.first_offset for file in world.trail.files()] == [4, 4, 4, 3]
    assert offsets_in(tmp_path) == list(range(15))


def test_days_of_a_partition_never_go_back_and_never_pass_today(tmp_path):
    days = [-2, -1, -3, 400_000, 0]  # late by two days, and from a clock that is a thousand years ahead
    topic = Topic([prediction(n, at_ms=NOW_MS + day * DAY_MS) for n, day in enumerate(days)])
    world = World(tmp_path, topic)
    world.source.assign(SOURCE)
    world.settle()
    files = world.trail.files()
    assert [(file.first_offset, file.last_offset) for file in files] == [(0, 0), (1, 2), (3, 4)]
    assert [str(file.day) for file in files] == ["2025-10-07", "2025-10-08", "2025-10-09"]


def test_a_record_that_is_no_prediction_has_a_row_that_says_why(tmp_path):
    bad = [None, b"", b"\xc3\x01", b"\x00" * 40, prediction(0).value()[:-1], prediction(0).value() + b"!"]
    topic = Topic([FakeRecord(value, topic=TOPIC, offset=n) for n, value in enumerate(bad)] + [prediction(6)])
    world = World(tmp_path, topic)
    world.source.assign(SOURCE)
    world.settle()
    rows = rows_in(tmp_path)
    assert [row["audit_reject"] for row in rows] == [
        "tombstone", "bad_frame", "bad_frame", "bad_frame", "truncated", "trailing_bytes", None
    ]  # fmt: skip
    assert [row["customer_id"] for row in rows] == [None] * 6 + ["c-6"]
    assert [row["audit_offset"] for row in rows] == list(range(7))


def test_while_a_schema_is_not_known_its_records_wait_and_reading_pauses(tmp_path):
    known = schemas(FIRST)
    known.down = True
    world = World(tmp_path, topic_of(5), known=known)
    world.source.assign(SOURCE)
    world.turn(3)
    assert world.source.paused
    known.down = False
    world.settle()
    world.settle()
    assert offsets_in(tmp_path) == list(range(5))


def test_a_store_that_is_away_costs_time_and_nothing_else(tmp_path):
    objects = SickObjects(tmp_path)
    world = World(tmp_path, topic_of(25), objects=objects, memory_bytes=1)
    world.source.assign(SOURCE)
    objects.down = True
    world.settle()
    assert offsets_in(tmp_path) == []
    assert world.source.paused  # there is no room for more
    objects.down = False
    world.settle()
    assert offsets_in(tmp_path) == list(range(25))
    assert not world.source.paused


def test_memory_is_bounded_over_many_partitions(tmp_path):
    sources = [TopicPartition(TOPIC, number) for number in range(20)]
    topic = Topic([prediction(n, partition=source.partition) for source in sources for n in range(200)])
    world = World(tmp_path, topic, RollPolicy(age_s=1e6), memory_bytes=50_000)
    world.source.at_most = 5
    world.source.assign(*sources)
    for _ in range(120):
        world.turn()
        assert sum(lane.bytes for lane in world.writer._lanes.values()) < 50_000 + 20 * 5 * 400
    assert {source: world.source.at[source] for source in sources} == dict.fromkeys(sources, 200)


def test_told_to_stop_it_writes_what_it_has(tmp_path):
    world = World(tmp_path, topic_of(25))
    world.source.assign(SOURCE)
    world.turn(2)
    assert world.writer._drain()
    assert offsets_in(tmp_path) == list(range(25))
    assert world.source.committed == {SOURCE: 25}


def test_a_drain_that_cannot_finish_says_so_and_the_next_writer_reads_it_again(tmp_path):
    objects = SickObjects(tmp_path)
    world = World(tmp_path, topic_of(25), objects=objects)
    world.source.assign(SOURCE)
    world.turn(2)
    objects.down = True
    assert not world.writer._drain()
    after = World(tmp_path, topic_of(25))
    after.source.assign(SOURCE)
    after.settle()
    assert offsets_in(tmp_path) == list(range(25))


def test_records_whose_schema_is_not_known_when_it_is_told_to_stop_are_told_as_left(tmp_path):
    known = schemas(FIRST)
    known.down = True
    world = World(tmp_path, topic_of(5), known=known, drain_timeout_s=20)
    world.source.assign(SOURCE)
    world.turn(3)
    assert not world.writer._drain()
    assert world.writer.waiting() == {PIPELINE: 5}
    assert world.source.committed == {}


def test_records_whose_schema_comes_in_time_are_written_when_it_is_told_to_stop(tmp_path):
    known = schemas(FIRST)
    known.down = True
    world = World(tmp_path, topic_of(5), known=known)
    world.source.assign(SOURCE)
    world.turn(3)
    known.down = False
    world.clock.advance(60)
    assert world.writer._drain()
    assert offsets_in(tmp_path) == list(range(5))
    assert world.told == [(PIPELINE, 5)]


def test_a_store_that_says_a_file_is_there_and_has_it_not_is_asked_again(tmp_path):
    class Lying(TrailObjects):
        lies = 2

        def create(self, path, content):
            if path.endswith(".parquet") and self.lies:
                self.lies -= 1
                return False
            return super().create(path, content)

    inner = objects_in(tmp_path)
    world = World(tmp_path, topic_of(5), objects=Lying(inner._store, inner.url, tmp_path))
    world.source.assign(SOURCE)
    world.settle()
    assert world.source.committed == {}
    world.settle()
    world.settle()
    assert offsets_in(tmp_path) == list(range(5))
    assert world.source.committed == {SOURCE: 5}


def test_it_is_ready_when_it_is_known_where_the_trails_of_its_partitions_end(tmp_path):
    world = World(tmp_path, topic_of(5))
    assert not world.writer.ready
    world.source.assign(SOURCE)
    assert not world.writer.ready
    world.turn(2)
    assert (world.writer.ready, world.writer.waiting()) == (True, {PIPELINE: 5})


def test_what_has_no_file_when_a_partition_goes_is_read_by_whoever_gets_it(tmp_path):
    topic = Topic([prediction(n, partition=p) for p in (0, 1) for n in range(10)])
    one, other = World(tmp_path, topic), World(tmp_path, topic)
    one.source.assign(SOURCE, OTHER)
    one.turn(2)
    one.source.revoke(OTHER)
    other.source.assign(OTHER)
    one.settle()
    other.settle()
    assert offsets_in(tmp_path, 0) == offsets_in(tmp_path, 1) == list(range(10))
    assert len(one.trail.files()) == 2


def test_of_two_writers_that_both_believe_a_partition_theirs_one_writes_each_record(tmp_path):
    topic = topic_of(10)
    frozen, other = World(tmp_path, topic), World(tmp_path, topic, RollPolicy(rows=4, age_s=10))
    frozen.source.assign(SOURCE)
    frozen.turn(2)  # it has all ten, and no file
    other.source.at_most = 4
    other.source.assign(SOURCE)
    other.turn(3)  # four of them have a file
    frozen.settle()
    other.settle()
    assert offsets_in(tmp_path) == list(range(10))


def test_a_claim_without_a_file_is_filled_exactly_by_whoever_comes_next(tmp_path):
    path = f"pipeline={PIPELINE}/date=2025-10-09/{TOPIC}-0-{2:020}-{6:020}.parquet"
    trail = trail_in(tmp_path)
    assert trail.claim(SOURCE, Claim(0, 7, path))
    world = World(tmp_path, Topic([prediction(n) for n in range(2, 12)]), RollPolicy(rows=3, age_s=10))
    world.source.assign(SOURCE)
    world.settle()
    assert [(file.first_offset, file.last_offset) for file in trail.files()] == [(2, 6), (7, 9), (10, 11)]
    assert trail.files()[0].path == path


def test_a_claim_whose_records_are_gone_is_passed_over(tmp_path):
    path = f"pipeline={PIPELINE}/date=2025-10-09/{TOPIC}-0-{2:020}-{6:020}.parquet"
    trail_in(tmp_path).claim(SOURCE, Claim(0, 7, path))
    world = World(tmp_path, Topic([prediction(n) for n in range(9, 12)]))
    world.source.assign(SOURCE)
    world.settle()
    assert offsets_in(tmp_path) == [9, 10, 11]


def test_the_groups_offsets_decide_nothing(tmp_path):
    for _ in range(2):  # the second one begins a group of its own, at the earliest record
        world = World(tmp_path, topic_of(10))
        world.source.assign(SOURCE)
        world.settle()
    assert offsets_in(tmp_path) == list(range(10))


def test_a_topic_that_was_made_anew_stops_the_writer(tmp_path):
    world = World(tmp_path, topic_of(10))
    world.source.assign(SOURCE)
    world.settle()
    world.source.at[SOURCE] = 0
    with pytest.raises(AuditBroken, match=r"churn\.predictions\[0\] gives offset 0, the audit trail has all before 10"):
        world.turn()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b'{"first":"0","next_offset":3,"path":"x"}', b'{"first":0,"next_offset":3,"path":"../../x"}',
     b'{"first":0,"next_offset":3,"path":"pipeline=churn/date=2025-10-09/churn.predictions-1-' + b"0" * 20 + b"-"
     + b"0" * 19 + b'2.parquet"}'],
)  # fmt: skip
def test_a_claim_that_is_none_of_ours_stops_the_writer(tmp_path, content):
    objects_in(tmp_path).create(f"pipeline={PIPELINE}/_claims/{TOPIC}/0/{0:020}.json", content)
    world = World(tmp_path, topic_of(3))
    world.source.assign(SOURCE)
    with pytest.raises(AuditBroken, match="is not a claim of this trail"):
        world.turn()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    deaths=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6),
    rows=st.integers(1, 12),
    at_most=st.integers(1, 15),
    gaps=st.sets(st.integers(0, 39), max_size=20),
)
def test_whoever_is_killed_at_whichever_write_each_record_is_in_one_file(tmp_path_factory, deaths, rows, at_most, gaps):
    """Gaps are what read_committed passes over: markers, and records of transactions that were aborted."""
    folder = tmp_path_factory.mktemp("trail")
    there = [offset for offset in range(40) if offset not in gaps]
    topic, clock = Topic([prediction(offset) for offset in there]), ManualClock()
    for writes, after in deaths:
        world = World(
            folder, topic, RollPolicy(rows=rows, age_s=10), clock, objects=DyingObjects(folder, writes, after=after)
        )
        world.source.at_most = at_most
        world.source.assign(SOURCE)
        try:
            for _ in range(8):
                world.turn()
                clock.advance(6)
        except Killed:
            continue
    last = World(folder, topic, RollPolicy(rows=rows, age_s=10), clock)
    last.source.assign(SOURCE)
    last.settle()
    last.settle()
    assert offsets_in(folder) == there
    claims = sorted((folder / f"pipeline={PIPELINE}" / "_claims").rglob("*.json"))
    assert len(claims) == len(last.trail.files())
