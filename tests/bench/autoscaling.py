"""Scaling policies side by side in a simulation: `python -m tests.bench.autoscaling [--write]`; a few seconds.

Every load shape, by the rules of `scaling_world`: our number through the KEDA overlay's own ScaledObject, KEDA's Kafka
trigger with several lagThresholds, and a fixed fleet for the peak. Then the spike at thirty moments between two looks,
two scrapes and two syncs, because luck with them is worth half a minute. Seeded: it prints the same every time.
"""

import argparse
import math
import statistics

from rich.console import Console

from tests.bench import load_shapes, scaling_report
from tests.bench.scaling_world import Fixed, Outcome, PlainLag, World, ours, run

THRESHOLDS = (10, 5_000, 50_000, 100_000, 150_000)  # KEDA's default; 1, 10, 20 and 30 s of one process's work
PHASES = 30
PLOTTED = ("ours", "lag / 50,000", "lag / 150,000")


def fleet_for(world, shape, utilization=0.8):
    """Processes for a shape's peak, as many as share the partitions evenly enough."""
    wanted = world.rate * shape.peak() / world.capacity / utilization
    each = max(1, math.floor(world.partitions / wanted))
    return math.ceil(world.partitions / each)


def compare(world, shape):
    """Policy's name → outcome."""
    policies = [ours(world), *(PlainLag(world, threshold) for threshold in THRESHOLDS), Fixed(fleet_for(world, shape))]
    return {policy.name: run(world, shape, policy) for policy in policies}


def spikes(world, policy_of, phases=PHASES):
    """The outcomes and recoveries of a spike that begins half a second later each time."""
    found = []
    for phase in range(phases):
        shape = load_shapes.spike(begins_s=600.0 + phase / 2)
        outcome = run(world, shape, policy_of(), seed=phase)
        found.append((outcome, outcome.recovery_s(shape.spike)))
    return found


def phases_table(world):
    """Markdown: the middle and the worst of every policy over all phases."""
    shape = load_shapes.spike()
    makers = {"ours": lambda: ours(world)}
    makers |= {f"lag / {threshold:,}": lambda t=threshold: PlainLag(world, t) for threshold in THRESHOLDS}
    makers["fixed"] = lambda: Fixed(fleet_for(world, shape))
    lines = [
        "| policy | recovery, median | worst | worst lag | pod-seconds, median | most | turns, most |",
        f"|---|{'---:|' * 6}",
    ]
    for name, make in makers.items():
        found = spikes(world, make)
        outcomes, recoveries = [outcome for outcome, _ in found], [recovery for _, recovery in found]
        cells = [
            _seconds(statistics.median(recoveries)),
            _seconds(max(recoveries)),
            _seconds(max(outcome.worst_lag_s for outcome in outcomes)),
            f"{statistics.median(outcome.paid_s for outcome in outcomes):,.0f}",
            f"{max(outcome.paid_s for outcome in outcomes):,.0f}",
            str(max(outcome.turns for outcome in outcomes)),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _seconds(value):
    return "never" if math.isinf(value) else f"{value:.0f} s"


def plotted(outcomes: dict[str, Outcome]):
    """Those worth a line: ours, two thresholds, the fixed fleet."""
    return {name: outcome for name, outcome in outcomes.items() if name in PLOTTED or name.startswith("fixed")}


def main():
    """Print the tables; with --write, put them and the plots where docs/SCALING.md has them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/")
    asked = parser.parse_args()
    world, console = World(), Console()
    shapes = {name: make() for name, make in load_shapes.SHAPES.items()}
    found = {name: compare(world, shape) for name, shape in shapes.items()}
    rows = scaling_report.rows(found, shapes)
    scaling_report.show(console, rows)
    phases = phases_table(world)
    console.print(phases, markup=False)
    if asked.write:
        table = f"{scaling_report.markdown(rows)}\n\nThe spike, at {PHASES} moments:\n\n{phases}"
        lines = {name: plotted(outcomes) for name, outcomes in found.items()}
        scaling_report.write("simulated", lines, table, "`python -m tests.bench.autoscaling --write`")


if __name__ == "__main__":
    main()
