"""A broker dies; what it led and coordinated is taken over by the others, and workers only wait."""

import pytest

from app.exit_status import EXIT_WATCHDOG
from tests.chaos.flow import CI_MARGIN_S, now_ms, recoveries_s

BOUND_S = 12.0  # with broker.session.timeout.ms 6000


def long(role):
    return pytest.param(role, marks=pytest.mark.chaos)


@pytest.mark.parametrize("role", ["partition leader", long("transaction coordinator"), long("group coordinator")])
def test_kill_9_of_a_broker(faults, trio, role, measured):
    stream, _ = trio[0]
    victim = {
        "partition leader": lambda: faults.leader(stream.lane.inputs[0]),
        "transaction coordinator": lambda: faults.transaction_coordinator(stream.transactional_id()),
        "group coordinator": lambda: faults.group_coordinator(stream.group_id),
    }[role]()

    victim.kill()
    killed_ms = now_ms()
    recoveries = recoveries_s(trio, killed_ms)
    victim.start()
    faults.wait_until_in_sync()

    measured("recovery_s", recoveries)
    recoveries_s(trio, now_ms())
    for each, slot in trio:
        each.judged()
        # The client may wait for ever for the group coordinator that died (librdkafka #5456, #5511).
        assert set(slot.ends) <= ({EXIT_WATCHDOG} if each.mode == "exactly_once" else set())
        assert slot.worker.stop() == 0
    assert max(recoveries.values()) < BOUND_S + CI_MARGIN_S
