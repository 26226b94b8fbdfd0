"""Where summaries and the sample go: asked for at start, written by key, and refused aloud."""

from dataclasses import replace

import numpy as np
import pytest
from confluent_kafka import KafkaError
from fakes import ManualClock

from app.errors import DeliveryFailed
from app.kafka.outbox import Outbox, OutputTopics
from app.kafka.permissions import PipelineUse, permissions
from app.kafka.topic_limits import TopicLimits
from app.records import predictions_of

USE = PipelineUse("churn", ("events",), "predictions", "dead", "workers", None, keeps_partition=True)
BY_KEY = -1


class FakeProducer:
    """Keeps what is queued; `refuses`: topics it takes nothing for."""

    def __init__(self):
        self.queued, self.refuses = [], set()

    def produce_batch(self, topic, messages, partition, **_callback):
        if topic in self.refuses:
            for message in messages:
                message["_error"] = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
            return 0
        self.queued += [(topic, partition, message["key"], message["value"]) for message in messages]
        return len(messages)


@pytest.fixture
def producer():
    return FakeProducer()


def outbox(producer, **topics):
    return Outbox(producer, OutputTopics("predictions", "dead", **topics), 1_000, ManualClock())


PREDICTIONS = predictions_of([b"a", b"bb"], [b"1", b"2"], np.array([3, 3]))


def test_both_topics_are_written_and_nothing_else():
    monitored = replace(USE, monitoring=("summaries", "sample"))
    added = {str(needed) for needed in permissions(monitored)} - {str(needed) for needed in permissions(USE)}
    assert added == {"Write on Topic summaries", "Write on Topic sample"}
    assert set(monitored.topics) - set(USE.topics) == {"summaries", "sample"}


def test_the_sample_goes_by_key_beside_the_predictions(producer):
    outbox(producer, sample="sample").put(PREDICTIONS, [])
    assert producer.queued == [
        ("predictions", 3, b"1", b"a"),
        ("predictions", 3, b"2", b"bb"),
        ("sample", BY_KEY, b"1", b"a"),
        ("sample", BY_KEY, b"2", b"bb"),
    ]


def test_summaries_go_by_key(producer):
    outbox(producer, summaries="summaries").put_summaries([(b"churn/1", b"s")])
    assert producer.queued == [("summaries", BY_KEY, b"churn/1", b"s")]


def test_without_topics_there_is_neither(producer):
    box = outbox(producer)
    box.put(PREDICTIONS, [])
    box.put_summaries([(b"churn/1", b"s")])
    assert {topic for topic, *_ in producer.queued} == {"predictions"}


def test_a_long_prediction_is_left_out_of_the_sample_only(producer):
    outbox(producer, sample="sample", sample_bytes=2).put(PREDICTIONS, [])
    assert [value for topic, _, _, value in producer.queued if topic == "sample"] == [b"a"]
    assert [value for topic, _, _, value in producer.queued if topic == "predictions"] == [b"a", b"bb"]


def test_what_is_for_the_watchers_counts_towards_the_queue(producer):
    plain, watched = outbox(producer), outbox(producer, sample="sample", summaries="summaries")
    for box in (plain, watched):
        box.put(PREDICTIONS, [])
    watched.put_summaries([(b"churn/1", b"s" * 90)])
    assert watched._queued_bytes - plain._queued_bytes == 5 + 97


@pytest.mark.parametrize(("topic", "what"), [("sample", "2 sampled predictions"), ("summaries", "1 summaries")])
def test_a_refusal_says_of_what(producer, topic, what):
    producer.refuses = {topic}
    box = outbox(producer, sample="sample", summaries="summaries")
    with pytest.raises(DeliveryFailed, match=f"{what} were not queued"):  # noqa: PT012 - whichever comes first
        box.put(PREDICTIONS, [])
        box.put_summaries([(b"churn/1", b"s")])


def test_a_batch_is_never_larger_than_any_of_its_topics_takes():
    assert TopicLimits(5_000, 4_000).max_batch_bytes == 4_000
    assert TopicLimits(5_000, 4_000, sample_bytes=3_000, summary_bytes=9_000).max_batch_bytes == 3_000
