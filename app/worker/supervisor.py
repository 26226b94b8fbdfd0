"""The life of several worker processes: started, watched, started again, drained together.

Each process has a slot, a number from 0 that stays with its transactional ids and static-membership ids. What
the end of one means, unless all are being stopped:

    status 1      a named error that the others are about to meet, or should not work on beside: a flood of dead
                  letters, a bad model, a fenced producer. All drain, and the whole ends with 1: whoever started
                  it decides, as with a single process.
    status 2      a bad start. The first start of a slot finds what is wrong with settings, permissions or
                  models: all drain, and the whole ends with 2. A slot that was ready before has good settings;
                  it is started again, since what refuses it now, such as an absent broker, may pass.
    all others    3, 4, a signal: started again, after 1 s, 2 s, 4 s and so on up to 60 s; from 1 s again once a
                  process was ready for a minute. Its open transaction is aborted by the next process of the
                  slot, its partitions move when its session runs out.

A process that says nothing good of its progress for a minute is killed and so started again. Nothing is left of
that for `/livez`, which fails only if this loop stands still or a killed process does not go away: what a restart
of everything might mend.

Nothing here waits, starts a thread or makes a process: `turn` does what is due now.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.clock import Clock
from app.exit_status import EXIT_BAD_START, EXIT_DRAIN_DEADLINE, EXIT_DRAINED, EXIT_FATAL
from app.facts import ProcessReport
from app.ports import ProcessObserver
from app.worker.process import ALIVE_WITHIN_S, CLOSE_MARGIN_S

BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 60.0
HEALTHY_AFTER_S = 60.0  # ready for so long: the next end is a new story
UNWELL_MOST_S = 60.0  # a start has to import, which takes seconds, on a busy machine tens of them
COUNTED_MOST_S = 1.0  # of a turn: when all of us were frozen, or slept, nobody was silent
GONE_WITHIN_S = 30.0  # after SIGKILL; only the kernel can be in the way
# After the processes' own deadline, which is drain_timeout_s + CLOSE_MARGIN_S: 27 s in all at the default, 29 with
# tracing, below a pod's 30.
KILL_MARGIN_S = 2.0


class Child(Protocol):
    """A worker process, seen from its parent. No call waits."""

    @property
    def pid(self) -> int:
        """Of the process."""
        ...

    def poll(self) -> int | None:
        """Its exit status once it has ended, the negative number of a signal that ended it; None before."""
        ...

    def report(self) -> ProcessReport | None:
        """The newest that came since the last call, which may be after its end; None if none did."""
        ...

    def terminate(self) -> None:
        """Tell it to drain."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def close(self) -> None:
        """It has ended and will not be asked any more."""
        ...


@dataclass(slots=True)
class _Slot:
    number: int
    child: Child | None = None
    report: ProcessReport | None = None  # the newest of this child
    ready_at: float | None = None  # when this child first was
    proven: bool = False  # whether any child of this slot was ready
    starts: int = 0
    ends: int = 0  # in a row, without a healthy spell
    start_at: float = 0.0  # when to start it again
    unwell_s: float = 0.0  # since the last good report
    killed_at: float | None = None

    @property
    def state(self) -> str:
        if self.child is None:
            return "waiting"
        report = self.report  # other threads ask
        return "ready" if report is not None and report.awaits is None else "not_ready"


