"""A look's figures are those of a count by hand, with gaps, retention, groups that jump, and few reads."""

import pytest
from fakes import NOW_MS, ManualClock
from hypothesis import given
from hypothesis import strategies as st
from lag_world import T0, T1, Log, MadeBroker

from app.group_marks import PartitionMarks
from app.lag.readings import Begin, GroupLag, PartitionLag, WatchedGroup
from app.lag.watch import RECOUNT_S, LagWatch
from app.records import TopicPartition

GROUP = WatchedGroup("workers", (("events",),))


def watching(broker, *, count_records=1_000, group=GROUP):
    clock = ManualClock()
    return LagWatch(broker, [group], count_records, clock), clock


def look(watch):
    (lag,) = watch.look()
    return {partition.source: partition for partition in lag.partitions}


def aged(*seconds):
    """Offset → timestamp of records so many seconds old, one after the other."""
    return {offset: NOW_MS - round(age * 1000) for offset, age in enumerate(seconds)}


def test_lag_is_the_records_behind_the_group_and_the_age_of_the_first():
    broker = MadeBroker({T0: Log(aged(50, 40, 30, 20), end=4), T1: Log({}, end=0)}, committed={T0: 2})
    found = look(watching(broker)[0])
    assert (found[T0].records, found[T0].seconds, found[T0].uncounted) == (2, 30.0, 0)
    assert (found[T1].records, found[T1].seconds) == (0, 0.0)


def test_a_group_at_the_end_costs_no_reading():
    broker = MadeBroker({T0: Log(aged(5, 4), end=2)}, committed={T0: 2})
    assert look(watching(broker)[0])[T0].records == 0
    assert broker.reads == []


def test_markers_at_the_end_are_no_lag_and_are_read_once():
    broker = MadeBroker({T0: Log(aged(9, 8), end=5)}, committed={T0: 2})
    watch, _ = watching(broker)
    for _ in range(3):
        assert (look(watch)[T0].records, look(watch)[T0].seconds) == (0, 0.0)
    assert len(broker.reads) == 1


def test_a_backlog_is_read_once_and_then_what_is_new():
    broker = MadeBroker({T0: Log(aged(9, 8, 7, 6), end=4)}, committed={T0: 0})
    watch, _ = watching(broker)
    look(watch)
    log = broker.logs[T0]
    log.records[5], log.end, log.last_stable = NOW_MS, 6, 6
    assert look(watch)[T0].records == 5
    assert [[(s.first, s.end) for s in read.values()] for read in broker.reads] == [[(0, 4)], [(4, 6)]]


def test_the_first_record_is_looked_at_again_when_the_group_moved():
    broker = MadeBroker({T0: Log(aged(9, 8, 7, 6), end=4)}, committed={T0: 0})
    watch, clock = watching(broker)
    assert look(watch)[T0].seconds == 9.0
    broker.committed[T0] = 3
    clock.advance(2)
    assert (look(watch)[T0].records, look(watch)[T0].seconds) == (1, 8.0)


def test_the_age_grows_while_nobody_works():
    broker = MadeBroker({T0: Log(aged(9), end=1)}, committed={T0: 0})
    watch, clock = watching(broker)
    look(watch)
    clock.advance(50)
    assert look(watch)[T0].seconds == 59.0
    assert len(broker.reads) == 1


@pytest.mark.parametrize(("start_from", "records", "offset"), [("earliest", 3, 1), ("latest", 0, 4), ("fail", 3, 1)])
def test_a_group_without_an_offset_begins_where_its_workers_would(start_from, records, offset):
    broker = MadeBroker({T0: Log(aged(9, 8, 7, 6), start=1, end=4)})
    found = look(watching(broker, group=WatchedGroup("workers", (("events",),), start_from))[0])[T0]
    assert (found.records, found.note) == (records, "no_committed_offset")
    assert Begin(found.marks, start_from).offset == offset


def test_retention_takes_lag_away_and_what_was_missed_is_told():
    broker = MadeBroker({T0: Log(aged(9, 8, 7, 6, 5), start=3, end=5)}, committed={T0: 1})
    found = look(watching(broker)[0])[T0]
    assert (found.records, found.missed, found.seconds, found.note) == (2, 2, 6.0, "retention_overtook")


