"""Where the rows of a batch came from, in columns."""

import numpy as np
import pytest
from fakes import NOW_MS, FakeRecord
from hypothesis import given
from hypothesis import strategies as st

from app.records import Span, TopicPartition, origin_of

SOURCES = st.sampled_from([("a", 0), ("a", 1), ("a", 12), ("b", 0), ("b", 1)])


def test_records_of_one_topic_are_told_apart_by_partition():
    records = [FakeRecord(topic="t", partition=p, offset=o) for p, o in [(3, 5), (1, 0), (3, 6)]]
    origin = origin_of(records, NOW_MS)
    assert origin.sources == (TopicPartition("t", 1), TopicPartition("t", 3))
    assert origin.source.tolist() == [1, 0, 1]
    assert origin.partitions().tolist() == [3, 1, 3]
    assert origin.offsets.tolist() == [5, 0, 6]


def test_records_of_a_topic_that_is_known_are_not_asked_for_it():
    records = [FakeRecord(topic="never seen", partition=p, offset=o) for p, o in [(3, 5), (1, 0), (3, 6)]]
    origin = origin_of(records, NOW_MS, "t")
    assert origin.sources == (TopicPartition("t", 1), TopicPartition("t", 3))
    assert origin.source.tolist() == [1, 0, 1]


def test_a_missing_timestamp_is_the_time_it_was_read():
    stamps = [(0, -1), (1, 500), (0, 0), (2, 600)]
    origin = origin_of([FakeRecord(timestamp=stamp, offset=i) for i, stamp in enumerate(stamps)], 1234)
    assert origin.timestamps_ms.tolist() == [1234, 500, 1234, 600]


def test_a_span_reaches_from_the_first_offset_to_the_one_after_the_last():
    records = [FakeRecord(offset=o, timestamp=(1, ms)) for o, ms in [(5, 90), (6, 70), (9, 80)]]
    assert origin_of(records, NOW_MS).spans() == {TopicPartition("events", 0): Span(5, 10, 70, 80)}


@given(st.lists(st.tuples(SOURCES, st.integers(1, 10**12)), min_size=1, max_size=30))
def test_every_row_keeps_its_own_place(rows):
    offsets = {}
    records = []
    for (topic, partition), ms in rows:
        offset = offsets[topic, partition] = offsets.get((topic, partition), -1) + 2
        records.append(FakeRecord(topic=topic, partition=partition, offset=offset, timestamp=(1, ms)))
    origin = origin_of(records, NOW_MS)
    assert len(set(origin.sources)) == len(origin.sources)
    found = [origin.sources[index] for index in origin.source]
    assert found == [(record.topic(), record.partition()) for record in records]
    assert origin.partitions().tolist() == [record.partition() for record in records]
    assert origin.offsets.tolist() == [record.offset() for record in records]
    assert {column.dtype for column in (origin.source, origin.offsets, origin.timestamps_ms)} == {np.dtype(np.int64)}
    spans = origin.spans()
    assert spans.keys() == set(found)
    for source, span in spans.items():
        own = [record for record in records if (record.topic(), record.partition()) == source]
        stamps = [record.timestamp()[1] for record in own]
        assert span == (own[0].offset(), own[-1].offset() + 1, min(stamps), stamps[-1])


def test_a_batch_is_never_empty():
    with pytest.raises(IndexError):
        origin_of([], NOW_MS)
