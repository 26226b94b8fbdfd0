"""What Kubernetes and KEDA do with a number: the Horizontal Pod Autoscaler's documented algorithm, and KEDA's own part.

Written from the documentation and held against the sources; no cluster is needed. Times are seconds of any clock.

- https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ ("Algorithm details", "Configurable scaling
  behavior"), and pkg/controller/podautoscaler of kubernetes: replica_calculator.go (GetExternalPerPodMetricReplicas,
  Tolerances.isWithin), horizontal.go (stabilizeRecommendationWithBehaviors, convertDesiredReplicasWithBehaviorRate).
- https://keda.sh/docs/2.22/concepts/scaling-deployments/ and /reference/scaledobject-spec/: KEDA itself scales between
  0 and 1 every pollingInterval; from 1 on it gives its metrics to an autoscaler it makes, which asks at every sync.
- https://keda.sh/docs/2.22/scalers/apache-kafka/: the lag as a metric, never more than lagThreshold for each partition.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import yaml

SYNC_S = 15.0  # --horizontal-pod-autoscaler-sync-period
OVERLAY = Path(__file__).parents[2] / "deploy/kubernetes/overlays/keda/scaled-object.yaml"
TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance


@dataclass(frozen=True, slots=True)
class Step:
    """A scaling policy: at most so many pods, or per cent of them, within a period. kind: pods or percent."""

    kind: str
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction of `behavior`; of several steps the one that changes most counts."""

    stabilization_s: float
    steps: tuple[Step, ...]
    tolerance: float = TOLERANCE

    def faster(self, scale):
        """The same in a world where everything happens `scale` times as fast."""
        steps = tuple(Step(step.kind, step.value, step.period_s / scale) for step in self.steps)
        return Rules(self.stabilization_s / scale, steps, self.tolerance)


def rules(behavior):
    """One direction of a manifest's `behavior`, or of a ScaledObject's."""
    steps = tuple(Step(step["type"].lower(), step["value"], step["periodSeconds"]) for step in behavior["policies"])
    return Rules(behavior["stabilizationWindowSeconds"], steps, behavior.get("tolerance", TOLERANCE))


DEFAULT_UP = Rules(0.0, (Step("percent", 100, 15.0), Step("pods", 4, 15.0)))
DEFAULT_DOWN = Rules(300.0, (Step("percent", 100, 15.0),))


class HorizontalPodAutoscaler:
    """External metrics, each with an AverageValue as its target."""

    def __init__(self, *targets, least=1, most, up=DEFAULT_UP, down=DEFAULT_DOWN):
        self._targets, self._least, self._most = targets, least, most
        self._up, self._down = up, down
        self._recommended = []  # (when, number)
        self._changes = []  # (when, pods more or less)

    def sync(self, now_s, current, *values):
        """The number of pods from now on. values: of the metrics, in their order; None if one cannot be had."""
        if current == 0:
            return 0  # switched off: whoever scaled to zero has to wake it
        if current > self._most:
            desired = self._most
        elif current < self._least:
            desired = self._least
        else:
            proposed = self._proposed(current, values)
            desired = self._limited(now_s, current, self._stabilized(now_s, current, proposed))
        if desired != current:
            self._changes.append((now_s, desired - current))
        return desired

    def _proposed(self, current, values):
        """The largest of what the metrics ask for; with one of them missing, nothing below what there is."""
        known = [(value, target) for value, target in zip(values, self._targets, strict=True) if value is not None]
        proposed = [self._by(value, target, current) for value, target in known]
        if len(known) < len(self._targets):
            proposed.append(current)
        return max(proposed)

    def _by(self, value, target, current):
        ratio = value / (target * current)
        if 1.0 - self._down.tolerance <= ratio <= 1.0 + self._up.tolerance:
            return current
        return math.ceil(value / target)

    def _stabilized(self, now_s, current, proposed):
        """The least of what was recommended in the window for going up, the most of that for going down."""
        lowest = min([proposed, *(n for at, n in self._recommended if at > now_s - self._up.stabilization_s)])
        highest = max([proposed, *(n for at, n in self._recommended if at > now_s - self._down.stabilization_s)])
        longest = max(self._up.stabilization_s, self._down.stabilization_s)
        self._recommended = [(at, n) for at, n in self._recommended if at > now_s - longest] + [(now_s, proposed)]
        return min(max(current, lowest), highest)

    def _limited(self, now_s, current, wanted):
        if wanted > current:
            limits = [self._limit(now_s, current, step, +1) for step in self._up.steps]
            return min(wanted, max(*limits, current), self._most)
        if wanted < current:
            limits = [self._limit(now_s, current, step, -1) for step in self._down.steps]
            return max(wanted, min(*limits, current), self._least)
        return wanted

    def _limit(self, now_s, current, step, sign):
        start = current - sum(change for at, change in self._changes if at > now_s - step.period_s)
        if step.kind == "pods":
            return start + sign * step.value
        if sign > 0:
            return math.ceil(start * (1 + step.value / 100))
        return int(start * (1 - step.value / 100))