def test_markers_that_retention_takes_behind_a_group_that_was_done_are_nothing_missed():
    """Nobody is woken because an idle topic was emptied."""
    broker = MadeBroker({T0: Log(aged(9, 8), end=5)}, committed={T0: 2})
    watch, clock = watching(broker)
    look(watch)
    broker.logs[T0] = Log({}, start=5, end=5)
    for _ in range(3):
        found = look(watch)[T0]
        assert (found.records, found.missed, found.note) == (0, 0, "")
        clock.advance(RECOUNT_S)


def test_records_that_retention_takes_are_missed_and_the_markers_between_them_are_not():
    broker = MadeBroker({T0: Log({0: NOW_MS, 3: NOW_MS, 5: NOW_MS}, end=7)}, committed={T0: 1})
    watch, clock = watching(broker)
    look(watch)
    for start, missed in ((4, 1), (5, 1), (6, 2)):
        broker.logs[T0].start = start
        assert look(watch)[T0].missed == missed
    clock.advance(RECOUNT_S)
    assert look(watch)[T0].missed == 2
    broker.logs[T0].start = broker.logs[T0].end = broker.logs[T0].last_stable = 9
    assert look(watch)[T0].missed == 4  # of 7 and 8 nobody knows


def test_an_offset_beyond_the_end_is_that_of_another_topic_of_this_name():
    broker = MadeBroker({T0: Log(aged(9, 8), end=2)}, committed={T0: 77})
    found = look(watching(broker)[0])[T0]
    assert (found.records, found.missed, found.note) == (2, 0, "beyond_the_end")


def test_what_an_open_transaction_holds_is_told_apart_and_for_how_long():
    broker = MadeBroker({T0: Log(aged(9, 8, 7, 6), end=4, last_stable=2)}, committed={T0: 1})
    watch, clock = watching(broker)
    look(watch)
    clock.advance(30)
    found = look(watch)[T0]
    assert (found.records, found.unstable, found.unstable_s) == (1, 2, 30.0)
    broker.logs[T0].last_stable = 3
    assert look(watch)[T0].unstable_s == 0.0
    broker.logs[T0].last_stable = 4
    clock.advance(30)
    assert (look(watch)[T0].unstable, look(watch)[T0].unstable_s) == (0, 0.0)


def test_a_group_that_read_uncommitted_records_is_not_behind_them():
    broker = MadeBroker({T0: Log(aged(9, 8, 7), end=3, last_stable=1)}, committed={T0: 3})
    found = look(watching(broker)[0])[T0]
    assert (found.records, found.note) == (0, "")


def test_a_large_backlog_is_bounded_first_and_exact_later():
    records = dict.fromkeys(range(0, 200, 2), NOW_MS)
    broker = MadeBroker({T0: Log(records, end=200)}, committed={T0: 0})
    watch, _ = watching(broker, count_records=40)
    shown = [(found.records, found.uncounted) for found in (look(watch)[T0] for _ in range(4))]
    assert shown == [(161, 121), (121, 41), (100, 0), (100, 0)]


def test_without_a_limit_everything_is_counted_in_one_look():
    broker = MadeBroker({T0: Log(dict.fromkeys(range(5000), NOW_MS), end=6_000)}, committed={T0: 0})
    found = look(watching(broker, count_records=None)[0])[T0]
    assert (found.records, found.uncounted) == (5_000, 0)


def test_an_age_that_could_not_be_read_is_unknown_not_0():
    broker = MadeBroker({T0: Log(aged(9, 8), end=2)}, committed={T0: 0})
    broker.records = lambda stretches: {}
    found = look(watching(broker)[0])[T0]
    assert (found.records, found.uncounted, found.seconds) == (2, 2, None)


@pytest.mark.parametrize(("stamp", "seconds"), [(None, None), (NOW_MS + 60_000, 0.0)])
def test_a_timestamp_that_is_missing_or_in_the_future(stamp, seconds):
    broker = MadeBroker({T0: Log({0: stamp}, end=1)}, committed={T0: 0})
    assert look(watching(broker)[0])[T0].seconds == seconds


def test_what_compaction_removes_later_is_noticed():
    broker = MadeBroker({T0: Log(aged(9, 8, 7, 6), end=4)}, committed={T0: 0})
    watch, clock = watching(broker)
    look(watch)
    for gone in (0, 2):
        del broker.logs[T0].records[gone]
    clock.advance(RECOUNT_S)
    found = look(watch)[T0]
    assert (found.records, found.seconds) == (2, 8.0 + RECOUNT_S)


