from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.monitor import waiting as waiting_module
from app.monitor.outcomes import IDLE_MS, Answer, Outcome, OutcomeJoin, OutcomePolicy
from app.monitor.totals import JudgedTotals
from app.monitor.waiting import MOST_PER_KEY, Pair, waiting_of

NOW_MS = 1_800_000_000_000
POLICY = OutcomePolicy(window_s=3600)


def answer(offset, *, key=b"k", time=0, source=None, version="1", predicted=1, arrived=0):
    return Answer(
        key, "s", offset, NOW_MS + arrived, NOW_MS + time, source or f"events:0:{offset}", version, predicted,
        (0.25, 0.75) if predicted else (0.75, 0.25),
    )  # fmt: skip


def comparison(offset, *, source, key=b"k", version="2", predicted=0):
    return Answer(key, "c", offset, NOW_MS, None, source, version, predicted, (0.6, 0.4))


def outcome(offset, *, key=b"k", time=0, truth=1, arrived=0):
    return Outcome(key, "o", offset, NOW_MS + arrived, NOW_MS + time, truth)


def joined(*items, join=None):
    return (join or OutcomeJoin(POLICY)).take(items, NOW_MS + 10**9)


def pairs_of(found):
    return [(pair.version, pair.truth, pair.predicted) for pair in found.pairs]


def test_a_prediction_and_its_outcome_are_a_pair_whichever_comes_first():
    assert pairs_of(joined(answer(0), outcome(0))) == [("1", 1, 1)]
    assert pairs_of(joined(outcome(0), answer(0))) == [("1", 1, 1)]


def test_another_key_or_another_event_time_is_another_event():
    assert pairs_of(joined(answer(0), outcome(0, key=b"other"), outcome(1, time=1))) == []


def test_an_outcome_is_for_every_version_that_answered():
    found = joined(answer(0), comparison(0, source="events:0:0"), outcome(0))
    assert pairs_of(found) == [("1", 1, 1), ("2", 1, 0)]


def test_a_comparison_that_comes_before_its_prediction_waits_for_it():
    found = joined(outcome(0), comparison(0, source="events:0:0"), answer(0))
    assert sorted(pairs_of(found)) == [("1", 1, 1), ("2", 1, 0)]


def test_of_two_outcomes_the_first_counts():
    found = joined(answer(0), outcome(0, truth=0), outcome(1, truth=0), outcome(2, truth=1))
    assert pairs_of(found) == [("1", 0, 1)]
    assert (found.counted["duplicate"], found.counted["contradicting"]) == (1, 1)


def test_a_prediction_that_was_written_twice_counts_once():
    found = joined(answer(0, source="e:0:7"), answer(1, source="e:0:7"), outcome(0))
    assert (pairs_of(found), found.counted["duplicate"]) == ([("1", 1, 1)], 1)


def test_two_events_of_one_key_at_one_time_are_both_judged():
    assert len(pairs_of(joined(answer(0), answer(1), outcome(0)))) == 2


def test_an_outcome_that_nobody_waits_for_any_more_is_late():
    join = OutcomeJoin(POLICY)
    joined(answer(0, key=b"other", arrived=4_000_000), join=join)
    found = joined(outcome(0, arrived=4_000_000), join=join)
    assert {result: count for result, count in found.counted.items() if count} == {"late": 1}


def test_what_waits_too_long_is_forgotten_and_a_prediction_without_outcome_is_told():
    join = OutcomeJoin(POLICY)
    joined(answer(0), join=join)
    found = joined(answer(1, key=b"other", arrived=3_700_000), outcome(0, key=b"other", arrived=3_700_000), join=join)
    assert (found.changes[b"k"], found.counted["unmatched"], join.waiting) == (None, 1, 1)


def test_no_more_keys_wait_than_allowed_and_the_oldest_go():
    join = OutcomeJoin(OutcomePolicy(window_s=3600, most_keys=2))
    found = joined(*(answer(n, key=b"%d" % n, arrived=n) for n in range(5)), join=join)
    assert (join.waiting, found.counted["unmatched"]) == (2, 3)
    assert [key for key, value in found.changes.items() if value is None] == [b"0", b"1", b"2"]


def test_a_key_that_comes_again_and_again_keeps_a_bounded_number_of_answers():
    join = OutcomeJoin(POLICY)
    found = joined(*(answer(n, time=n) for n in range(3 * MOST_PER_KEY)), join=join)
    assert found.counted["unmatched"] == 2 * MOST_PER_KEY
    assert len(found.changes[b"k"]) < 100 * MOST_PER_KEY


