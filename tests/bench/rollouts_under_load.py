"""Models change under load, measured: `python -m tests.bench.rollouts_under_load`.

A real broker, one worker, exactly once. Under a steady stream: a stretch in which nothing changes, then 20 swaps, 5
blue-green switches and their rollbacks, one full canary, 30 more swaps, another quiet stretch. Afterwards loadgen
verifies every record, and this prints what the changes cost.

Three pauses are told, each for the second around every change and, to compare, for as many seconds in which nothing
changed: the longest turn of the worker's loop, all of it and without the calls that commit its transaction, and the
longest time in which no prediction was produced, by the record timestamps of the predictions (where commits and the
broker show as well).
"""

import argparse
import json
import math
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import psutil
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console

from app.wiring import training
from deploy.local.stack import Stack
from tests.bench.steady_load import churn_lane, events
from tests.integration.rig import Lane
from tests.integration.worker_process import WorkerProcess, running_worker
from tests.made_pages import blue_green_page, canary_page, put, stable_page

POLL_S = 0.2
QUIET_S = 15.0
SWAPS, MORE_SWAPS, SWITCHES = 20, 30, 5
STEPS = (5, 25, 50, 100)
AROUND_S = 0.5  # of a change, on both sides
Z99 = 2.5758
WARM_UP_S = 5.0


