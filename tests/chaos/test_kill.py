"""Workers die at the worst moments; whoever comes next goes on from what was committed."""

import signal

import pytest

from tests.chaos.flow import CI_MARGIN_S, CONSUMER_SESSION_TIMEOUT_S, SESSION_TIMEOUT_S, TRANSACTION_TIMEOUT_S, now_ms

STEPS_OF_A_TRANSACTION = {  # and at which passing: in the middle of a busy stream
    "after_init_transactions": 1,
    "after_produce_batch": 20,
    "before_send_offsets_to_transaction": 10,
    "after_send_offsets_to_transaction": 10,
    "before_commit_transaction": 10,
    "after_commit_transaction": 10,
}
STEPS_AT_LEAST_ONCE = {"after_produce_batch": 20, "before_commit": 10, "after_commit": 10}


def killed_at_each(stream, steps):
    """Place → seconds from a death there to outcomes in every partition again, by the next worker."""
    recoveries, killed_ms, killed_at = {}, None, None
    for place, count in steps.items():
        now = stream.folder / place
        if count == 1:  # before anything can flow
            now.touch()
        with stream.worker(failpoints=f"{place}@{count}=kill", when=now) as worker:
            if killed_at:
                recoveries[killed_at] = stream.recovery_s(killed_ms)
            now.touch()
            assert worker.wait() == -signal.SIGKILL
            killed_ms, killed_at = now_ms(), place
    with stream.worker() as worker:
        recoveries[killed_at] = stream.recovery_s(killed_ms)
        stream.judged()
        assert worker.stop() == 0
    return recoveries


@pytest.mark.parametrize(
    ("protocol", "static", "bound_s"),
    [
        pytest.param("classic", True, 3.0, id="classic, static"),
        pytest.param("consumer", False, CONSUMER_SESSION_TIMEOUT_S + 5.0, id="consumer"),
    ],
)
def test_kill_9_at_each_step_of_a_transaction(flow, protocol, static, bound_s, measured):
    recoveries = killed_at_each(flow(protocol=protocol, static=static), STEPS_OF_A_TRANSACTION)

    measured("recovery_s", recoveries)
    assert max(recoveries.values()) < bound_s + CI_MARGIN_S


def test_kill_9_at_each_step_loses_nothing_in_at_least_once(flow, measured):
    recoveries = killed_at_each(flow(mode="at_least_once"), STEPS_AT_LEAST_ONCE)

    measured("recovery_s", recoveries)
    assert max(recoveries.values()) < SESSION_TIMEOUT_S + 5.0 + CI_MARGIN_S


@pytest.mark.parametrize(
    ("protocol", "session_timeout_s"),
    [
        ("classic", SESSION_TIMEOUT_S),
        pytest.param("consumer", CONSUMER_SESSION_TIMEOUT_S, marks=pytest.mark.chaos),
    ],
)
def test_another_worker_inherits_from_one_that_dies_for_good_with_a_transaction_open(
    flow, protocol, session_timeout_s, measured
):
    """Its offsets are pending: nobody may read on from there before the coordinator has aborted the transaction."""
    stream = flow(protocol=protocol)

    with stream.worker("heir") as heir:
        heir.wait_until_ready()
        with stream.worker("doomed", failpoints="after_send_offsets_to_transaction@20=kill") as doomed:
            assert doomed.wait() == -signal.SIGKILL
            recovery_s = stream.recovery_s(now_ms())
        stream.judged()
        assert heir.stop() == 0

    measured("recovery_s", recovery_s)
    assert recovery_s < session_timeout_s + TRANSACTION_TIMEOUT_S + 5.0 + CI_MARGIN_S