@pytest.mark.parametrize("ahead", [1, 64, 1200])
def test_after_a_standstill_no_outcome_that_was_in_time_is_late_however_far_one_topic_is_read_ahead(ahead):
    """Two hours of backlog; each outcome came a minute after its prediction."""
    rows, step = 1200, 6_000
    answers = [answer(n, key=b"%d" % n, time=n * step, arrived=n * step) for n in range(rows)]
    outcomes = [outcome(n, key=b"%d" % n, time=n * step, arrived=n * step + 60_000) for n in range(rows)]
    join, totals, judged = OutcomeJoin(POLICY), JudgedTotals("churn", "churn", 0, 60, 7200), 0
    for start in range(0, rows, ahead):
        for records in (answers, outcomes):
            found = join.take(records[start : start + ahead], NOW_MS + 10**8)
            assert not found.counted["late"]
            judged += sum(fresh.right + fresh.wrong for fresh in totals.add(found.pairs).fresh)
    assert judged == rows


def test_a_topic_that_brings_nothing_does_not_keep_the_other_ones_records_for_ever():
    join = OutcomeJoin(POLICY)
    join.take([answer(0)], NOW_MS)
    later = NOW_MS + 3_600_000 + IDLE_MS + 1
    found = join.take([answer(1, key=b"other", arrived=later - NOW_MS)], later)
    assert found.changes[b"k"] is None


def test_pairs_of_a_hot_key_are_told_again_however_many_one_batch_completed():
    records = []
    for n in range(MOST_PER_KEY + 50):
        records += [answer(n, time=n), outcome(n, time=n)]
    join = OutcomeJoin(POLICY)
    first = join.take(records, NOW_MS + 10**6)
    assert len(first.pairs) == MOST_PER_KEY + 50
    again = OutcomeJoin(POLICY)
    again.restore(first.changes.items())  # killed before the sums were kept
    told = again.take(records, NOW_MS + 10**6)
    assert [pair.offset for pair in told.pairs] == [pair.offset for pair in first.pairs]
    assert all(pair.again for pair in told.pairs)
    after = join.take([answer(1_000, time=10**6)], NOW_MS + 10**6)
    assert len(waiting_of(after.changes[b"k"]).answers) == MOST_PER_KEY


def test_what_was_completed_in_a_batch_is_neither_expired_nor_evicted_in_it():
    join = OutcomeJoin(OutcomePolicy(window_s=3600, most_keys=1))
    records = [answer(0), outcome(0), answer(1, key=b"x", arrived=10**7), outcome(1, key=b"x", arrived=10**7)]
    found = join.take(records, NOW_MS + 10**8)
    assert found.changes[b"k"] is not None
    again = OutcomeJoin(POLICY)
    again.restore(found.changes.items())
    assert len(again.take(records, NOW_MS + 10**8).pairs) == 2


def test_a_pair_is_shown_for_as_long_as_others_however_late_its_outcome_was():
    totals = JudgedTotals("churn", "churn", 0, 60, 7200)
    join = OutcomeJoin(POLICY)
    slow = join.take([answer(0), outcome(0, arrived=3_300_000)], NOW_MS + 10**8)
    (part,) = totals.add(slow.pairs).parts
    assert part.window_start_ms == NOW_MS + 3_300_000


def test_a_clock_that_is_ahead_moves_no_pair_beyond_now():
    join, totals = OutcomeJoin(POLICY), JudgedTotals("churn", "churn", 0, 60, 7200)
    found = join.take([answer(0, time=3_000_000), outcome(0, time=3_000_000, arrived=10**12)], NOW_MS + 60_000)
    (part,) = totals.add(found.pairs).parts
    assert part.window_start_ms == NOW_MS + 60_000


def test_pairs_without_probabilities_do_not_dilute_the_log_loss_of_those_with():
    numbered = Pair("o", 0, "1", NOW_MS, 1, 1, (0.1, 0.9))
    bare = [Pair("o", offset, "1", NOW_MS, 1, 1, ()) for offset in range(1, 10)]
    (part,) = JudgedTotals("churn", "churn", 0, 60, 7200).add([numbered, *bare]).parts
    assert (part.judged.rows, part.judged.numbered) == (10, 1)
    assert part.judged.log_loss == pytest.approx(0.10536, abs=1e-5)
    assert part.judged.calibration_error == pytest.approx(0.1)


KEYS = [b"a", b"b", b"c"]


@st.composite
def streams(draw):
    """Records of the three topics, of few keys and times so that they meet."""
    times = st.integers(0, 2)
    samples = [
        answer(at, key=draw(st.sampled_from(KEYS)), time=draw(times), predicted=draw(st.integers(0, 1)))
        for at in range(draw(st.integers(0, 20)))
    ]
    shadows = [
        comparison(at, key=shadowed.key, source=shadowed.source, predicted=draw(st.integers(0, 1)))
        for at, shadowed in enumerate(samples)
    ]
    outcomes = [
        outcome(at, key=draw(st.sampled_from(KEYS)), time=draw(times), truth=draw(st.integers(0, 1)))
        for at in range(draw(st.integers(0, 20)))
    ]
    return samples, shadows, outcomes


