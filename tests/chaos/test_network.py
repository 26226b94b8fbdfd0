"""Connections break in every way proxies can think of; one fault a run."""

import contextlib
import time

import pytest

from app.exit_status import EXIT_DRAIN_DEADLINE, EXIT_WATCHDOG
from tests.chaos.faulty_kafka import NETWORK_FAULTS
from tests.chaos.flow import CI_MARGIN_S, now_ms, recoveries_s

FAULT_S = 6.0  # past every session timeout here
# After the network is whole: a call that hangs is ended by the watchdog 8 s past its timeout of 5 s, then a worker
# starts and gets its partitions back (session timeout, and 5 s).
BOUND_S = 5.0 + 8.0 + 5.0 + 9.0


ALWAYS = ("answers lost", "connections reset")  # the others with `make chaos`


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.chaos) for name in NETWORK_FAULTS]
)
def test_network_fault(faults, trio, fault, measured):
    faults.break_network(NETWORK_FAULTS[fault])
    time.sleep(FAULT_S)  # how long it lasts is part of the fault
    faults.heal_network()
    healed_ms = now_ms()

    recoveries = recoveries_s(trio, healed_ms)
    measured("recovery_s", recoveries)
    for stream, slot in trio:
        stream.judged()
        assert set(slot.ends) <= {EXIT_WATCHDOG}
        assert slot.worker.stop() == 0
    assert max(recoveries.values()) < BOUND_S + CI_MARGIN_S


def test_sigterm_while_no_broker_can_be_reached_ends_with_3_at_the_drain_deadline(faults, flow, measured):
    drain_timeout_s = 3.0
    # A group that gives up first takes the work away, and with it what there was to drain.
    settings = {"worker": {"drain_timeout_s": drain_timeout_s}, "kafka": {"session_timeout_s": 20}}
    always_some_in_work = {"batch": {"max_wait_s": 1.0}}
    flows = [flow(mode=mode, settings=settings, pipeline=always_some_in_work) for mode in MODES]

    with contextlib.ExitStack() as running:
        workers = [running.enter_context(stream.worker()) for stream in flows]
        for stream in flows:
            stream.flows()
        faults.break_network(NETWORK_FAULTS["proxies down"])
        for worker in workers:
            worker.terminate()
        began = time.monotonic()
        assert [worker.wait() for worker in workers] == [EXIT_DRAIN_DEADLINE] * 2
        took_s = time.monotonic() - began
    faults.heal_network()
    with contextlib.ExitStack() as running:
        for stream in flows:
            running.enter_context(stream.worker())
        for stream in flows:
            stream.judged()

    measured("drain_s", took_s)
    assert took_s < drain_timeout_s + 5.0 + CI_MARGIN_S  # 5 s to leave the group


MODES = ("exactly_once", "at_least_once")