class Keda:
    """A ScaledObject: metrics for an autoscaler, and the way between 0 and 1.

    least: minReplicaCount. Below 1 the autoscaler's own least is 1, as KEDA sets it.
    """

    def __init__(self, *targets, least=1, most, up=DEFAULT_UP, down=DEFAULT_DOWN, cooldown_s=300.0):
        self._autoscaler = HorizontalPodAutoscaler(*targets, least=max(least, 1), most=most, up=up, down=down)
        self._least, self._cooldown_s = least, cooldown_s
        self._active_at_s = -math.inf

    def poll(self, now_s, current, *, active):
        """Every pollingInterval: wakes what sleeps, and sends to sleep what had nothing to do for cooldownPeriod."""
        if active:
            self._active_at_s = now_s
            return max(current, 1)
        if self._least == 0 and current > 0 and now_s - self._active_at_s > self._cooldown_s:
            return 0
        return current

    def sync(self, now_s, current, *values):
        """Every sync of the autoscaler."""
        return self._autoscaler.sync(now_s, current, *values)


@dataclass(frozen=True, slots=True)
class ScaledObject:
    """What a manifest says: of the two triggers one wakes, the other has the number."""

    least: int
    most: int
    polling_s: float
    cooldown_s: float
    up: Rules
    down: Rules
    lag_threshold: int
    query: str
    threshold: float

    @classmethod
    def read(cls, path):
        """From the overlay's YAML."""
        spec = yaml.safe_load(path.read_text())["spec"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        triggers = {trigger["type"]: trigger for trigger in spec["triggers"]}
        if any(trigger["metricType"] != "AverageValue" for trigger in triggers.values()):
            raise ValueError("only AverageValue is known here")
        return cls(
            spec["minReplicaCount"],
            spec["maxReplicaCount"],
            spec["pollingInterval"],
            spec["cooldownPeriod"],
            rules(behavior["scaleUp"]),
            rules(behavior["scaleDown"]),
            int(triggers["kafka"]["metadata"]["lagThreshold"]),
            triggers["prometheus"]["metadata"]["query"],
            float(triggers["prometheus"]["metadata"]["threshold"]),
        )

    def keda(self, *, least=None, scale=1.0):
        """Its loop, in a world where everything happens `scale` times as fast."""
        return Keda(
            self.lag_threshold,
            self.threshold,
            least=self.least if least is None else least,
            most=self.most,
            up=self.up.faster(scale),
            down=self.down.faster(scale),
            cooldown_s=self.cooldown_s / scale,
        )


def kafka_trigger(lag, lag_threshold, partitions):
    """The metric of KEDA's Kafka scaler, with allowIdleConsumers off."""
    return partitions * lag_threshold if lag // lag_threshold > partitions else lag