def expected(samples, shadows, outcomes):
    """Offline: the first outcome of each key and time, for every answer of it."""
    truths = {}
    for one in outcomes:
        truths.setdefault((one.key, one.event_time_ms), one.truth)
    times = {one.source: one.event_time_ms for one in samples}
    rows, right = Counter(), Counter()
    for one in (*samples, *shadows):
        truth = truths.get((one.key, one.event_time_ms or times[one.source]))
        if truth is not None:
            rows[one.version] += 1
            right[one.version] += truth == one.predicted
    return {version: (rows[version], right[version]) for version in rows}


class Disk:
    """What is durable of a monitor, and where it would begin to read."""

    def __init__(self):
        self.waiting, self.judged, self.committed = {}, {}, [0, 0, 0]

    def start(self):
        join, totals = OutcomeJoin(POLICY), JudgedTotals("churn", "churn", 0, 60, 7200)
        join.restore(self.waiting.items())
        totals.restore(self.judged.items())
        return join, totals


def keep(table, changes, most):
    for key, value in list(changes.items())[:most]:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    return most >= len(changes)


@given(streams(), st.data())
def test_wherever_the_monitor_is_killed_each_pair_is_judged_once(topics, data):
    disk = Disk()
    join, totals = disk.start()
    at, crashes = list(disk.committed), data.draw(st.integers(0, 4))
    while any(position < len(topic) for position, topic in zip(at, topics, strict=True)):
        batch = []
        for number in data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5)):
            if at[number] < len(topics[number]):
                batch.append(topics[number][at[number]])
                at[number] += 1
        found = join.take(batch, NOW_MS + 10**9)
        added = totals.add(found.pairs)
        dies = crashes > 0 and data.draw(st.booleans())
        most = data.draw(st.integers(0, 12)) if dies else 10**6
        if keep(disk.waiting, found.changes, most):
            keep(disk.judged, added.changes, most - len(found.changes))
        if dies:
            crashes -= 1
            join, totals = disk.start()
            at = list(disk.committed)
        elif data.draw(st.booleans()):
            disk.committed = list(at)
    sums = {}
    for part in totals.parts():
        rows, right = sums.get(part.version, (0, 0))
        sums[part.version] = rows + part.judged.rows, right + part.judged.right
    assert sums == expected(*topics)


@given(
    reads=st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 6), st.booleans()), max_size=40),
    batches=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20),
    kills=st.dictionaries(st.integers(0, 19), st.integers(0, 12), max_size=4),
    most=st.tuples(st.integers(1, 3), st.integers(1, 5)),
)
def test_wherever_it_is_killed_no_pair_is_judged_twice_though_keys_expire_and_are_evicted(reads, batches, kills, most):
    """A record a minute; the window is ten minutes, few keys and answers wait. kills: after how many writes."""
    minute, topics = 60_000, ([], [])
    for at, (key, back, is_answer) in enumerate(reads):
        topic, make = topics[not is_answer], answer if is_answer else outcome
        topic.append(make(len(topic), key=key, time=(at - back) * minute, arrived=at * minute))
    disk, policy = Disk(), OutcomePolicy(window_s=600, most_keys=most[0])

    def started():
        join, totals = OutcomeJoin(policy), JudgedTotals("churn", "churn", 0, 60, 72_000)
        join.restore(disk.waiting.items())
        totals.restore(disk.judged.items())
        return join, totals

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting_module, "MOST_PER_KEY", most[1])
        (join, totals), ends = started(), [0, 0]
        for number, sizes in enumerate([*batches, (40, 40)]):
            batch = []
            for side, size in enumerate(sizes):
                batch += topics[side][ends[side] : ends[side] + size]
                ends[side] += size
            found = join.take(batch, NOW_MS + 41 * minute)
            added = totals.add(found.pairs)
            writes = kills.get(number, 10**6)
            if keep(disk.waiting, found.changes, writes):
                keep(disk.judged, added.changes, writes - len(found.changes))
            if number in kills:
                (join, totals), ends = started(), [0, 0]
        truths, may_be = {(one.key, one.event_time_ms) for one in topics[1]}, Counter()
        may_be.update((one.key, one.event_time_ms) in truths for one in topics[0])
        assert sum(part.judged.rows for part in totals.parts()) <= may_be[True]


@pytest.mark.parametrize("rows", [1, 3])
def test_what_is_fresh_is_told_once_and_not_again_after_a_restart(rows):
    disk = Disk()
    join, totals = disk.start()
    items = [*(answer(n, time=n) for n in range(rows)), *(outcome(n, time=n) for n in range(rows))]
    found = join.take(items, NOW_MS)
    added = totals.add(found.pairs)
    assert [(fresh.version, fresh.right, fresh.wrong) for fresh in added.fresh] == [("1", rows, 0)]
    keep(disk.waiting, found.changes, 10**6)
    keep(disk.judged, added.changes, 10**6)
    join, totals = disk.start()
    again = join.take(items, NOW_MS)
    assert len(again.pairs) == rows
    assert totals.add(again.pairs).fresh == []
