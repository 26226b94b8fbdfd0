"""How many processes a consumer group needs: what came in, what was finished and what waits → a number. Pure.

    wanted = (arrival rate + backlog / (drain target - reaction)) / (capacity of a process * utilization)

backlog is what waits now and what joins it until a change of the number works: (arrival rate - what the group can do)
* reaction. Partitions cannot be split: n processes do the work of partitions / ceil(partitions / n), because the one
with the most partitions is the measure. Of 12 partitions, 7 to 11 processes do no more than 6; only such numbers are
published as do more than the next smaller one. `docs/SCALING.md` derives every part and measures them together.

A number is held until `wanted` leaves a dead band around what that number of processes can do:

up      at once, when more is wanted than (1 + dead_band) times that, and the rebalance's pause is paid back
down    when for hold_s nothing was wanted that fewer could not do, and they are fewer than (1 - dead_band) * held

The dead band is also what the Horizontal Pod Autoscaler ignores, 10 % of the ratio between the number published and
the number it has (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details): a
step made here is never too small for it, except the last one down to `min_replicas` of ten or more.

Within the dead band the drain target holds: (1 + dead_band) * utilization <= 1 is a condition on every policy.

A member that is missing is no wish for fewer: while a pod is replaced the group has one member less, and an autoscaler
that is told so takes the pod's place away for good. So fewer are asked for after hold_s only, whether a capacity is
known or not, and a number that may be such a moment's is not `settled`: nobody should be told it yet.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from app.lag.measured import ArrivalRate, ProcessCapacity

SAME_LOOK_S = 0.01  # two looks closer than that say nothing about a rate

Reason = Literal[
    "unknown",  # no capacity given, none measured yet: as many as there are
    "steady",  # what is wanted is near enough to what is published
    "arrivals",  # up: more comes in than these processes should be asked to do
    "backlog",  # up: what waits would take longer than the drain target
    "rebalance",  # more would help less than the rebalance costs
    "holds",  # fewer would do, not for hold_s yet
    "down",  # fewer have been enough for hold_s
    "partitions",  # more are wanted than there are partitions
    "max_replicas",  # more are wanted than are allowed
]


@dataclass(frozen=True, slots=True)
class ScalingSample:
    """One look at a group. arrived and finished only grow, but for a topic made anew or offsets set back.

    at_s: of the monotonic clock. arrived, finished: sums over the partitions of the end and the committed offsets.
    lag_seconds: for those who read a sample; the number is worked out from records, in which capacity is counted.
    partitions: the most processes that can have work. members: processes in the group now.
    """

    at_s: float
    arrived: int
    finished: int
    lag_records: int
    lag_seconds: float
    partitions: int
    members: int


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """What the number is worked out with. Raises ValueError if no number could keep these promises.

    drain_target_s: after a rise in arrivals the backlog is gone within so long of the first look that shows it.
    capacity_per_process: records a second, until it is measured; None: nothing is changed until then.
    utilization: the share of their capacity that processes are asked for when nothing is wrong.
    reaction_s: from a new number to processes that work: scrape, autoscaler, start, joining the group.
    rebalance_pause_s: for how long a rebalance stops the group's work.
    rise_s, fall_s: over how long the arrival rate is averaged when it rises, and when it falls.
    """

    min_replicas: int = 1
    max_replicas: int = 32
    drain_target_s: float = 120.0
    capacity_per_process: float | None = None
    utilization: float = 0.8
    dead_band: float = 0.1  # the Horizontal Pod Autoscaler's own tolerance, or its steps would be lost
    reaction_s: float = 30.0  # 15 of scraping and syncing, 15 of starting: what the benchmark assumes too
    rebalance_pause_s: float = 3.0
    hold_s: float = 180.0
    rise_s: float = 5.0
    fall_s: float = 60.0
    capacity_memory_s: float = 60.0

    def __post_init__(self) -> None:
        positive = ("drain_target_s", "utilization", "hold_s", "rise_s", "fall_s", "capacity_memory_s")
        for name in positive:
            _check(0.0 < getattr(self, name) < math.inf, f"{name} must be above 0")
        for name in ("dead_band", "reaction_s", "rebalance_pause_s"):
            _check(0.0 <= getattr(self, name) < math.inf, f"{name} must not be negative")
        seed = self.capacity_per_process
        _check(seed is None or 0.0 < seed < math.inf, "capacity_per_process must be above 0")
        _check(0 <= self.min_replicas <= self.max_replicas, "min_replicas must be between 0 and max_replicas")
        _check(self.max_replicas >= 1, "max_replicas must be at least 1")
        _check(self.reaction_s < self.drain_target_s, "reaction_s must be below drain_target_s")
        within = (1.0 + self.dead_band) * self.utilization
        _check(within <= 1.0, f"(1 + dead_band) * utilization must be at most 1, and is {within:g}")


@dataclass(frozen=True, slots=True)
class Advice:
    """The number to publish and what it was worked out from. capacity_per_process is None while it is not known.

    settled: it is more than the members that were seen, or they were watched for reaction_s, in which one that is
    replaced comes back.
    """

    replicas: int
    arrival_rate: float
    capacity_per_process: float | None
    reason: Reason
    settled: bool


class DesiredReplicas:
    """The number of processes for one group, look by look. Not for several threads."""

    def __init__(self, policy: ScalingPolicy) -> None:
        self._policy = policy
        self._arrivals = ArrivalRate(policy.rise_s, policy.fall_s)
        self._capacity = ProcessCapacity(policy.capacity_per_process, policy.capacity_memory_s)
        self._last: ScalingSample | None = None  # None: what comes next is not compared with anything
        self._first_at_s = 0.0
        self._changed_at_s = -math.inf  # its members
        self._needs: deque[tuple[float, int]] = deque()  # (when, what was needed) for hold_s, falling from the left
        self._held = self._most_members = 0
        self._settled = False

    def advise(self, sample: ScalingSample) -> Advice:
        """The number from this look on. Any sample is taken; what makes no sense in it changes nothing.

        The first one starts from the group as it is: a new exporter takes nothing away for hold_s.
        """
        if self._last is None:
            self._begin(sample)
        elif sample.at_s >= self._last.at_s + SAME_LOOK_S:
            self._measure(self._last, sample)
        if self._last is None or sample.at_s >= self._last.at_s + SAME_LOOK_S:
            self._last = sample
        self._most_members = max(self._most_members, sample.members)
        if not self._settled:
            self._held = max(self._held, sample.members)
        least, most = self._bounds(sample)
        self._held = min(max(self._held, least), most)
        capacity = self._capacity.value
        if capacity is None:
            return self._unmeasured(sample, least, most)
        wanted, band = self._wanted(sample, capacity), self._policy.dead_band
        # Half of the band is left for the load to tremble in, or the next look would undo the step down.
        needed = min(max(_enough(wanted / (1.0 + band / 2), sample.partitions), least), most)
        lately = self._most_needed(sample.at_s, needed)
        if wanted > (1.0 + band) * _strength(self._held, sample.partitions):
            return self._advice(sample, self._up(sample, wanted, capacity, most))
        if lately < self._held and (lately < (1.0 - band) * self._held or lately == least):
            self._held = lately
            return self._advice(sample, "down")
        return self._advice(sample, "holds" if needed < self._held else "steady")

    def lost_sight(self) -> None:
        """Nothing was seen for so long that the number was taken away.

        The next sample is a first one again: what happened meanwhile is no measurement, who left the group may come
        back, and nobody watched whether fewer were enough. The number held and the capacity stay.
        """
        self._last = None

    def _begin(self, sample: ScalingSample) -> None:
        self._first_at_s = self._changed_at_s = sample.at_s
        self._held = max(self._held, sample.members)
        self._most_members, self._settled = 0, False
        self._needs.clear()

    def _measure(self, before: ScalingSample, now: ScalingSample) -> None:
        """What the time between two looks says about arrivals, and about capacity if processes were busy throughout."""
        seconds = now.at_s - before.at_s
        arrived, finished = now.arrived - before.arrived, now.finished - before.finished
        if now.members != before.members:
            self._changed_at_s = now.at_s
        if now.partitions != before.partitions or arrived < 0:
            return  # a topic more or made anew: its offsets are no arrivals
        self._arrivals.seen(arrived, seconds)
        settled = before.at_s >= self._changed_at_s + self._policy.rebalance_pause_s
        # All that was finished had been there at the beginning: nobody waited for work. Nothing finished is a
        # standstill (a broker away, a group that rebalances), which more processes do not mend.
        busy = before.lag_records > finished > 0
        working = min(now.members, now.partitions)
        if settled and busy and working > 0:
            self._capacity.seen(finished / seconds / working, seconds)

    def _wanted(self, sample: ScalingSample, capacity: float) -> float:
        """The formula at the top: a number of processes, before it is made a whole one."""
        policy, rate = self._policy, self._arrivals.value
        if sample.lag_records <= 0 and self._arrivals.is_over(policy.hold_s):
            return 0.0
        growing = max(0.0, rate - _strength(self._held, sample.partitions) * capacity)
        backlog = max(0, sample.lag_records) + growing * policy.reaction_s
        drain = backlog / (policy.drain_target_s - policy.reaction_s)
        return (rate + drain) / capacity / policy.utilization

    def _up(self, sample: ScalingSample, wanted: float, capacity: float, most: int) -> Reason:
        """More, if there may be more and if it is worth a rebalance; why, or why not."""
        policy, held, rate = self._policy, self._held, self._arrivals.value
        band = 1.0 + policy.dead_band
        if held >= most:
            return "max_replicas" if most == policy.max_replicas else "partitions"
        # Within the band the drain target holds, so that much less will do.
        clear = _worth_having(min(math.floor(held * band) + 1, most), sample.partitions)
        more = min(max(_enough(wanted / band, sample.partitions), clear), most)
        if more * band >= most:
            more = most  # or the step from there to the most would be within the band
        before, after = _strength(held, sample.partitions), _strength(more, sample.partitions)
        arrivals = rate > band * before * capacity * policy.utilization
        # What the new ones take off the backlog against what the held ones would have drained during the pause.
        pays = max(0, sample.lag_records) * (after - before) > policy.rebalance_pause_s * after * (
            before * capacity - rate
        )
        if not arrivals and not pays:
            return "rebalance"
        self._held = more
        return "arrivals" if arrivals else "backlog"

    def _unmeasured(self, sample: ScalingSample, least: int, most: int) -> Advice:
        """No capacity is known: as many as there were in hold_s, and one if there is work for it to be measured at."""
        some = 1 if sample.lag_records > 0 else 0
        needed = min(max(sample.members, some, least), most)
        self._held = min(self._most_needed(sample.at_s, needed), most)
        return self._advice(sample, "unknown")

    def _bounds(self, sample: ScalingSample) -> tuple[int, int]:
        """(least, most). A group without partitions is one that nothing is known of: nothing changes."""
        if sample.partitions <= 0:
            held = min(max(self._held, self._policy.min_replicas), self._policy.max_replicas)
            return held, held
        most = min(self._policy.max_replicas, sample.partitions)
        return min(self._policy.min_replicas, most), most

    def _most_needed(self, now_s: float, needed: int) -> int:
        """The most that was needed in the last hold_s; what is held, while that was not yet watched for so long."""
        while self._needs and self._needs[-1][1] <= needed:
            self._needs.pop()
        self._needs.append((now_s, needed))
        while self._needs[0][0] < now_s - self._policy.hold_s:
            self._needs.popleft()
        if now_s - self._first_at_s < self._policy.hold_s:
            return max(self._held, self._needs[0][1])
        return self._needs[0][1]

    def _advice(self, sample: ScalingSample, reason: Reason) -> Advice:
        watched_s = sample.at_s - self._first_at_s
        self._settled |= self._held > self._most_members or watched_s >= self._policy.reaction_s
        return Advice(self._held, self._arrivals.value, self._capacity.value, reason, self._settled)


def _strength(processes: int, partitions: int) -> float:
    """How many processes' work so many do together, if the load is spread evenly over the partitions."""
    if processes <= 0 or partitions <= 0:
        return 0.0
    return partitions / -(-partitions // processes)


def _enough(wanted: float, partitions: int) -> int:
    """The least number of processes that do the work of `wanted`; all that can have a partition, if it is too much."""
    if wanted <= 0.0 or partitions <= 0:
        return 0
    each = math.floor(partitions / wanted) if wanted > 1.0 else partitions  # partitions that one process may have
    return -(-partitions // each) if each else partitions


def _worth_having(processes: int, partitions: int) -> int:
    """So many or the next number above, up to that of the partitions, that does more than one less."""
    each = -(-partitions // processes)
    fewest = -(-partitions // each)
    return fewest if fewest >= processes else -(-partitions // (each - 1))


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - a condition, not a mode
    if not holds:
        raise ValueError(otherwise)
