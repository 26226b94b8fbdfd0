"""Predictions with headers among those without: every partition gets its own in their order, and nothing twice."""

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException
from fakes import ManualClock
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DeliveryFailed
from app.kafka.outbox import Outbox, OutputTopics
from app.records import Predictions, predictions_of

PARENT = [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]


class KeptQueue:
    """A producer as far as its queue goes: what was put into it, in order, with the partition that was asked for."""

    def __init__(self, refusal=None):
        self.put, self.refusal = [], refusal

    def produce_batch(self, topic, messages, partition, **_callback):
        self.put += [(partition, message["value"], message["key"], None) for message in messages]
        return len(messages)

    def produce(self, topic, value, key, partition, headers, **_callback):
        if self.refusal is not None:
            raise self.refusal
        self.put.append((partition, value, key, headers))

    def list_topics(self, topic, timeout):
        metadata = type("Metadata", (), {})()
        metadata.topics = {topic: type("Topic", (), {"partitions": dict.fromkeys(range(3)), "error": None})()}
        return metadata


rows = st.lists(
    st.tuples(st.integers(0, 4), st.one_of(st.none(), st.binary(max_size=3)), st.booleans()), min_size=1, max_size=40
)


def predictions(given_rows):
    partitions = [partition for partition, _, _ in given_rows]
    found = predictions_of([str(i).encode() for i in range(len(given_rows))], [key for _, key, _ in given_rows], [0])
    headers = {i: PARENT for i, (_, _, traced) in enumerate(given_rows) if traced}
    return Predictions(found.values, found.keys, np.array(partitions), found.sizes, headers or None)


@given(rows, st.sampled_from(["source", "key"]))
def test_with_headers_every_partition_gets_what_it_gets_without(given_rows, partitioning):
    put = {}
    for traced in (True, False):
        queue = KeptQueue()
        outbox = Outbox(queue, OutputTopics("p", "d", partitioning), 1_000_000, ManualClock())
        those = predictions(given_rows if traced else [(partition, key, False) for partition, key, _ in given_rows])
        outbox.put(those, [])
        put[traced] = {
            target: [(value, key) for partition, value, key, _ in queue.put if partition == target]
            for target in {partition for partition, *_ in queue.put}
        }
        if traced:
            carrying = {value for _, value, _, headers in queue.put if headers == PARENT}
            assert carrying == {str(i).encode() for i, (_, _, it) in enumerate(given_rows) if it}
    assert put[True] == put[False]


def test_a_traced_prediction_that_the_client_refuses_is_a_failure():
    queue = KeptQueue(KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)))
    outbox = Outbox(queue, OutputTopics("p", "d"), 1_000_000, ManualClock())
    with pytest.raises(DeliveryFailed, match="a prediction was not queued"):
        outbox.put(predictions([(0, b"k", True)]), [])


def test_a_spent_producer_says_so_itself():
    queue = KeptQueue(KafkaException(KafkaError(KafkaError._FENCED)))
    outbox = Outbox(queue, OutputTopics("p", "d"), 1_000_000, ManualClock())
    with pytest.raises(KafkaException):
        outbox.put(predictions([(0, b"k", True)]), [])