def test_a_topic_made_anew_is_counted_anew():
    broker = MadeBroker({T0: Log(aged(9, 8, 7, 6), end=4)}, committed={T0: 0})
    watch, _ = watching(broker)
    look(watch)
    broker.logs[T0] = Log({1: NOW_MS - 3_000}, end=3)
    found = look(watch)[T0]
    assert (found.records, found.seconds) == (1, 3.0)


def test_a_backlog_larger_than_one_look_is_not_counted_anew():
    broker = MadeBroker({T0: Log(dict.fromkeys(range(100), NOW_MS), end=100)}, committed={T0: 0})
    watch, clock = watching(broker, count_records=40)
    for _ in range(3):
        look(watch)
    reads = len(broker.reads)
    clock.advance(RECOUNT_S)
    assert look(watch)[T0].uncounted == 0
    assert len(broker.reads) == reads


@st.composite
def scenes(draw):
    """Looks at a log that only grows, with a group that goes where it likes, and retention."""
    records, end, start, turns = {}, 0, 0, []
    for _ in range(draw(st.integers(1, 6))):
        added = draw(st.lists(st.booleans(), max_size=12))
        records |= {end + place: NOW_MS - end - place for place, holds in enumerate(added) if holds}
        end += len(added)
        start = draw(st.integers(start, end)) if draw(st.booleans()) else start
        stable = draw(st.integers(start, end))
        committed = draw(st.none() | st.integers(0, stable))
        turns.append((dict(records), start, stable, end, committed))
    return turns


@given(turns=scenes(), count_records=st.integers(0, 30), reads_at_once=st.none() | st.integers(1, 4))
def test_every_look_is_right_within_what_it_says(turns, count_records, reads_at_once):
    broker = MadeBroker({T0: Log({}, end=0)}, reads_at_once=reads_at_once)
    watch, clock = watching(broker, count_records=count_records)
    stable_before = 0
    for records, start, stable, end, committed in turns:
        stable_before = max(stable, stable_before, start)  # it never goes back
        broker.logs[T0] = Log(records, start=start, end=max(end, stable_before), last_stable=stable_before)
        broker.committed = {} if committed is None else {T0: committed}
        found = look(watch)[T0]
        begin = start if committed is None else max(committed, start)
        waiting = broker.logs[T0].waiting(begin)
        assert len(waiting) <= found.records <= len(waiting) + found.uncounted
        gone = range(committed, start) if committed is not None else ()
        assert sum(offset in records for offset in gone) <= found.missed <= len(gone)
        if not found.records:
            assert found.seconds == 0.0
        elif found.seconds is not None:
            assert found.seconds == max(0, clock.now_ms() - records[waiting[0]]) / 1000


def partition(source, *, committed, log_start=0, end=100, records=0):
    marks = PartitionMarks(committed, log_start, end, end)
    return PartitionLag(source, marks, records, 0, 0.0, 0, "", 0.0)


def of_group(partitions, *, reads=(("events",),), start_from="earliest", members=0, unknown=None):
    return GroupLag(WatchedGroup("g", reads, start_from), 0.0, tuple(partitions), members, unknown or {})


def test_two_pipelines_of_a_group_are_two_members_of_one_process():
    sources = [TopicPartition("a", n) for n in range(3)] + [TopicPartition("b", n) for n in range(8)]
    lag = of_group([partition(s, committed=0) for s in sources], reads=(("a",), ("b",)), members=5)
    assert (lag.processes, lag.most_processes) == (3, 8)


def test_one_pipeline_of_two_topics_has_work_for_as_many_as_both_have_partitions():
    sources = [TopicPartition("a", n) for n in range(3)] + [TopicPartition("b", n) for n in range(8)]
    assert of_group([partition(s, committed=0) for s in sources], reads=(("a", "b"),)).most_processes == 11


@pytest.mark.parametrize(("start_from", "finished"), [("earliest", 40 + 10), ("latest", 40 + 100)])
def test_a_partition_never_committed_counts_from_where_it_would_begin(start_from, finished):
    lag = of_group([partition(T0, committed=40), partition(T1, committed=None, log_start=10)], start_from=start_from)
    assert (lag.arrived, lag.finished) == (200, finished)


def test_sums_are_of_complete_looks():
    assert of_group([partition(T0, committed=0)]).complete
    assert not of_group([partition(T0, committed=0)], unknown={"events[1]": "no leader"}).complete
    assert not of_group([partition(T0, committed=0)], members=None).complete
