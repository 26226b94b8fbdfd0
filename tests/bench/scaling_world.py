"""A consumer group, its topic and whoever scales it, on a simulated clock: what a policy costs and what it gives.

Every tenth of a second: records come (Poisson, the same ones for every policy), each process works on its partitions.
A new process takes a while to start; a process that comes or goes stops the whole group for a moment, which is worse
than what cooperative rebalances do. Partitions are dealt out as evenly as their number allows, and no more evenly.
"""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from app.lag.desired_replicas import DesiredReplicas, ScalingPolicy, ScalingSample
from tests.bench.autoscaler import DEFAULT_DOWN, OVERLAY, SYNC_S, Keda, ScaledObject, kafka_trigger

TICK_S = 0.1
LATE_S = 2.0  # behind by more than that is behind
CALM_S = 15.0  # and not behind for so long is recovered


@dataclass(frozen=True, slots=True)
class World:
    """Rates in records a second, of the ordinary load and of one process."""

    rate: float = 4_000.0
    capacity: float = 5_000.0
    partitions: int = 12
    start_s: tuple[float, float] = (8.0, 15.0)  # image there, Python, models, group
    rebalance_s: float = 3.0
    sync_s: float = SYNC_S
    look_s: float = 5.0  # of the lag exporter
    scrape_s: float = 5.0


@dataclass
class Outcome:
    """One run, look by look. replicas: pods that are paid for, those that start or drain included."""

    policy: str
    seconds: list = field(default_factory=list)
    lag_s: list = field(default_factory=list)
    replicas: list = field(default_factory=list)
    arrivals: list = field(default_factory=list)
    changes: list = field(default_factory=list)  # (when, pods more or less)
    paid_s: float = 0.0  # pod-seconds

    @property
    def worst_lag_s(self):
        return max(self.lag_s)

    @property
    def late_share(self):
        """Of the time, behind by more than LATE_S."""
        return sum(lag > LATE_S for lag in self.lag_s) / len(self.lag_s)

    @property
    def turns(self):
        """How often the number changed its direction; up and, in its time, down again is one."""
        signs = [change > 0 for _, change in self.changes]
        return sum(a != b for a, b in itertools.pairwise(signs))

    def recovery_s(self, spike):
        """From a spike's beginning until the group was no longer behind, for CALM_S at least; inf if it never was."""
        begins_s, ends_s = spike
        behind = [
            at for at, lag in zip(self.seconds, self.lag_s, strict=True) if begins_s <= at < ends_s and lag > LATE_S
        ]
        if not behind:
            return 0.0
        for late_s, next_s in zip(behind, [*behind[1:], math.inf], strict=True):
            if next_s - late_s > CALM_S and late_s + CALM_S < ends_s:
                return late_s - begins_s
        return math.inf


class Group:
    """Processes and the records that wait for them, by partition."""

    def __init__(self, world, processes, dice):
        self._world, self._dice = world, dice
        self._lag = np.zeros(world.partitions)
        self._working = list(range(processes))
        self._starting = []  # when each will be ready
        self._paused_until_s = 0.0
        self._names = processes
        self._deal()
        self.arrived = self.finished = 0.0
        self._came = np.zeros(4_096)  # records so far, tick by tick
        self._ticks = 0

    @property
    def size(self):
        """Pods, those that still start included."""
        return len(self._working) + len(self._starting)

    @property
    def members(self):
        return len(self._working)

    @property
    def lag(self):
        return float(self._lag.sum())

    def lag_s(self):
        """The age of the oldest record that waits."""
        partition = int(self._lag.argmax())
        finished = self.arrived - self._lag[partition] * self._world.partitions
        oldest = int(np.searchsorted(self._came[: self._ticks + 1], finished + 1e-6))
        return max(0, self._ticks - oldest) * TICK_S if self.lag > 0.5 else 0.0

    def scale(self, now_s, size):
        """So many pods from now on; the youngest go first, as in a StatefulSet."""
        for _ in range(size - self.size):
            self._starting.append(now_s + self._dice.uniform(*self._world.start_s))
        while self.size > size:
            if self._starting:
                self._starting.pop()
                continue
            self._working.pop()
            self._rebalance(now_s)

    def tick(self, now_s, count):
        """A tenth of a second in which so many records came."""
        ready = [at for at in self._starting if at <= now_s]
        if ready:
            self._starting = [at for at in self._starting if at > now_s]
            self._working += range(self._names, self._names + len(ready))
            self._names += len(ready)
            self._rebalance(now_s)
        self._lag += count / self._world.partitions
        self.arrived += count
        self._ticks += 1
        if self._ticks == len(self._came):
            self._came = np.resize(self._came, 2 * self._ticks)
        self._came[self._ticks] = self.arrived
        if now_s >= self._paused_until_s and self._working:
            self._work()

    def _work(self):
        """Each process takes from its partitions what it can, the same share of each."""
        waiting = np.bincount(self._owner, weights=self._lag, minlength=len(self._working))
        share = np.minimum(1.0, self._world.capacity * TICK_S / np.maximum(waiting, 1e-9))
        done = self._lag * share[self._owner]
        self._lag -= done
        self.finished += float(done.sum())

    def _rebalance(self, now_s):
        self._paused_until_s = now_s + self._world.rebalance_s
        self._deal()

    def _deal(self):
        self._owner = np.arange(self._world.partitions) % max(len(self._working), 1)


