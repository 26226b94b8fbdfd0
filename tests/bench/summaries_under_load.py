"""What summaries cost a worker at full speed: `python -m tests.bench.summaries_under_load [--pairs N] …`.

A real broker, exactly once, one backlog, and two workers at once that read all of it (`paired_workers`), each in a
group and into topics of its own: one with a summary topic, one without. Which starts first changes from pair to pair.

Prints, of throughput and of CPU time per event, the ratio with to without summaries: geometric mean over the pairs,
with its 95 % interval. The bound is 3 % of throughput.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from rich.console import Console

from app.wiring import training
from deploy.local.stack import Stack
from tests.bench.paired_workers import compared, pair_at_once, topics
from tests.bench.steady_load import churn_lane
from tests.integration.rig import read_all


def pair(lane, events, folder, *, summed_first):
    """(The stretch of the one with summaries, of the one without, summaries written)."""
    with topics(lane.kafka, "predictions", "dead-letters", "summaries", "predictions", "dead-letters") as names:
        monitoring = {"monitoring": {"summary_topic": names[2]}}
        with_them = lane.with_outputs(*names[:2]).settings(pipeline=monitoring)
        without = lane.with_outputs(*names[3:]).settings()
        both = pair_at_once(with_them, without, events, folder, one_first=summed_first)
        return *both, len(read_all(lane.kafka, names[2]))


def measure(folder, pairs, events):
    """All runs; the page of figures."""
    store = folder / "store"
    training.train("churn", store=str(store), estimator=None, rows=20_000, seed=0, progress=lambda _: None)
    stack = Stack(folder / "stack")
    try:
        lane = churn_lane(stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"], store)
        lane.produce(events)
        runs = [pair(lane, events, folder / str(at), summed_first=at % 2 == 0) for at in range(pairs)]
    finally:
        stack.down(wipe=True)
    summed, without, written = zip(*runs, strict=True)
    return {
        "pairs": pairs,
        "events": events,
        "summaries_written": statistics.median(written),
        "cpu_us": {
            how: round(statistics.median(one.cpu_us for one in side), 3)
            for how, side in (("with", summed), ("without", without))
        },
        "throughput": compared(summed, without, "events_per_s"),
        "cpu": compared(summed, without, "cpu_us"),
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--events", type=int, default=3_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inference-summaries-") as folder:
        Console().print_json(json.dumps(measure(Path(folder), options.pairs, options.events)))


if __name__ == "__main__":
    main()
