from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DecodeFailed
from app.monitor.judged import Judged, Part
from app.monitor.summary_reading import summary_of
from app.monitor.windows import MOST_VERSIONS, WindowPolicy, Windows
from tests.made_summaries import START_MS, summary

POLICY = WindowPolicy(window_s=60, grace_s=10, keep_s=300, outcome_window_s=600)
NOW_MS = START_MS + 3_600_000


def made(rows, start_s=0, version="1"):
    return summary_of(summary([0.7] * rows, start_ms=START_MS + 1000 * start_s, version=version))


def kept_in(table, changes):
    for key, value in changes.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


def restored(table):
    windows = Windows(POLICY)
    windows.restore((0, key, value) for key, value in table.items())
    return windows


def test_a_window_is_shown_when_it_is_complete_and_the_grace_is_over():
    windows = Windows(POLICY)
    windows.add(0, 0, made(5), NOW_MS)
    windows.add(0, 1, made(7, start_s=50), NOW_MS)
    end_ms = START_MS + 60_000
    assert windows.view(end_ms + 9_999)[0].last is None
    (view,) = windows.view(end_ms + 10_000)
    assert (view.key, view.last.records, view.records_total) == ("churn/1", 12, 12)


def test_the_newest_complete_window_is_shown_until_it_is_too_old():
    windows = Windows(POLICY)
    windows.add(0, 0, made(5), NOW_MS)
    windows.add(0, 1, made(7, start_s=60), NOW_MS)
    assert windows.view(START_MS + 135_000)[0].last.records == 7
    (view,) = windows.view(START_MS + 1_000_000)
    assert (view.last, view.records_total) == (None, 12)


def test_a_summary_that_is_read_again_does_not_count_again():
    windows = Windows(POLICY)
    windows.add(0, 4, made(5), NOW_MS)
    assert windows.add(0, 4, made(5), NOW_MS) == {}
    assert windows.totals() == {"churn/1": 5}


@given(
    reads=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30), st.sampled_from("12")), min_size=1, max_size=25),
    crashes=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24), st.integers(0, 9)), max_size=6),
)
def test_wherever_the_monitor_is_killed_every_summary_counts_once(reads, crashes):
    records = [made(rows, 10 * slot, version) for rows, slot, version in reads]
    table, windows, offset = {}, Windows(POLICY), 0
    pending = sorted(crashes)
    while offset < len(records):
        changes = windows.add(0, offset, records[offset], NOW_MS)
        if pending and pending[0][0] <= offset:
            _, back, durable = pending.pop(0)
            # killed: only some of the changes were kept, and it is read again from further back
            kept_in(table, dict(list(changes.items())[:durable]))
            windows, offset = restored(table), min(back, offset)
            continue
        kept_in(table, changes)
        offset += 1
    once = Windows(POLICY)
    for at, record in enumerate(records):
        once.add(0, at, record, NOW_MS)
    expected = {version: sum(r.records for r in records if r.version == version) for version in "12"}
    assert windows.totals() == {f"churn/{version}": count for version, count in expected.items() if count}
    assert windows.view(NOW_MS) == once.view(NOW_MS)
    assert restored(table).totals() == windows.totals()


def test_what_comes_too_late_for_its_window_counts_in_the_total_only():
    windows = Windows(POLICY)
    windows.add(0, 0, made(5, start_s=600), NOW_MS)
    changes = windows.add(0, 1, made(3), NOW_MS)
    assert [orjson.loads(key)[1] for key in changes] == ["total"]
    assert (windows.totals(), windows.late) == ({"churn/1": 8}, 1)


def test_windows_that_are_too_old_are_forgotten_and_so_is_what_was_kept_of_them():
    windows, table = Windows(POLICY), {}
    kept_in(table, windows.add(0, 0, made(5), NOW_MS))
    kept_in(table, windows.add(0, 1, made(5, start_s=600), NOW_MS))
    assert sorted(orjson.loads(key)[1:4:2] for key in table if b"window" in key) == [["window", START_MS + 600_000]]


def test_a_summary_of_the_future_is_refused_before_it_makes_all_others_late():
    windows = Windows(POLICY)
    with pytest.raises(DecodeFailed, match="future"):
        windows.add(0, 0, made(5), START_MS - 70_001)
    assert windows.totals() == {}


def test_a_worker_whose_clock_is_ahead_does_not_blank_the_others_windows():
    windows, refused = Windows(POLICY), 0
    for minute in range(10):
        now_ms = START_MS + 60_000 * minute + 1_000
        windows.add(0, 2 * minute, made(5, start_s=60 * minute), now_ms)
        try:
            windows.add(0, 2 * minute + 1, made(1, start_s=60 * minute + 1_200), now_ms)
        except DecodeFailed:
            refused += 1
    assert (refused, windows.late) == (10, 0)
    assert windows.view(START_MS + 10 * 60_000 + 10_000)[0].last.records == 5


def test_there_is_no_end_of_series_if_records_name_versions_without_end():
    windows = Windows(POLICY)
    for number in range(MOST_VERSIONS):
        windows.count(0, number, f"churn/{number}", 1)
    with pytest.raises(DecodeFailed, match="versions already"):
        windows.add(0, MOST_VERSIONS, made(5, version="new"), NOW_MS)
    windows.add(0, MOST_VERSIONS, made(5, version="3"), NOW_MS)


def test_partitions_do_not_mix():
    windows, table = Windows(POLICY), {}
    for partition in (0, 1):
        kept_in(table, windows.add(partition, 0, made(5), NOW_MS))
    assert len(table) == 4
    assert windows.totals() == {"churn/1": 10}


def part(rows, partition=0, start_s=0):
    return Part("churn", "churn", "1", partition, START_MS + 1000 * start_s, Judged(rows, rows))


def test_a_part_takes_the_place_of_the_one_before_it():
    windows, table = Windows(POLICY), {}
    for rows in (3, 5, 5):
        kept_in(table, windows.put_part(0, part(rows), NOW_MS))
    kept_in(table, windows.put_part(0, part(2, partition=1), NOW_MS))
    assert sum(one.judged.rows for one in windows.view(START_MS)[0].parts) == 7
    assert sum(one.judged.rows for one in restored(table).view(START_MS)[0].parts) == 7


def test_parts_beyond_the_outcome_window_are_not_shown_and_then_forgotten():
    windows, table = Windows(POLICY), {}
    kept_in(table, windows.put_part(0, part(3), NOW_MS))
    assert windows.view(START_MS + 600_001)[0].parts == ()
    kept_in(table, windows.put_part(0, part(4, start_s=660), NOW_MS))
    assert [orjson.loads(key)[-1] for key in table] == [START_MS + 660_000]


def test_a_summary_with_other_bins_than_its_window_is_refused_and_changes_nothing():
    windows = Windows(POLICY)
    windows.add(0, 0, made(5), NOW_MS)
    other = replace(made(5), latency=replace(made(5).latency, edges=(9.0,), counts=(1, 1)))
    with pytest.raises(DecodeFailed, match="edges"):
        windows.add(0, 1, other, NOW_MS)
    assert windows.totals() == {"churn/1": 5}
