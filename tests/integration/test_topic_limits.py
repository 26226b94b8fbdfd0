"""What a topic does not take becomes a dead letter it takes; the worker goes on."""

import time
from io import BytesIO

import fastavro
import pytest
from confluent_kafka import Producer
from rig import WAIT_S, answers, events_of, read_all, write
from worker_process import running_worker

from loadgen.wire import SINGLE_OBJECT

HOUR_MS = 3_600_000


def letters_of(lane):
    """Offset of the event → (message, headers) of its dead letter."""
    found = {}
    for message in read_all(lane.kafka, lane.dead_letters):
        headers = dict(message.headers())
        found[int(headers["__connect.errors.offset"])] = (message, headers)
    return found


def with_customer_id(value, customer_id):
    """The same churn event of another customer; the id is its first field."""
    header, datum = value[: SINGLE_OBJECT.header_size], value[SINGLE_OBJECT.header_size :]
    fields = BytesIO()
    fastavro.schemaless_writer(fields, "string", customer_id)
    return header + fields.getvalue() + datum[1 + datum[0] // 2 :]


@pytest.fixture
def narrow(lane, topics):
    """A lane of one partition: predictions up to 1,000 bytes with framing, dead letters up to 2,000."""
    output = topics("churn.predictions", 1, {"max.message.bytes": "1000"})
    return lane(partitions=1).with_outputs(output, topics("churn.dead-letters", 1, {"max.message.bytes": "2000"}))


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once"])
def test_a_prediction_larger_than_its_topic_takes_is_dead_lettered_with_as_much_as_fits(narrow, mode, tmp_path):
    (topic,) = narrow.inputs
    events = events_of(narrow.event_stream(), 3_000, partitions=1)
    values = [value for _, _, value in events]
    strange = {1000: b"k", 1001: b"k", 1002: b"k" * 5_000}
    values[1000], values[1001] = with_customer_id(values[1000], "c" * 450), with_customer_id(values[1001], "c" * 1_500)
    for offset, key in strange.items():
        events[offset] = (0, key, values[offset])
    write(narrow.kafka, topic, events)

    with running_worker(narrow.settings(delivery={"mode": mode}), tmp_path) as worker:
        worker.wait_for_records(3_000)
        assert worker.metrics().of("inference_dead_letters_total", "stage", "reason") == {("output", "oversized"): 3}
        assert worker.stop() == 0

    assert len(answers(narrow)) == 2_997  # whole batches are larger than the topic takes of one: they are split
    letters = letters_of(narrow)
    assert letters.keys() == strange.keys()
    whole, without_payload, bare = (letters[offset] for offset in strange)
    assert (whole[0].key(), whole[0].value()) == (strange[1000], values[1000])
    assert "inference.payload" not in whole[1]
    assert (without_payload[0].key(), without_payload[0].value()) == (strange[1001], None)
    assert without_payload[1]["inference.payload"] == b"omitted: too large"
    assert (bare[0].key(), bare[0].value()) == (None, None)
    assert bare[1]["inference.key"] == b"omitted: too large"
    for offset, (_, headers) in letters.items():
        assert headers["__connect.errors.topic"] == topic.encode()
        assert headers["__connect.errors.partition"] == b"0"
        assert headers["__connect.errors.offset"] == str(offset).encode()
        assert headers["inference.reason"] == b"oversized"


def test_a_dead_letter_whose_time_the_topic_refuses_keeps_it_in_a_header(lane, topics, tmp_path):
    relaxed = {"message.timestamp.after.max.ms": str(10**12)}
    inputs = topics("churn.events", 1, relaxed)
    dead_letters = topics("churn.dead-letters", 1, {"message.timestamp.before.max.ms": str(10 * HOUR_MS)})
    one = lane(partitions=1).with_inputs(inputs)
    one = one.with_outputs(one.output, dead_letters)
    now_ms = int(time.time() * 1000)
    stamps = [now_ms, now_ms + 50 * HOUR_MS, now_ms - 50 * HOUR_MS, now_ms - HOUR_MS]
    producer = Producer({"bootstrap.servers": one.kafka})
    for stamp in stamps:
        producer.produce(inputs, b"no datum", partition=0, timestamp=stamp)
    assert producer.flush(WAIT_S) == 0

    with running_worker(one.settings(), tmp_path) as worker:
        worker.wait_for_records(4)
        assert worker.stop() == 0

    letters = letters_of(one)
    kept = {offset: message.timestamp()[1] for offset, (message, _) in letters.items()}
    told = {offset: headers.get("inference.timestamp_ms") for offset, (_, headers) in letters.items()}
    assert (kept[0], kept[3]) == (stamps[0], stamps[3])
    assert told == {0: None, 1: str(stamps[1]).encode(), 2: str(stamps[2]).encode(), 3: None}
    assert all(abs(kept[offset] - now_ms) < HOUR_MS for offset in (1, 2))
