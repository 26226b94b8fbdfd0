from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.monitor.outcomes import MOST_PER_KEY, Answer, Outcome, OutcomeJoin, OutcomePolicy
from app.monitor.totals import JudgedTotals

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
    assert joined(outcome(0), join=join).counted == {"late": 1}


def test_what_waits_too_long_is_forgotten_and_a_prediction_without_outcome_is_told():
    join = OutcomeJoin(POLICY)
    joined(answer(0), join=join)
    found = joined(answer(1, key=b"other", arrived=3_700_000), join=join)
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


KEYS = [b"a", b"b", b"c"]


@st.composite
def streams(draw):
    """Records of the three topics, of few keys and times so that they meet."""
    times = st.integers(0, 2)
    samples = [
        answer(at, key=draw(st.sampled_from(KEYS)), time=draw(times), predicted=draw(st.integers(0, 1)))
        for at in range(draw(st.integers(0, 8)))
    ]
    shadows = [
        comparison(at, key=shadowed.key, source=shadowed.source, predicted=draw(st.integers(0, 1)))
        for at, shadowed in enumerate(samples)
    ]
    outcomes = [
        outcome(at, key=draw(st.sampled_from(KEYS)), time=draw(times), truth=draw(st.integers(0, 1)))
        for at in range(draw(st.integers(0, 8)))
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
