"""Autoscaling shown on real processes: `python -m tests.bench.autoscaling_shown [--shapes spike …] [--write]`.

A real Kafka, real workers with a model of fixed cost (about 5,000 events a second each), the real `inference-worker
lag`, scraped with the workers by a real Prometheus, which answers the KEDA overlay's own query. The documented
algorithm of KEDA and the Horizontal Pod Autoscaler starts and stops workers. Three ways to scale, under the same loads:

ours          the overlay's ScaledObject, as it is in deploy/kubernetes
lag           KEDA's Kafka trigger by itself, with everything at its default but lagThreshold: 10 s of a process's work
fixed         the fleet for the peak

Everything runs `--scale` times as fast as it would: the periods of the loop, of the exporter and of its policy are
that much shorter. Workers start and rebalance as fast as they can, which is slower in that measure. The lag is judged
by a client that asks the broker by itself. ours and fixed run side by side; lag runs after them, because it starts so
many processes at once that two cores would not start ours in time.
"""

import argparse
import math
import shutil
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from app.wiring import training
from deploy.local.prometheus_server import PrometheusServer
from deploy.local.stack import Stack
from tests.bench import load_shapes, scaling_report
from tests.bench.autoscaler import DEFAULT_DOWN, DEFAULT_UP, OVERLAY, SYNC_S, Keda, ScaledObject, kafka_trigger
from tests.bench.scaled_fleet import (
    Fleet,
    Load,
    Progress,
    Targets,
    free_of_signals,
    lanes,
    prometheus_configuration,
)
from tests.bench.scaling_world import LATE_S, Outcome
from tests.integration.worker_process import WorkerProcess, wait_until

GROUP = "churn-workers"  # as the overlay's query has it; here each fleet has a group of its own
PARTITIONS = 12
CAPACITY = 5_000.0
RATE = 4_000.0
FIXED = 6  # 5 x 4,000 a second at 80 % of 5,000; of 12 partitions five processes would do no more than four
THRESHOLD_S = 10.0  # lagThreshold, in seconds of one process's work
TICK_S = 0.5
FIXED_MAY_BE_LATE = 0.02  # of the time; it never scales, so that more is the machine's doing

