"""Rows and reports come over the line as they were; anything else ends as one named error, never as a crash."""

import json
import struct
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.records import TopicPartition
from app.worker.shadow_line import (
    Compared,
    Frames,
    Kind,
    LineBroken,
    Refused,
    ShadowRows,
    compared_bytes,
    compared_of,
    frame,
    refused_bytes,
    refused_of,
    rows_bytes,
    rows_of,
)
from app.worker.side_by_side import Answer

KEYS = st.lists(st.none() | st.binary(max_size=12), min_size=1, max_size=20)


def rows_with(keys, winner=True, sources=(("events", 3),)):
    count = len(keys)
    events = pa.record_batch(
        {
            "x": pa.array([None if i % 3 == 2 else float(i) for i in range(count)], pa.float64()),
            "plan": pa.array(["basic"] * count).dictionary_encode(),
            "pixels": pa.array([[1.0, 2.0]] * count, pa.list_(pa.float64())),
        }
    )
    numbers = np.arange(2.0 * count).reshape(count, 2)
    answer = Answer(numbers, ("no", "yes") if winner else (), np.arange(count) % 2 if winner else None)
    return ShadowRows(
        events, pa.array(keys, pa.binary()), tuple(TopicPartition(*source) for source in sources),
        np.arange(count) % len(sources), np.arange(count) + 2**40, np.arange(count) + 1_760_000_000_000,
        answer, "7", 12,
    )  # fmt: skip


@given(KEYS, st.booleans(), st.lists(st.tuples(st.text(max_size=8), st.integers(0, 2**31 - 1)), min_size=1, max_size=4))
def test_rows_come_as_they_were(keys, winner, sources):
    sent = rows_with(keys, winner, sources)
    came = rows_of(rows_bytes(sent))
    assert came.events.equals(sent.events)
    assert came.keys.equals(sent.keys)
    assert (came.sources, came.version, came.revision) == (sent.sources, "7", 12)
    for name in ("source", "offsets", "timestamps_ms"):
        assert getattr(came, name).tolist() == getattr(sent, name).tolist()
    assert came.answer.numbers.tolist() == sent.answer.numbers.tolist()
    assert came.answer.labels == sent.answer.labels
    assert (came.answer.winner is None) == (not winner)
    assert winner == (came.answer.classes() is not None)


TIMES = st.tuples(st.floats(0, 1e6), st.floats(0, 1e6))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), TIMES, st.integers(0, 100))
def test_reports_come_as_they_were(agreed, disagreed, failed, times, unpublished):
    differences = np.linspace(0, 1, agreed + disagreed, dtype=np.float32)
    sent = Compared(agreed, disagreed, failed, unpublished, *times, differences)
    came = compared_of(compared_bytes(sent), agreed + disagreed + failed)
    assert (came.agreed, came.disagreed, came.failed) == (agreed, disagreed, failed)
    assert (came.seconds, came.model_seconds) == times
    assert came.differences.tolist() == differences.tolist()


def test_refusals_come_as_they_were_but_no_longer_than_they_should_be():
    assert refused_of(refused_bytes(Refused("ModelInvalid", "é"))) == Refused("ModelInvalid", "é")
    assert len(refused_of(refused_bytes(Refused("E", "x" * 10**6))).message) == 4096


@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=40)), max_size=8), st.integers(1, 20))
def test_frames_come_whole_however_they_are_cut(sent, size):
    stream = b"".join(frame(kind, content) for kind, content in sent)
    frames, came = Frames(1000), []
    for start in range(0, len(stream), size):
        came += list(frames.feed(stream[start : start + size]))
    assert came == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_broken_and_never_hoarded(content):
    frames = Frames(64)
    try:
        for kind, inside in frames.feed(content):
            assert kind in set(Kind)
            assert len(inside) <= 64
    except LineBroken:
        pass


@given(st.binary(max_size=300), st.integers(0, 40))
def test_any_content_is_a_message_or_broken(content, rows):
    for read in (rows_of, refused_of, lambda given: compared_of(given, rows)):
        with suppress(LineBroken):
            read(content)


@given(st.integers(0, 2000), st.integers(0, 255))
def test_rows_with_a_byte_changed_are_rows_or_broken(at, value):
    content = bytearray(rows_bytes(rows_with([b"a", None, b"c"])))
    content[at % len(content)] = value
    with suppress(LineBroken):
        rows_of(bytes(content))


def counts(agreed, disagreed, failed, unpublished, seconds, model_seconds=0.0):
    return struct.pack("<4I2d", agreed, disagreed, failed, unpublished, seconds, model_seconds)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        counts(1, 1, 0, 0, 0.1),  # no differences
        counts(0, 0, 3, 0, 0.1),  # of two rows
        counts(0, 0, 2, 0, float("nan")),
        counts(0, 0, 2, 0, -1.0),
        counts(0, 0, 2, 0, 0.1, float("inf")),
        counts(0, 0, 2, 0, 0.1, -1.0),
        counts(1, 0, 1, 0, 0.1) + np.float32("nan").tobytes(),
        counts(1, 0, 1, 0, 0.1) + np.float32("inf").tobytes(),
        counts(0, 0, 2, 0, 0.1) + b"x",
    ],
)
def test_a_report_that_does_not_add_up_is_broken(content):
    with pytest.raises(LineBroken):
        compared_of(content, 2)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'["one"]', b"7", json.dumps({"a": 1}).encode()])
def test_a_refusal_that_is_none_is_broken(content):
    with pytest.raises(LineBroken):
        refused_of(content)
