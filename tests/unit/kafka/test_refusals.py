"""Of all that the client reports, the user is told the reason that helps."""

import pytest
from confluent_kafka import KafkaError

from app.kafka.refusals import Refusals

DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
TRANSPORT = KafkaError(KafkaError._TRANSPORT, "b:1/bootstrap: Connect to ipv4#… failed: Connection refused")
RESOLVE = KafkaError(KafkaError._RESOLVE, "b:1/bootstrap: Failed to resolve 'b:1'")
PASSWORD = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: invalid credentials")
TLS = KafkaError(KafkaError._SSL, "ssl://127.0.0.1:1/bootstrap: certificate verify failed: broker certificate")


def told(*errors, log=()):
    refusals = Refusals()
    for error in errors:
        refusals.error(error)
    for line in log:
        refusals.log.info("FAIL [rdkafka#producer-1] [thrd:b:1/bootstrap]: %s", line)
    return refusals


@pytest.mark.parametrize("errors", [(DOWN, TRANSPORT, RESOLVE), (RESOLVE, TRANSPORT, DOWN)])
def test_the_telling_reason_wins_whenever_it_came(errors):
    assert told(*errors).reason({}) == "_RESOLVE: b:1/bootstrap: Failed to resolve 'b:1'"


def test_a_hint_says_which_setting_to_look_at():
    assert told(DOWN, PASSWORD).reason({}).endswith("(check kafka.security.username and its password)")


def test_only_the_log_says_that_a_broker_hung_up():
    reason = told(DOWN, log=["b:1/bootstrap: Disconnected: receive 0 after POLLIN", "b:1: something else"]).reason({})
    assert reason.startswith("b:1/bootstrap: Disconnected: receive 0 after POLLIN (the broker hung up")


def test_a_certificate_that_cannot_be_looked_at_again_is_told_in_the_clients_words():
    assert told(TLS).reason({"ssl.ca.location": "/nowhere.pem"}).startswith("_SSL: ssl://127.0.0.1:1/bootstrap")


def test_silence_is_told_as_such():
    assert told().reason({}) == "nothing answered"
    assert told(DOWN).reason({}) == "nothing answered"


@pytest.mark.parametrize(("error", "certain"), [(PASSWORD, True), (TLS, True), (TRANSPORT, False), (RESOLVE, False)])
def test_a_refused_password_or_certificate_needs_no_second_attempt(error, certain):
    assert told(error).certain is certain
