"""Looks again and again, and shows what it saw; says so when it sees nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.clock import Clock
from app.lag.board import Board
from app.lag.desired_replicas import Advice, DesiredReplicas, ScalingPolicy, ScalingSample
from app.lag.readings import GroupLag

MOST_DOUBLINGS = 10
MOST_NAMED = 3  # of what is unknown, in one line
LONGEST_PAUSE_S = 30.0  # between looks at a broker that does not answer; or poll_s, if that is longer


class Watch(Protocol):
    """`app.lag.watch.LagWatch`."""

    def look(self) -> list[GroupLag]:
        """All groups, as they are now."""
        ...


@dataclass(frozen=True, slots=True)
class ExportPolicy:
    """poll_s: between looks. keep_s: how long figures are shown that were not renewed.

    alive_within_s: a look and a pause take less, whatever the broker does.
    """

    poll_s: float = 5.0
    keep_s: float = 20.0
    alive_within_s: float = 120.0


@dataclass(slots=True)
class _Shown:
    """What is shown of a group, and since when; -inf: nothing is."""

    partitions_at_s: float = float("-inf")
    group_at_s: float = float("-inf")
    trouble: str | None = None
    trouble_since_s: float = 0.0


class LagExporter:
    """Runs on one thread; any thread may ask how it is."""

    def __init__(
        self,
        watch: Watch,
        board: Board,
        policy: ExportPolicy,
        scaling: ScalingPolicy,
        clock: Clock,
        wait: Callable[[float], bool],
    ) -> None:
        """wait: for so many seconds, or until told to stop; whether it was told."""
        self._watch, self._board, self._policy, self._clock, self._wait = watch, board, policy, clock, wait
        self._scaling = scaling
        self._replicas: dict[str, DesiredReplicas] = {}
        self._shown: dict[str, _Shown] = {}
        self._turned_at_s = clock.monotonic()
        self._awaits: str | None = "nothing was looked at yet"
        self._log = structlog.get_logger()

    def alive(self) -> str | None:
        """What is wrong with its progress, or None; whatever the broker does."""
        within_s = self._policy.alive_within_s
        return f"no progress for {within_s:g} s" if self._clock.monotonic() - self._turned_at_s > within_s else None

    def ready(self) -> str | None:
        """Why what is shown is not all there should be, or None."""
        return self._awaits

    def run(self) -> None:
        """Until told to stop."""
        failures = 0
        while True:
            failures = 0 if self.turn() else min(failures + 1, MOST_DOUBLINGS)
            longest_s = max(self._policy.poll_s, LONGEST_PAUSE_S)
            if self._told_to_stop_within(min(self._policy.poll_s * 2**failures, longest_s)):
                return

    def turn(self) -> bool:
        """One look at all groups. False if nothing at all was seen."""
        self._turned_at_s = begun_s = self._clock.monotonic()
        looks = self._watch.look()
        seconds = self._clock.monotonic() - begun_s
        for lag in looks:
            self._take(lag, seconds)
        troubles = {lag.group.group_id: _trouble(lag) for lag in looks if not lag.complete}
        self._awaits = "; ".join(f"group {group_id}: {why}" for group_id, why in troubles.items()) or None
        return not looks or any(lag.partitions for lag in looks)

    def _told_to_stop_within(self, seconds: float) -> bool:
        """Wait; what gets too old meanwhile is taken away when it does, not at the next look."""
        until_s = self._clock.monotonic() + seconds
        while (now_s := self._clock.monotonic()) < until_s:
            shown_until_s = (
                at_s + self._policy.keep_s
                for shown in self._shown.values()
                for at_s in (shown.partitions_at_s, shown.group_at_s)
            )
            next_s = min((at_s for at_s in shown_until_s if at_s > now_s), default=until_s)
            if self._wait(min(next_s, until_s) - now_s):
                return True
            for group_id in self._shown:
                self._forget_what_is_old(group_id)
        return False

    def _forget_what_is_old(self, group_id: str) -> None:
        shown, seen_since_s = self._shown[group_id], self._clock.monotonic() - self._policy.keep_s
        if shown.partitions_at_s <= seen_since_s:
            self._board.forget(group_id, "partitions")
        if shown.group_at_s <= seen_since_s:
            self._board.forget(group_id, "group")
            if group_id in self._replicas:
                self._replicas[group_id].lost_sight()

    def _take(self, lag: GroupLag, seconds: float) -> None:
        group_id, now_s = lag.group.group_id, self._clock.monotonic()
        shown = self._shown.setdefault(group_id, _Shown())
        result = "complete" if lag.complete else "partial" if lag.partitions else "failed"
        self._tell(group_id, shown, _trouble(lag) if not lag.complete else None)
        if lag.partitions:
            self._board.show(lag)
            shown.partitions_at_s = now_s
        if lag.complete:
            self._board.show_group(lag, self._advise(lag))
            shown.group_at_s = now_s
        self._forget_what_is_old(group_id)
        self._board.looked(lag, result, seconds, self._clock.now_ms() / 1000)

    def _advise(self, lag: GroupLag) -> Advice | None:
        if not lag.group.scaled:
            return None
        replicas = self._replicas.setdefault(lag.group.group_id, DesiredReplicas(self._scaling))
        return replicas.advise(
            ScalingSample(
                at_s=lag.at_s,
                arrived=lag.arrived,
                finished=lag.finished,
                lag_records=lag.records,
                lag_seconds=lag.seconds,
                partitions=lag.most_processes,
                members=lag.processes,
            )
        )

    def _tell(self, group_id: str, shown: _Shown, trouble: str | None) -> None:
        """Once for each trouble; looks at a broker that is away become rare, and so do these."""
        now_s = self._clock.monotonic()
        if trouble is not None and shown.trouble is None:
            shown.trouble_since_s = now_s
        if trouble is not None:
            self._log.warning(
                "group_not_seen", group=group_id, why=trouble, for_s=round(now_s - shown.trouble_since_s, 1)
            )
        elif shown.trouble is not None:
            self._log.info("group_seen_again", group=group_id, after_s=round(now_s - shown.trouble_since_s, 1))
        shown.trouble = trouble


def _trouble(lag: GroupLag) -> str:
    """What is unknown, the first few of it."""
    named = [f"{what}: {why}" for what, why in sorted(lag.unknown.items())]
    rest = len(named) - MOST_NAMED
    return "; ".join(named[:MOST_NAMED]) + (f"; and {rest} more" if rest > 0 else "") or "its members are not known"
