"""A worker that sleeps through its own funeral is fenced when it wakes up."""

import os
import signal

import pytest

from tests.chaos.flow import CI_MARGIN_S, PARTITIONS, TRANSACTION_TIMEOUT_S, now_ms
from tests.integration.worker_process import owned

BEFORE, AFTER = "before_send_offsets_to_transaction", "after_send_offsets_to_transaction"


@pytest.mark.parametrize(
    ("protocol", "place"),
    [
        ("classic", AFTER),
        ("consumer", BEFORE),
        pytest.param("classic", BEFORE, marks=pytest.mark.chaos),
        pytest.param("consumer", AFTER, marks=pytest.mark.chaos),
    ],
)
def test_sigstop_past_the_session_timeout(flow, protocol, place, measured):
    stream = flow(protocol=protocol)

    with stream.worker("heir") as heir:
        heir.wait_until_ready()
        with stream.worker("zombie", failpoints=f"{place}@20=stop") as zombie:
            zombie.wait_until(lambda: zombie.said("failpoint"), "its failpoint")
            stopped_ms = now_ms()
            heir.wait_until(lambda: owned(heir) == set(range(PARTITIONS)), "the heir to take over")
            recovery_s = stream.recovery_s(stopped_ms)

            os.kill(zombie.pid, signal.SIGCONT)
            zombie.wait_until(lambda: zombie.said("transaction_failed"), "it to be fenced")
            zombie.wait_until(lambda: len(zombie.said("partitions_assigned")) > 1, "it to come back to the group")
            stream.flows()
            stream.judged()
            assert zombie.stop() == heir.stop() == 0

    measured("recovery_s", recovery_s)
    assert recovery_s < 4.0 + TRANSACTION_TIMEOUT_S + 5.0 + CI_MARGIN_S