# Shorter than in the simulation, seconds before they are divided by the scale.
SHAPES = {
    "spike": lambda: load_shapes.spike(begins_s=40.0, ends_s=340.0, lasts_s=560.0),
    "steady": lambda: load_shapes.steady(lasts_s=360.0),
    "ramp": lambda: load_shapes.ramp(begins_s=30.0, top_s=360.0, lasts_s=600.0),
    "diurnal": lambda: load_shapes.diurnal(day_s=600.0, days=1),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run is made with. policy: seconds at scale 1; what is absent has its default."""

    scale: float = 2.0
    rate: float = RATE
    capacity: float = CAPACITY
    partitions: int = PARTITIONS
    policy: dict = field(default_factory=dict)

    def processes_for(self, times):
        """The fewest that keep up with so many times the rate."""
        return math.ceil(times * self.rate / self.capacity)

    def lag_settings(self):
        """The exporter's section: its periods as short as everything's."""
        defaults = {
            "drain_target_s": 120.0,
            "reaction_s": 30.0,
            "rebalance_pause_s": 3.0,
            "hold_s": 180.0,
            "rise_s": 5.0,
            "fall_s": 60.0,
            "capacity_memory_s": 60.0,
        }
        seconds = {name: self.policy.get(name, value) / self.scale for name, value in defaults.items()}
        scaling = {"capacity_per_process": self.capacity, "max_replicas": self.partitions, "min_replicas": 0} | seconds
        return {"poll_s": max(0.5, 5.0 / self.scale), "scaling": scaling}


class Fixed:
    """Changes nothing."""

    def __init__(self, size):
        self.name, self.first = "fixed", size

    def size(self, now_s, current, lag):
        return current


class PlainLag:
    """KEDA's Kafka trigger by itself, asked at every sync."""

    name, first = "lag", None

    def __init__(self, setting):
        self._partitions, self._sync_s = setting.partitions, SYNC_S / setting.scale
        self._threshold = round(setting.capacity * THRESHOLD_S / setting.scale)
        up, down = DEFAULT_UP.faster(setting.scale), DEFAULT_DOWN.faster(setting.scale)
        self._keda = Keda(self._threshold, most=setting.partitions, up=up, down=down)
        self._next_s = self._sync_s

    def size(self, now_s, current, lag):
        if now_s < self._next_s:
            return current
        self._next_s += self._sync_s
        return self._keda.sync(now_s, current, kafka_trigger(lag, self._threshold, self._partitions))


class Ours:
    """The overlay's ScaledObject; its number comes from Prometheus, by its own query."""

    name, first = "ours", None

    def __init__(self, world):
        setting = world.setting
        self._overlay, self._prometheus = ScaledObject.read(OVERLAY), world.prometheus
        self._query = world.query(self._overlay)
        self._sync_s, self._poll_s = SYNC_S / setting.scale, self._overlay.polling_s / setting.scale
        self._keda = self._overlay.keda(scale=setting.scale)
        self._next_s, self._next_poll_s = self._sync_s, 0.0

    def size(self, now_s, current, lag):
        if now_s >= self._next_poll_s:
            self._next_poll_s += self._poll_s
            number = self._number()
            current = self._keda.poll(now_s, current, active=lag > 0 or bool(number))
        if now_s < self._next_s:
            return current
        self._next_s += self._sync_s
        return self._keda.sync(now_s, current, lag, self._number())

    def _number(self):
        """None if no series answers: an error to KEDA, which then takes nobody away."""
        found = self._prometheus.query(self._query)
        return found[0].value if found else None


class World:
    """A broker, a Prometheus and the exporter, in a directory; as a context manager they run."""

    def __init__(self, folder, setting, kafka, store, names):
        self.folder, self.setting = folder, setting
        self.lanes = lanes(kafka, store, names, setting.partitions)
        self.groups = {name: f"{GROUP}-{name}-{uuid.uuid4().hex[:12]}" for name in names}
        self.kafka = kafka
        self._targets = Targets(folder / "targets.json")
        lane = next(iter(self.lanes.values()))
        settings = lane.settings(kafka={"group_id": self.groups[names[0]]}) | {"lag": setting.lag_settings()}
        self._exporter_settings = settings
        self.prometheus = None

    def __enter__(self):
        self.exporter = WorkerProcess(self._exporter_settings, self.folder / "exporter", command="lag")
        configuration = prometheus_configuration(
            self.folder, lag_port=self.exporter.port, scrape_s=5.0 / self.setting.scale, targets=self._targets.path
        )
        self.prometheus = PrometheusServer(self.folder / "prometheus", configuration)
        self.prometheus.start()
        return self

    def __exit__(self, *_):
        if self.prometheus:
            self.prometheus.stop()
        self.exporter.kill()

    def query(self, overlay):
        """The overlay's, for the group that the exporter watches here."""
        watched = next(iter(self.groups.values()))
        asked = overlay.query.replace(f'"{GROUP}"', f'"{watched}"')
        if asked == overlay.query:
            raise ValueError(f"{overlay.query} does not ask for {GROUP}")
        return asked

    def fleet(self, name):
        setting = self.setting
        return Fleet(name, self.lanes[name], self.groups[name], self.folder / "fleets", capacity=setting.capacity)

    def run(self, shape, policies, *, tell=lambda *_: None):
        """Policy's name → outcome, of one load that all of them get. Times in the outcomes are real seconds."""
        fleets = {policy.name: self.fleet(policy.name) for policy in policies}
        outcomes = {policy.name: Outcome(policy.name) for policy in policies}
        lane = next(iter(self.lanes.values()))
        load = Load(lane, lambda now_s: self.setting.rate * shape.at(now_s))
        progress = Progress(self.kafka, lane.inputs[0], [self.groups[name] for name in fleets])
        try:
            for policy in policies:
                fleets[policy.name].scale(policy.first or self.setting.processes_for(shape.at(0.0)))
            for fleet in fleets.values():
                fleet.wait_until_assigned()
            load.start()
            wait_until(lambda: self._nobody_is_late(progress), "everybody to work, and the first number to be there")
            load.begin()
            self._loop(shape, policies, fleets, outcomes, progress, tell)
            for fleet in fleets.values():
                if fleet.dead:
                    raise RuntimeError("\n".join(fleet.dead))
        finally:
            load.stop()
            progress.close()
            for fleet in fleets.values():
                fleet.stop()
        return outcomes

    def _nobody_is_late(self, progress):
        """And the exporter's first number is there."""
        looks = progress.look().values()
        shown = self.prometheus.query(self.query(ScaledObject.read(OVERLAY)))
        return bool(shown) and all(0 < lag < self.setting.rate * LATE_S for lag, _ in looks)

    def _loop(self, shape, policies, fleets, outcomes, progress, tell):
        started, last_s, came = time.monotonic(), 0.0, progress.arrived()
        while (now_s := time.monotonic() - started) < shape.lasts_s:
            looks = progress.look()
            rate, came = (progress.arrived() - came) / max(now_s - last_s, TICK_S), progress.arrived()
            for policy in policies:
                fleet, outcome = fleets[policy.name], outcomes[policy.name]
                lag, lag_s = looks[fleet.group_id]
                outcome.seconds.append(now_s)
                outcome.lag_s.append(lag_s)
                outcome.replicas.append(fleet.paid)
                outcome.arrivals.append(rate)
                outcome.paid_s += fleet.paid * (now_s - last_s)
                before = fleet.size
                size = policy.size(now_s, before, lag)
                if size != before:
                    outcome.changes.append((now_s, size - before))
                    fleet.scale(size)
                    tell(now_s, policy.name, lag, lag_s, before, size)
            self._targets.write({name: fleet.ports for name, fleet in fleets.items()})
            last_s = now_s
            time.sleep(max(0.0, started + now_s + TICK_S - time.monotonic()))


def measure(folder, name, setting, tell):
    """Policy's name → its outcome under that shape."""
    store = folder / "store"
    training.train("churn", store=str(store), estimator=None, rows=20_000, seed=0, progress=lambda _: None)
    shape = SHAPES[name]().faster(setting.scale)
    found = {}
    for side in (("ours", "fixed"), ("lag",)):
        place = folder / f"{name}-{side[0]}"
        place.mkdir()
        stack = Stack(place / "stack")
        try:
            kafka = stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"]
            with World(place, setting, kafka, store, side) as world:
                policies = [_policy(each, world) for each in side]
                found |= world.run(shape, policies, tell=tell)
        finally:
            stack.down(wipe=True)
    return found


def _no_slower_than_the_load(name, outcomes):
    if outcomes["fixed"].late_share > FIXED_MAY_BE_LATE:
        sys.exit(f"{name}: the fleet for the peak fell behind: the machine has no time, and nothing is shown")


def _policy(name, world):
    if name == "ours":
        return Ours(world)
    return PlainLag(world.setting) if name == "lag" else Fixed(FIXED)


def main():
    """Print the table; with --write, put it and the plots where docs/SCALING.md has them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--out", type=Path, help="the runs as JSON, second by second; shapes it has are not run again")
    parser.add_argument("--write", action="store_true", help="into docs/")
    asked = parser.parse_args()
    free_of_signals()
    console = Console()

    def tell(now_s, name, lag, lag_s, before, size):
        console.print(f"{now_s:6.1f} s  {name:6} {before} -> {size}   lag {lag:,}, {lag_s:.1f} s")

    found = scaling_report.from_json(asked.out.read_text()) if asked.out and asked.out.exists() else {}
    for name in [name for name in asked.shapes if name not in found]:
        folder = Path(tempfile.mkdtemp(prefix="autoscaling-"))
        try:
            found[name] = measure(folder, name, Setting(scale=asked.scale), tell)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        _no_slower_than_the_load(name, found[name])
        if asked.out:
            asked.out.write_text(scaling_report.as_json(found))
    rows = scaling_report.rows(found, {name: SHAPES[name]().faster(asked.scale) for name in found})
    scaling_report.show(console, rows)
    if asked.write:
        words = f"Seconds are real ones; everything ran {asked.scale:g} times as fast as it would."
        scaling_report.write("shown", found, scaling_report.markdown(rows), words)


if __name__ == "__main__":
    main()
