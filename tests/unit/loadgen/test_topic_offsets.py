"""Offsets of a topic, asked of a broker whose partitions are just getting their leaders."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from loadgen import kafka_client
from loadgen.errors import BrokerFailed
from loadgen.kafka_client import KafkaOptions, Topics


class Admin:
    """One partition; refuses with `errors`, one a call, and then answers 7."""

    def __init__(self, errors):
        self._errors = list(errors)

    def list_topics(self, timeout):
        return SimpleNamespace(topics={"events": SimpleNamespace(error=None, partitions=[0])})

    def list_offsets(self, asked, request_timeout):
        assert request_timeout < 15, "one question has not all the time"
        (place,) = asked
        answer = Future()
        if self._errors:
            answer.set_exception(KafkaException(KafkaError(self._errors.pop(0))))
        else:
            answer.set_result(SimpleNamespace(offset=7))
        return {place: answer}


@pytest.fixture
def topics(monkeypatch):
    def made(*errors):
        monkeypatch.setattr(kafka_client, "AdminClient", lambda _: Admin(errors))
        monkeypatch.setattr(kafka_client, "ASK_AGAIN_S", 0)
        return Topics(KafkaOptions("nowhere:1"))

    return made


def test_a_leader_that_is_not_known_yet_is_asked_again(topics):
    errors = (
        KafkaError._NOENT, KafkaError._TIMED_OUT, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE
    )  # fmt: skip
    assert topics(*errors).end_offsets("events") == {0: 7}


def test_it_is_not_asked_for_ever(topics, monkeypatch):
    monkeypatch.setattr(kafka_client, "ADMIN_TIMEOUT_S", -1)
    with pytest.raises(BrokerFailed, match=r"events: .*epoch"):
        topics(KafkaError.UNKNOWN_LEADER_EPOCH).end_offsets("events")


def test_a_refusal_is_an_error_at_once(topics):
    with pytest.raises(BrokerFailed, match=r"events: .*authorization"):
        topics(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN).first_offsets("events")
