"""Produce and verify at the same time: latency is then what a reader of the predictions experiences.

The producer is a process of its own: sharing one interpreter, reading would delay sending and sending
reading.
"""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from loadgen.errors import BadOption, BrokerFailed, LoadgenError, MissingExtra, RegistryFailed
from loadgen.produce_plan import ProducePlan
from loadgen.producing import Produced
from loadgen.verdict import Verdict
from loadgen.verify_plan import VerifyPlan
from loadgen.verifying import LOOK_S, Progress, Verification

HOLD = 200_000  # predictions wait undecoded (about 70 MB) so that decoding does not delay reading
JOIN_TIMEOUT_S = 10.0
READY_TIMEOUT_S = 30.0
PROGRESS_EVERY = 1000  # events between two reports from the producing process

ProduceProgress = Callable[[int], None]
ERRORS: dict[str, type[LoadgenError]] = {
    error.__name__: error for error in (BadOption, MissingExtra, BrokerFailed, RegistryFailed)
}


@dataclass(frozen=True, slots=True)
class LiveResult:
    """Both halves of a run."""

    produced: Produced
    verdict: Verdict


def run(
    produce_plan: ProducePlan,
    verify_plan: VerifyPlan,
    sent: ProduceProgress,
    read: Progress,
    *,
    warmup_s: float = 0.0,
) -> LiveResult:
    """Send the events and read what becomes of them. Judges only what was sent from now on.

    warmup_s: events of the first seconds are judged, but their latency is left out of the percentiles.

    Raises LoadgenError if one half could not be done.
    """
    start = verify_plan.end_offsets()
    verification = Verification(
        verify_plan,
        start,
        expected_events=produce_plan.expected_events() or 0,
        basis="received",
        hold=HOLD,
    )
    try:
        _wait_until_reading(verification)
        produced = _produce_and_read(produce_plan, verification, sent, read)
        verification.read_to_stable_end(read)
        return LiveResult(produced, verification.verdict(produced.start_ms + warmup_s * 1000.0))
    finally:
        verification.close()


def _wait_until_reading(verification: Verification) -> None:
    """Return once both output topics are being read: the first prediction must not wait for our own start."""
    for _ in range(int(READY_TIMEOUT_S / LOOK_S)):
        verification.read_outcomes(LOOK_S)
        if verification.outcomes_at_end():
            return
    raise BrokerFailed(f"the output topics could not be read within {READY_TIMEOUT_S:g} s")


def _produce_and_read(plan: ProducePlan, verification: Verification, sent: ProduceProgress, read: Progress) -> Produced:
    context = multiprocessing.get_context("spawn")  # the Kafka client does not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_produce_in_child, args=(plan, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            verification.read_outcomes(LOOK_S)
            while ours.poll():
                what, detail = ours.recv()
                if what == "sent":
                    sent(detail)
                    read(*verification.counts)
                elif what == "done":
                    produced: Produced = detail
                    return produced
                else:
                    raise ERRORS.get(what, LoadgenError)(detail)
    except EOFError as error:
        raise LoadgenError("the producing process died") from error
    finally:
        ours.close()
        process.join(JOIN_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join(JOIN_TIMEOUT_S)


def _produce_in_child(plan: ProducePlan, connection: Connection) -> None:
    """Report ("sent", events) now and then; at last ("done", Produced) or (error's name, message)."""
    reported = 0

    def report(events: int) -> None:
        nonlocal reported
        if events - reported >= PROGRESS_EVERY:
            reported = events
            connection.send(("sent", events))

    answer: tuple[str, Any]
    try:
        answer = ("done", plan.run(report))
    except LoadgenError as error:
        answer = (type(error).__name__, str(error))
    except KeyboardInterrupt:
        answer = ("LoadgenError", "interrupted")
    with suppress(BrokenPipeError):  # nobody listens any more: the run was ended
        connection.send(answer)
