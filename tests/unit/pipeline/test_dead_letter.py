"""A dead letter is the record as it was, and why; too many of them at once stop the worker."""

import pytest
from fakes import NOW_MS, FakeRecord, ManualClock
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DeadLetterFlood, Reason, Stage
from app.pipeline.dead_letter import MAX_MESSAGE_CHARS, SLOTS, DeadLetterLimit, FloodGate, dead_letter_of
from app.records import Rejection

REJECTION = Rejection(0, Stage.FEATURES, Reason.OUT_OF_RANGE, "BadFeatures", "age is 7, allowed 18 to 120")


def letters(count):
    return [dead_letter_of(FakeRecord(), REJECTION, "m", "1")] * count


def test_a_dead_letter_carries_the_record_and_every_header_of_the_contract():
    record = FakeRecord(
        b"value",
        key=b"key",
        topic="churn.events",
        partition=3,
        offset=42,
        headers=[("traceparent", b"00-1"), ("x", None)],
    )
    letter = dead_letter_of(record, REJECTION, "churn", "4")
    assert (letter.key, letter.value, letter.timestamp_ms, letter.partition) == (b"key", b"value", NOW_MS, 3)
    assert (letter.stage, letter.reason) == (Stage.FEATURES, Reason.OUT_OF_RANGE)
    assert letter.event_headers == 2
    assert list(letter.headers) == [
        ("traceparent", b"00-1"),
        ("x", None),
        ("__connect.errors.topic", b"churn.events"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"42"),
        ("__connect.errors.stage", b"features"),
        ("__connect.errors.exception.class.name", b"BadFeatures"),
        ("__connect.errors.exception.message", b"age is 7, allowed 18 to 120"),
        ("inference.reason", b"out_of_range"),
        ("inference.model", b"churn"),
        ("inference.model_version", b"4"),
    ]


def test_a_record_without_headers_key_or_timestamp_keeps_none():
    letter = dead_letter_of(FakeRecord(b"", timestamp=(0, -1)), REJECTION, "m", "1")
    assert (letter.key, letter.timestamp_ms, letter.value) == (None, None, b"")
    assert len(letter.headers) == 9


def test_a_long_message_is_cut():
    rejection = Rejection(0, Stage.DECODE, Reason.BAD_UTF8, "DecodeFailed", "é" * 10_000)
    headers = dict(dead_letter_of(FakeRecord(), rejection, "m", "1").headers)
    assert headers["__connect.errors.exception.message"].decode() == "é" * MAX_MESSAGE_CHARS


def test_text_that_utf_8_cannot_write_is_escaped():
    rejection = Rejection(0, Stage.DECODE, Reason.UNSUPPORTED_SCHEMA, "DecodeFailed", "type '\ud800' is unknown")
    headers = dict(dead_letter_of(FakeRecord(), rejection, "m", "1").headers)
    assert headers["__connect.errors.exception.message"] == rb"type '\ud800' is unknown"


@given(st.text(alphabet=st.characters(), max_size=600), st.sampled_from(Reason), st.sampled_from(Stage))
def test_every_header_of_ours_is_utf_8(message, reason, stage):
    letter = dead_letter_of(FakeRecord(), Rejection(0, stage, reason, "E", message), "m", "1")
    headers = {name: value.decode("utf-8") for name, value in letter.headers}
    assert headers["inference.reason"] == reason.value
    assert headers["__connect.errors.stage"] == stage.value


def test_the_limit_itself_is_allowed_and_one_more_is_a_flood():
    gate = FloodGate(DeadLetterLimit(3, 60.0), ManualClock())
    gate.admit(letters(2))
    gate.admit(letters(1))
    gate.admit([])
    with pytest.raises(
        DeadLetterFlood, match=r"4 records rejected within 60 s, dead_letter_limit\.records is 3"
    ) as caught:
        gate.admit(letters(1))
    assert "features out_of_range: age is 7" in str(caught.value)


def test_dead_letters_are_forgotten_once_the_window_has_passed():
    clock = ManualClock()
    gate = FloodGate(DeadLetterLimit(3, 60.0), clock)
    gate.admit(letters(3))
    gate.settled()
    clock.advance(59.999)
    gate.admit([])
    with pytest.raises(DeadLetterFlood):
        gate.admit(letters(1))
    clock.advance(0.001)
    gate.admit(letters(2))


def test_what_was_refused_or_undone_does_not_count_and_what_was_settled_does():
    gate = FloodGate(DeadLetterLimit(3, 60.0), ManualClock())
    for _ in range(5):
        gate.admit(letters(3))
        gate.undone()
    gate.admit(letters(2))
    gate.settled()
    gate.undone()
    for _ in range(5):
        with pytest.raises(DeadLetterFlood):
            gate.admit(letters(2))
    gate.admit(letters(1))


def test_a_note_carries_the_count_to_the_next_worker_until_the_window_has_passed():
    clock = ManualClock()
    gate = FloodGate(DeadLetterLimit(3, 60.0), clock)
    assert gate.note() == ""
    gate.admit(letters(2))
    note = gate.note()
    clock.advance(59)
    later = FloodGate(DeadLetterLimit(3, 60.0), clock)
    old = "999@0"  # of a partition that nothing was committed of since
    for told in (old, note, note, "", old, "somebody else's"):  # twice: of two partitions
        later.remember(told)
    with pytest.raises(DeadLetterFlood, match="4 records rejected"):
        later.admit(letters(2))
    later.admit(letters(1))
    clock.advance(1)
    later.admit(letters(2))
    clock.advance(59.999)
    assert gate.note() == ""


def test_a_steady_trickle_is_forgotten_as_it_came_and_its_note_stays_short():
    clock = ManualClock()
    gate = FloodGate(DeadLetterLimit(1_000, 60.0), clock)
    for _ in range(2_000):
        gate.admit(letters(1))
        gate.settled()
        clock.advance(0.1)  # 600 in a window
    note = gate.note()
    assert len(note) < 500
    later = FloodGate(DeadLetterLimit(1_000, 60.0), clock)
    later.remember(note)
    clock.advance(30)
    later.admit(letters(650))  # half of those in the note are forgotten by now
    with pytest.raises(DeadLetterFlood):
        later.admit(letters(100))


@given(st.text())
def test_a_foreign_note_is_ignored(note):
    gate = FloodGate(DeadLetterLimit(1, 60.0), ManualClock())
    gate.remember(note)
    gate.admit(letters(1))


def test_a_limit_of_none_stops_at_the_first():
    gate = FloodGate(DeadLetterLimit(0, 1.0), ManualClock())
    gate.admit([])
    with pytest.raises(DeadLetterFlood):
        gate.admit(letters(1))


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.5, 1.0])), max_size=20))
def test_the_gate_counts_what_a_sliding_window_counts(steps):
    clock, seen = ManualClock(0.0), []
    gate = FloodGate(DeadLetterLimit(5, 1.0), clock)
    for count, pause in steps:
        clock.advance(pause)
        seen.append((clock.monotonic(), count))
        within, at_most = (
            sum(many for when, many in seen if when > clock.monotonic() - window_s) for window_s in (1.0, 1 + 1 / SLOTS)
        )
        if count and within <= 5 < at_most:
            return  # either will do: a slot is forgotten with its last
        if count and within > 5:
            with pytest.raises(DeadLetterFlood):
                gate.admit(letters(count))
            return
        gate.admit(letters(count))
        gate.settled()
