"""Which refusals of a record pass when its transaction is done again."""

import pytest
from confluent_kafka import KafkaError
from fakes import ManualClock

from app.errors import DeliveryFailed
from app.kafka.outbox import Outbox, OutputTopics


@pytest.fixture
def outbox():
    return Outbox(None, OutputTopics("predictions", "dead-letters"), 1_000_000, ManualClock())


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._MSG_TIMED_OUT,
        KafkaError._PURGE_QUEUE,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
    ],
)
def test_what_is_wrong_with_the_producer_passes_and_without_a_transaction_it_does_not(outbox, code):
    outbox._on_delivery(KafkaError(code), None)
    outbox.raise_refusal(passing=True)
    outbox.raise_refusal(passing=False)  # said once
    outbox._on_delivery(KafkaError(code), None)
    with pytest.raises(DeliveryFailed):
        outbox.raise_refusal(passing=False)


@pytest.mark.parametrize("code", [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_what_is_wrong_with_the_record_or_the_topic_does_not_pass(outbox, code):
    outbox._on_delivery(KafkaError(code), None)
    with pytest.raises(DeliveryFailed, match="the broker refused a record"):
        outbox.raise_refusal(passing=True)