class Fixed:
    """A fleet of so many."""

    def __init__(self, size):
        self.name, self.first = f"fixed {size}", size

    def size(self, now_s, group):
        return self.first


class PlainLag:
    """KEDA's Kafka trigger as most people set it up: lag / lagThreshold, the autoscaler's defaults."""

    first = 1

    def __init__(self, world, lag_threshold, down=DEFAULT_DOWN):
        self.name = f"lag / {lag_threshold:,}"
        self._world, self._threshold = world, lag_threshold
        self._keda = Keda(lag_threshold, most=world.partitions, down=down)
        self._next_s = world.sync_s

    def size(self, now_s, group):
        if now_s < self._next_s:
            return group.size
        self._next_s += self._world.sync_s
        value = kafka_trigger(group.lag, self._threshold, self._world.partitions)
        return self._keda.sync(now_s, group.size, value)


class Signal:
    """Ours: the exporter looks, Prometheus scrapes, the autoscaler syncs; each at its own time."""

    first = 1

    def __init__(self, world, policy, overlay):
        self.name = "ours"
        self._world = world
        self._desired = DesiredReplicas(policy)
        self._keda = overlay.keda(least=1)
        self._look_s, self._scrape_s, self._sync_s = 0.0, world.scrape_s * 0.7, world.sync_s
        self._exported = self._scraped = None

    def size(self, now_s, group):
        if now_s >= self._look_s:
            self._look_s += self._world.look_s
            sample = ScalingSample(
                now_s,
                int(group.arrived),
                int(group.finished),
                int(group.lag),
                0.0,
                self._world.partitions,
                group.members,
            )
            self._exported = self._desired.advise(sample).replicas
        if now_s >= self._scrape_s:
            self._scrape_s += self._world.scrape_s
            self._scraped = self._exported
        if now_s < self._sync_s:
            return group.size
        self._sync_s += self._world.sync_s
        return self._keda.sync(now_s, group.size, group.lag, self._scraped)


def ours(world, **changes):
    """The policy with its defaults, told what a process can do, and the overlay's ScaledObject."""
    overlay = ScaledObject.read(OVERLAY)
    settings = {"max_replicas": overlay.most, "capacity_per_process": world.capacity, **changes}
    return Signal(world, ScalingPolicy(**settings), overlay)


def run(world, shape, policy, *, seed=0):
    """The outcome of one policy under one load; the same seed brings the same records to every policy."""
    records, dice = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    group = Group(world, policy.first, dice)
    outcome = Outcome(policy.name)
    for tick in range(int(shape.lasts_s / TICK_S)):
        now_s = tick * TICK_S
        rate = world.rate * shape.at(now_s)
        group.tick(now_s, int(records.poisson(rate * TICK_S)))
        outcome.paid_s += group.size * TICK_S
        before = group.size
        size = policy.size(now_s, group)
        if size != before:
            outcome.changes.append((now_s, size - before))
            group.scale(now_s, size)
        if tick % 10 == 0:
            outcome.seconds.append(now_s)
            outcome.lag_s.append(group.lag_s())
            outcome.replicas.append(group.size)
            outcome.arrivals.append(rate)
    return outcome
