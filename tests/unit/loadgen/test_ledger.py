"""The verifier's laws: any single fault in any traffic is found, and sound traffic passes."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from hypothesis import assume, given
from hypothesis import strategies as st

from loadgen.ledger import HEALTHY, Inputs, Ledger, Outcomes
from loadgen.poison import REASONS

KINDS = ("truncated", "bad_utf8")


@dataclass(frozen=True)
class Row:
    """An input record, and the outcome it gets."""

    lane: int
    offset: int
    key: bytes | None
    tombstone: bool = False
    poison: int = HEALTHY


@st.composite
def traffic(draw, min_size=0):
    """Input rows of up to 3 partitions: offsets have gaps (transaction markers), keys repeat or are null."""
    rows = []
    for lane in range(draw(st.integers(1, 3))):
        offset = draw(st.integers(0, 10))
        for _ in range(draw(st.integers(min_size, 15))):
            rows.append(
                Row(
                    lane,
                    offset,
                    draw(st.sampled_from([b"a", b"b", b"c", None])),
                    tombstone=draw(st.integers(0, 9)) == 0,
                    poison=draw(st.sampled_from([HEALTHY] * 8 + [0, 1])),
                )
            )
            offset += draw(st.integers(1, 3))
    return rows


def inputs_of(rows):
    lanes = sorted({row.lane for row in rows}) or [0]
    offsets = {lane: [row.offset for row in rows if row.lane == lane] or [0] for lane in lanes}
    return Inputs(
        lanes=[("in", lane) for lane in range(max(lanes) + 1)],
        window=[(min(offsets.get(lane, [0])), max(offsets.get(lane, [-1])) + 1) for lane in range(max(lanes) + 1)],
        lane=np.array([row.lane for row in rows], dtype=np.int32),
        offset=np.array([row.offset for row in rows], dtype=np.int64),
        tombstone=np.array([row.tombstone for row in rows], dtype=np.bool_),
        poison=np.array([row.poison for row in rows], dtype=np.int16),
        poison_kinds=KINDS,
        keys=pa.array([row.key for row in rows], pa.binary()),
    )


def outcomes_of(rows, topic="out"):
    """The outcomes of these rows in this order; each goes to the output partition of its lane."""
    lanes = [row.lane for row in rows]
    return Outcomes(
        topic=topic,
        partition=np.array(lanes, dtype=np.int32),
        offset=np.array([lanes[:at].count(lane) for at, lane in enumerate(lanes)], dtype=np.int64),
        lane=np.array(lanes, dtype=np.int32),
        source_offset=np.array([row.offset for row in rows], dtype=np.int64),
        keys=pa.array([row.key for row in rows], pa.binary()),
        ids=None,
    )


def answered(rows):
    predicted = [row for row in rows if not row.tombstone and row.poison == HEALTHY]
    dead = [row for row in rows if not row.tombstone and row.poison != HEALTHY]
    return predicted, dead


def judged(rows, predicted, dead, *, at_least_once=False):
    ledger = Ledger(inputs_of(rows))
    found = ledger.judge(outcomes_of(predicted), outcomes_of(dead, "dead"), at_least_once=at_least_once)
    return {violation.kind: violation for violation in found}


@given(traffic(), st.booleans())
def test_sound_traffic_passes(rows, at_least_once):
    predicted, dead = answered(rows)
    assert judged(rows, predicted, dead, at_least_once=at_least_once) == {}
    ledger = Ledger(inputs_of(rows))
    outcomes = outcomes_of(predicted), outcomes_of(dead)
    assert ledger.unfinished(*outcomes) == 0
    reasons = [REASONS[KINDS[row.poison]] for row in dead]
    assert ledger.judge_poison(*outcomes, reasons, REASONS, frozenset()) == []


@given(traffic(1), st.booleans(), st.data())
def test_any_single_lost_record_is_found_and_named(rows, at_least_once, data):
    predicted, dead = answered(rows)
    assume(predicted or dead)
    victim = data.draw(st.sampled_from(predicted + dead))
    found = judged(
        rows,
        [row for row in predicted if row is not victim],
        [row for row in dead if row is not victim],
        at_least_once=at_least_once,
    )
    assert found.keys() == {"lost"}
    (place,) = found["lost"].examples
    assert (place.topic, place.partition, place.offset) == ("in", victim.lane, victim.offset)


@given(traffic(1), st.data())
def test_any_single_doubled_record_is_found_wherever_its_double_is(rows, data):
    predicted, dead = answered(rows)
    assume(predicted)
    victim = data.draw(st.sampled_from(predicted))
    at = data.draw(st.integers(0, len(predicted)))
    found = judged(rows, [*predicted[:at], victim, *predicted[at:]], dead)
    assert found["doubled"].count == 1
    assert found["doubled"].examples[0].offset == victim.offset
    assert found.keys() <= {"doubled", "out_of_order"}


@given(traffic(1), st.data())
def test_a_record_both_predicted_and_dead_lettered_is_doubled(rows, data):
    predicted, dead = answered(rows)
    assume(predicted)
    victim = data.draw(st.sampled_from(predicted))
    found = judged(rows, predicted, sorted([*dead, victim], key=lambda row: (row.lane, row.offset)))
    assert found.keys() == {"doubled"}


@given(traffic(2), st.booleans(), st.data())
def test_any_two_records_that_change_places_are_found(rows, at_least_once, data):
    predicted, dead = answered(rows)
    lane = data.draw(st.sampled_from(sorted({row.lane for row in rows})))
    places = [at for at, row in enumerate(predicted) if row.lane == lane]
    assume(len(places) > 1)
    first, second = data.draw(st.lists(st.sampled_from(places), min_size=2, max_size=2, unique=True))
    predicted[first], predicted[second] = predicted[second], predicted[first]
    found = judged(rows, predicted, dead, at_least_once=at_least_once)
    assert found.keys() == {"out_of_order"}


@given(traffic(1), st.integers(1, 10**15), st.data())
def test_an_outcome_of_nothing_is_found(rows, beyond, data):
    predicted, dead = answered(rows)
    lane = data.draw(st.sampled_from(sorted({row.lane for row in rows})))
    end = max(row.offset for row in rows if row.lane == lane)
    found = judged(rows, [*predicted, Row(lane, end + beyond, b"a")], dead)
    assert found.keys() == {"phantom"}
    assert judged(rows, [*predicted, Row(lane, -beyond, b"a")], dead).keys() == {"phantom"}


@given(traffic(1), st.data())
def test_any_changed_key_is_found(rows, data):
    predicted, dead = answered(rows)
    assume(predicted)
    at = data.draw(st.integers(0, len(predicted) - 1))
    predicted[at] = replace(predicted[at], key=b"another")
    found = judged(rows, predicted, dead)
    assert found.keys() == {"key_changed"}
    assert found["key_changed"].count == 1


@given(traffic(1), st.data())
def test_at_least_once_forgives_a_retry_of_everything_since_some_record(rows, data):
    predicted, dead = answered(rows)
    since = data.draw(st.integers(0, len(predicted)))
    assert judged(rows, predicted + predicted[since:], dead, at_least_once=True) == {}


def test_outcomes_of_records_before_the_window_are_not_judged():
    rows = [Row(0, 10, b"a"), Row(0, 11, b"b")]
    assert judged(rows, [Row(0, 9, b"x"), *rows], []) == {}
    ledger = Ledger(inputs_of(rows))
    assert ledger.rows(outcomes_of([Row(0, 9, b"x"), *rows])).tolist() == [-2, 0, 1]


def test_poison_that_is_predicted_or_dead_lettered_for_another_reason_is_named():
    rows = [Row(0, 0, b"a", poison=0), Row(0, 1, b"a", poison=1), Row(0, 2, b"a"), Row(0, 3, b"a")]
    ledger = Ledger(inputs_of(rows))
    predicted, dead = outcomes_of([rows[0]]), outcomes_of(rows[1:], "dead")
    reasons = ["truncated", "expired", "bad_shape"]
    found = ledger.judge_poison(predicted, dead, reasons, REASONS, frozenset({"expired"}))
    assert {violation.kind: violation.count for violation in found} == {
        "poison_predicted": 1,
        "wrong_reason": 1,
        "healthy_dead_lettered": 1,
    }
    assert "bad_utf8 dead-lettered as truncated" in str(found[1].examples[0])
