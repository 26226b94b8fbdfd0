"""The client takes whatever properties the settings can ask for together."""

import pytest
from confluent_kafka import Consumer

from app.errors import BadSettings
from app.kafka.client_config import (
    ClientPolicy,
    DeliveryPolicy,
    GroupPolicy,
    consumer_properties,
    outsider,
    producer_properties,
)
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


def member(session_timeout_s, **extra):
    group = GroupPolicy("workers", session_timeout_s=session_timeout_s)
    return consumer_properties(ClientPolicy("127.0.0.1:1", "test", extra=extra), group, 1_000_000)


@pytest.mark.parametrize(
    ("session_timeout_s", "interval_ms"), [(0.001, 1), (6.0, 1_200), (10.0, 2_000), (30.0, 2_000), (3_600.0, 2_000)]
)
def test_a_member_hears_of_a_rebalance_soon_however_long_its_session(session_timeout_s, interval_ms):
    assert member(session_timeout_s)["heartbeat.interval.ms"] == interval_ms


@pytest.mark.parametrize("asked", [2_001, "2001", 6_000, 10**12, "1e9"])
def test_heartbeats_too_far_apart_for_the_session_are_refused(asked):
    """The client takes them, and the broker expels such a member again and again."""
    with pytest.raises(BadSettings, match=r"heartbeat.interval.ms .* at most 2000 with 6 s"):
        member(6.0, **{"heartbeat.interval.ms": asked})


def test_a_third_of_the_session_is_not_too_far_apart():
    assert member(6.0, **{"heartbeat.interval.ms": 2_000})["heartbeat.interval.ms"] == 2_000


def test_who_joins_no_group_is_not_bound_by_what_members_are_told():
    """Settings that a worker runs with must not keep the lag exporter from starting."""
    extra = {"heartbeat.interval.ms": 20_000, "max.poll.interval.ms": 8_000, "client.rack": "a"}
    policy = outsider(ClientPolicy("127.0.0.1:1", "test", extra=extra))

    properties = consumer_properties(policy, GroupPolicy("workers"), 1_000_000)
    Consumer(properties).close()

    assert properties["client.rack"] == "a"
