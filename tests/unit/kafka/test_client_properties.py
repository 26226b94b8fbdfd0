"""The client takes whatever properties the settings can ask for together."""

import pytest

from app.kafka.client_config import ClientPolicy, DeliveryPolicy, producer_properties
from app.kafka.outbox import new_producer


@pytest.mark.parametrize("transactional_id", [None, "id"])
@pytest.mark.parametrize("timeout_s", [1.0, 5.0, 10.0, 900.0])
@pytest.mark.parametrize("extra", [{}, {"socket.timeout.ms": 60_000}, {"socket.timeout.ms": "2000"}])
def test_a_producer_can_be_made_whatever_its_timeouts(transactional_id, timeout_s, extra):
    delivery = DeliveryPolicy(transactional_id, transaction_timeout_s=timeout_s)
    properties = producer_properties(ClientPolicy("127.0.0.1:1", "test", extra=extra), delivery)
    new_producer(properties)
    assert int(properties["socket.timeout.ms"]) <= int(extra.get("socket.timeout.ms", 10_000))


@pytest.mark.parametrize("sizes", [(1_000, 1_000), (1_048_588, 1_048_588), (2**31 - 1, 5_000_000)])
def test_a_producer_can_be_made_whatever_its_topics_take(sizes):
    most, batch = sizes
    delivery = DeliveryPolicy("id", max_message_bytes=most, max_batch_bytes=batch)
    new_producer(producer_properties(ClientPolicy("127.0.0.1:1", "test"), delivery))