@dataclass
class Run:
    """What was noted on the way. Revisions rise by one with each change."""

    lane: Lane
    worker: WorkerProcess
    revision: int = 1
    took_s: list[float] = field(default_factory=list)  # from the page's change to its being in force
    shares: list[dict] = field(default_factory=list)

    def change(self, page, hold_s):
        """Make a page the one in force, wait until it is, and for as long again as asked."""
        began = time.monotonic()
        put(self.lane.store, page)
        while self.worker.metrics().total("inference_rollout_revision") != page.revision:
            assert time.monotonic() - began < 30, f"revision {page.revision} is not taken: {self.worker.tail()}"
            time.sleep(0.01)
        self.took_s.append(time.monotonic() - began)
        time.sleep(hold_s)

    def next(self):
        self.revision += 1
        return self.revision

    def rss(self):
        """Of the worker in bytes, the median of a second."""
        process = psutil.Process(self.worker.pid)
        found = []
        for _ in range(10):
            found.append(process.memory_info().rss)
            time.sleep(0.1)
        return sorted(found)[len(found) // 2]

    def answers(self):
        """(by the canary, by anybody) so far."""
        metrics, name = self.worker.metrics(), "inference_answers_total"
        return metrics.total(name, answered_by="canary"), metrics.total(name)

    def swaps(self, count, hold_s):
        for number in range(count):
            self.change(stable_page(str(1 + (number + 1) % 3), self.next()), hold_s)

    def switches(self, hold_s):
        self.change(blue_green_page("1", "2", self.next()), hold_s)
        for _ in range(SWITCHES):
            self.change(blue_green_page("2", "1", self.next(), previous="1"), hold_s)
            self.change(blue_green_page("1", "2", self.next(), previous="2"), hold_s)

    def canary(self, hold_s):
        for percent in STEPS:
            page = canary_page("1", "2", percent, self.next())
            self.change(page, 1.0)  # what was decided before is committed by now
            before = self.answers()
            time.sleep(hold_s)
            canary, everything = (after - then for after, then in zip(self.answers(), before, strict=True))
            self.shares.append(share(percent, canary, everything))
        self.change(stable_page("2", self.next(), previous="1"), hold_s)


def share(percent, count, total):
    """What a step of the canary got, beside the interval in which 99 % of such samples lie."""
    p = percent / 100
    half = 100 * Z99 * math.sqrt(p * (1 - p) / total)
    found = 100 * count / total
    inside = abs(found - percent) <= half + 1e-9
    return {"asked": percent, "found": round(found, 3), "plus_minus": round(half, 3), "of": int(total), "ok": inside}


def produced_at_ms(lane):
    """When each prediction was produced, sorted."""
    consumer = Consumer(
        {
            "bootstrap.servers": lane.kafka,
            "group.id": "pauses",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(lane.output, timeout=30).topics[lane.output].partitions
    consumer.assign([TopicPartition(lane.output, partition, 0) for partition in partitions])
    found, ended = [], 0
    while ended < len(partitions):
        for message in consumer.consume(10_000, 1.0):
            if message.error():
                ended += 1
            else:
                found.append(message.timestamp()[1])
    consumer.close()
    return np.sort(np.array(found, np.int64))


def longest(begins_ms, lasts_ms, moments_ms):
    """Of what begins in the second around each moment, how long the longest lasts, in milliseconds."""
    found = []
    for moment in moments_ms:
        first, last = np.searchsorted(begins_ms, [moment - AROUND_S * 1000, moment + AROUND_S * 1000])
        found.append(float(lasts_ms[first:last].max(initial=0)))
    return found


def worst_and_median(values):
    return {"worst_ms": max(values), "median_ms": float(np.median(values))}


def measure(folder, rate):
    """One run; the page of figures."""
    store = folder / "store"
    for seed in range(3):
        training.train("churn", store=str(store), estimator=None, rows=20_000, seed=seed, progress=lambda _: None)
    put(store, stable_page("1"))
    stack = Stack(folder / "stack")
    kafka = stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"]
    try:
        lane = churn_lane(kafka, store)
        settings = lane.settings(models={"rollout_poll_s": POLL_S})
        turns = folder / "turns"
        timed = {"module": "tests.bench.turn_times", "TURNS_FILE": str(turns)}
        with running_worker(settings, folder / "worker", **timed) as worker:
            return _under_load(Run(lane, worker), rate, turns)
    finally:
        stack.down(wipe=True)


def _under_load(run, rate, turns):
    worker, lane = run.worker, run.lane
    worker.wait_until_assigned()
    with events(lane, rate):
        worker.wait_for_records(1)
        time.sleep(WARM_UP_S)
        before_bytes, began = run.rss(), time.time()
        seen = worker.metrics().records()
        time.sleep(QUIET_S)
        quiet = began, time.time()
        run.swaps(SWAPS, 1.2)
        run.switches(1.2)
        run.canary(4.0)
        run.swaps(MORE_SWAPS, 0.6)
        time.sleep(2 * POLL_S + 1)  # the last version that was swapped out goes with the next look
        after_bytes, ended = run.rss(), time.time()
        done = worker.metrics().records() - seen
    verdict = lane.verify(sample=2_000, timeout_s=600)
    metrics = worker.metrics()
    moments = [1000 * datetime.fromisoformat(line["timestamp"]).timestamp() for line in worker.said("rollout")[1:]]
    assert worker.stop() == 0
    times = produced_at_ms(lane)
    calm = [1000 * at for at in np.linspace(quiet[0] + AROUND_S, quiet[1] - AROUND_S, len(moments))]
    begins, lasts, waits = np.loadtxt(turns, ndmin=2).reshape(-1, 3).T
    gaps = times[:-1], np.diff(times)
    return {
        "events_per_s": round(done / (ended - began)),
        "events": verdict.inputs,
        "violations": [f"{found.kind}: {found.count}" for found in verdict.violations],
        "changes": len(moments),
        "longest_turn_around_a_change": worst_and_median(longest(begins, lasts, moments)),
        "longest_turn_while_quiet": worst_and_median(longest(begins, lasts, calm)),
        "longest_turn_without_commits_around_a_change": worst_and_median(longest(begins, lasts - waits, moments)),
        "longest_turn_without_commits_while_quiet": worst_and_median(longest(begins, lasts - waits, calm)),
        "no_prediction_around_a_change": worst_and_median(longest(*gaps, moments)),
        "no_prediction_while_quiet": worst_and_median(longest(*gaps, calm)),
        "slowest_change_in_force_s": round(max(run.took_s), 3),
        "poll_s": POLL_S,
        "rebalances": {kind: count for (kind,), count in metrics.of("inference_rebalances_total", "kind").items()},
        "rollout_errors": metrics.total("inference_rollout_errors_total"),
        "canary": run.shares,
        "rss_before_mb": round(before_bytes / 1e6, 1),
        "rss_after_50_swaps_mb": round(after_bytes / 1e6, 1),
        "rss_change_percent": round(100 * (after_bytes / before_bytes - 1), 1),
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=50_000, help="events per second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inference-rollouts-") as folder:
        Console().print_json(json.dumps(measure(Path(folder), options.rate)))


if __name__ == "__main__":
    main()