class Supervisor:
    """Keeps `processes` children at work until it is stopped or one of them ends everything.

    `turn` and `kill` are for one thread; `alive` and `ready` for any; `stop` also for signal handlers.
    """

    def __init__(
        self,
        processes: int,
        spawn: Callable[[int], Child],
        observer: ProcessObserver,
        drain_timeout_s: float,
        clock: Clock,
    ) -> None:
        """spawn: starts the process of a slot; OSError if the system cannot now, which is tried again.

        drain_timeout_s: of a process, with what it exports last.
        """
        self._spawn, self._observer, self._drain_timeout_s, self._clock = spawn, observer, drain_timeout_s, clock
        self._log = structlog.get_logger()
        self._slots = [_Slot(number) for number in range(processes)]
        self._stop_requested = False
        self._because: int | None = None  # the status of the child that ended everything
        self._drain_ends: list[int] | None = None  # exit statuses since the drain began
        self._kill_at = self._give_up_at = float("inf")
        self._turned_at = clock.monotonic()

    def alive(self) -> str | None:
        """What only a restart of everything might mend, or None."""
        now = self._clock.monotonic()
        if now - self._turned_at > ALIVE_WITHIN_S:
            return f"the supervisor made no progress for {ALIVE_WITHIN_S:g} s"
        for slot in self._slots:
            killed_at = slot.killed_at
            if killed_at is not None and now - killed_at > GONE_WITHIN_S:
                return f"process {slot.number} was killed and does not go away"
        return None

    def ready(self) -> str | None:
        """Which processes are not ready, and why, or None."""
        if self._stop_requested:
            return "draining"
        reasons = [(slot.number, self._why_not_ready(slot)) for slot in self._slots]
        return "; ".join(f"process {number}: {why}" for number, why in reasons if why is not None) or None

    def stop(self) -> None:
        """Drain all and end."""
        self._stop_requested = True

    def kill(self) -> None:
        """End every process at once; what it had not committed is read again."""
        for slot in self._slots:
            if slot.child is not None:
                slot.child.kill()

    def turn(self) -> int | None:
        """Do what is due. Returns the exit status once every process has ended for good.

        That is the status of the child that ended everything; else 0 if all drained, 3 if one did not in time.
        """
        now = self._clock.monotonic()
        elapsed_s = min(now - self._turned_at, COUNTED_MOST_S)
        self._turned_at = now
        if self._stop_requested:
            self._begin_drain()
        for slot in self._slots:
            if slot.child is not None:
                self._look_at(slot, slot.child, elapsed_s)
        if self._stop_requested:
            return self._drain()
        for slot in self._slots:
            if slot.child is None and now >= slot.start_at:
                self._start(slot)
        self._count()
        return None

    def _look_at(self, slot: _Slot, child: Child, elapsed_s: float) -> None:
        status = child.poll()  # before its report: its last one is there by then
        report = child.report()
        slot.unwell_s += elapsed_s
        if report is not None:
            self._heard(slot, report)
        if status is not None:
            child.close()
            self._ended(slot, child.pid, status)
        elif slot.unwell_s >= UNWELL_MOST_S and slot.killed_at is None and not self._stop_requested:
            stuck = (slot.report and slot.report.stuck) or f"silent for {UNWELL_MOST_S:g} s"
            self._log.error("process_stuck", slot=slot.number, pid=child.pid, reason=stuck)
            child.kill()
            slot.killed_at = self._turned_at

    def _heard(self, slot: _Slot, report: ProcessReport) -> None:
        slot.report = report
        self._observer.reported(slot.number, report.samples)
        if report.refused:
            self._observer.refused(slot.number, report.refused)
        if report.stuck is None:
            slot.unwell_s = 0.0
        if report.awaits is None:
            slot.proven = True
            if slot.ready_at is None:
                slot.ready_at = self._turned_at

    def _ended(self, slot: _Slot, pid: int, status: int) -> None:
        self._observer.ended(slot.number)
        self._log.info("process_ended", slot=slot.number, pid=pid, status=status)
        healthy = slot.ready_at is not None and self._turned_at - slot.ready_at >= HEALTHY_AFTER_S
        slot.child = slot.report = slot.ready_at = slot.killed_at = None
        if self._drain_ends is not None:
            self._drain_ends.append(status)
        elif status == EXIT_FATAL or (status == EXIT_BAD_START and not slot.proven):
            self._log.error("process_ends_all", slot=slot.number, status=status)
            self._because = self._because or status
            self._stop_requested = True
        elif not self._stop_requested:
            slot.ends = 0 if healthy else slot.ends
            self._start_later(slot)

    def _start_later(self, slot: _Slot) -> None:
        delay_s = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(slot.ends, 30))
        slot.ends += 1
        slot.start_at = self._turned_at + delay_s
        self._log.warning("process_restarts", slot=slot.number, restart_in_s=delay_s)

    def _start(self, slot: _Slot) -> None:
        slot.unwell_s = 0.0
        try:
            slot.child = self._spawn(slot.number)
        except OSError as exc:
            self._log.error("process_not_started", slot=slot.number, reason=str(exc))
            self._start_later(slot)
            return
        self._log.info("process_started", slot=slot.number, pid=slot.child.pid)
        self._observer.started(slot.number, again=slot.starts > 0)
        slot.starts += 1

    def _drain(self) -> int | None:
        ends = self._begin_drain()
        self._count()
        if any(slot.child is not None for slot in self._slots):
            if self._turned_at < self._kill_at:
                return None
            self._log.error("drain_deadline_passed", reason="a process did not end by itself")
            self.kill()
            self._kill_at = self._give_up_at
            if self._turned_at < self._give_up_at:
                return None
            ends.append(EXIT_DRAIN_DEADLINE)
        return self._because or _of_the_drain(ends)

    def _begin_drain(self) -> list[int]:
        """Tell them all, once. Gives back the exit statuses that came since."""
        if self._drain_ends is None:
            self._drain_ends = []
            self._kill_at = self._turned_at + self._drain_timeout_s + CLOSE_MARGIN_S + KILL_MARGIN_S
            self._give_up_at = self._kill_at + GONE_WITHIN_S
            for slot in self._slots:
                if slot.child is not None:
                    slot.child.terminate()
        return self._drain_ends

    def _count(self) -> None:
        states = dict.fromkeys(("ready", "not_ready", "waiting"), 0)
        for slot in self._slots:
            states[slot.state] += 1
        self._observer.counted(states)

    def _why_not_ready(self, slot: _Slot) -> str | None:
        report = slot.report
        if slot.child is None and slot.starts:
            return f"ended, starts again in {max(0.0, slot.start_at - self._clock.monotonic()):.0f} s"
        return "starting" if report is None else report.awaits


def _of_the_drain(ends: Sequence[int]) -> int:
    """One status for all. A process that SIGTERM ended had not begun; any other signal cut a drain short."""
    left = {EXIT_DRAIN_DEADLINE if status < 0 else status for status in ends if status != -signal.SIGTERM}
    left.discard(EXIT_DRAINED)
    return EXIT_DRAIN_DEADLINE if EXIT_DRAIN_DEADLINE in left else min(left, default=EXIT_DRAINED)
