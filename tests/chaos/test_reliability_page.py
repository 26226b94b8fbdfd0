"""The page says what was measured: a broken page after half an hour of faults would be a pity."""

from tests.chaos.long_run import TIMEOUTS
from tests.chaos.machine import this_machine
from tests.chaos.reliability_page import page


def fault(number, name, protocol, recovery_s, mode="exactly_once"):
    return {
        "number": number,
        "fault": name,
        "detail": "w1",
        "mode": mode,
        "protocol": protocol,
        "recovery_s": recovery_s,
    }


def flow(mode, protocol, **more):
    return {
        "mode": mode, "protocol": protocol, "inputs": 1000, "predictions": 998, "dead_letters": 2, "repeated": 0,
        "worker_ends": {}, **more,
    }  # fmt: skip


FOUND = {
    "command": "python -m tests.chaos.long_run --seed 7",
    "seed": 7,
    "seconds": 61,
    "machine": this_machine(),
    "timeouts": TIMEOUTS,
    "flows": [
        flow("exactly_once", "classic"),
        flow("exactly_once", "consumer", worker_ends={"4": 2}),
        flow("at_least_once", "classic", predictions=1010, repeated=12),
    ],
    "faults": [
        fault(1, "worker kill -9, restarted", "classic", 5.0),
        fault(2, "worker kill -9, restarted", "consumer", 3.0),
        fault(3, "broker kill -9", "classic", 7.25),
        fault(3, "broker kill -9", "consumer", 8.0),
        fault(4, "worker kill -9, restarted", "classic", 7.0),
        fault(1, "worker added", "classic", 1.0, mode="at_least_once"),
    ],
    "restarts": [
        {"configuration": "classic, static membership", "bound_s": 3.0, "recoveries_s": [2.0, 3.5]},
        {"configuration": "consumer, session 4 s (tuned)", "bound_s": 9.0, "recoveries_s": [6.0]},
    ],
}


def test_each_fault_is_counted_once_and_timed_per_protocol():
    written = page(FOUND)

    assert "## 4 random faults, exactly_once" in written
    assert "| worker kill -9, restarted | 3 | 0 | 0 | 0 | 6.0 / 7.0 | 3.0 / 3.0 |" in written
    assert "| broker kill -9 | 1 | 0 | 0 | 0 | 7.2 / 7.2 | 8.0 / 8.0 |" in written
    assert "| worker added | 1 | allowed | 0 | 0 | 1.0 / 1.0 |" in written


def test_repeats_and_workers_that_ended_are_shown():
    written = page(FOUND)

    assert "| exactly_once, consumer | 1,000 | 998 | 2 | 0 | 0 | 0 | 0 | 0 | exit 4: 2 |" in written
    assert "| at_least_once, classic | 1,000 | 1,010 | 2 | 0 | allowed | 0 | 0 | 12 | none |" in written


def test_a_bound_that_was_not_held_is_said():
    written = page(FOUND)

    assert "| classic, static membership | 2 | 2.8 | 3.5 | 3 | **no** |" in written
    assert "| consumer, session 4 s (tuned) | 1 | 6.0 | 6.0 | 9 | yes |" in written


def test_the_page_says_how_its_figures_were_taken():
    written = page(FOUND)

    assert FOUND["command"] in written
    assert "Seed 7" in written
    assert "`transaction_timeout_s` 10" in written
