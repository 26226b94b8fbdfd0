"""What a snapshot for the live page costs its process: `python -m tests.bench.live_page [--partitions 4 100 1000]`.

CPU time of the thread that makes it, which the worker's own threads have to wait for; the least of many, because other
programs on the machine only add to it.
"""

import argparse
import time

from rich.console import Console

from app.facts import Lag
from app.observe.look import OneProcess
from app.observe.snapshot import Snapshots
from app.records import TopicPartition
from tests.fakes import ManualClock
from tests.made_worker import TOPIC, MadeWorker, outcomes

LOOKS = 60


def cost_s(partitions):
    """Seconds of one snapshot of a worker that owns so many partitions, all of them behind."""
    worker, clock = MadeWorker(), ManualClock()
    worker.serve_versions(stable="1")
    worker.work(outcomes(rows=500))
    worker.metrics.lag["churn"] = {
        TopicPartition(TOPIC, number): Lag(number % 7 * 10, float(number % 7)) for number in range(partitions)
    }
    snapshots = Snapshots(OneProcess(worker.metrics), worker.facts, clock)
    least_s = float("inf")
    for _ in range(LOOKS):
        clock.advance(1)
        began_s = time.thread_time()
        snapshots.make(alive=None, ready=None)
        least_s = min(least_s, time.thread_time() - began_s)
    return least_s


def main():
    """Print a line for each number of partitions."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--partitions", type=int, nargs="+", default=[4, 100, 1_000])
    console = Console()
    for partitions in parser.parse_args().partitions:
        console.print(f"{partitions:6,} partitions  {cost_s(partitions) * 1000:.2f} ms")


if __name__ == "__main__":
    main()
