"""What summaries cost a worker at full speed: `python -m tests.bench.summaries_under_load [--pairs N] …`.

A real broker, exactly once, one backlog. Worker after worker reads all of it, each in a group of its own and into
topics of its own: one with a summary topic, one without, in turns that change their order from pair to pair, so that
what the machine does meanwhile meets both. Of each run the stretch between a tenth of the backlog and its end counts.

Prints, of throughput and of CPU time per event, the ratio with to without summaries: the mean of the pairs' logarithms,
with its 95 % interval by Student's t. The bound is 3 % of throughput.
"""

import argparse
import json
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from scipy import stats

from app.wiring import training
from deploy.local.stack import Stack
from tests.bench.steady_load import churn_lane
from tests.integration.rig import read_all
from tests.integration.worker_process import running_worker

PARTITIONS = 4
LOOK_S = 0.1
WARM_SHARE = 0.1  # of the backlog, before the stretch that counts
CONFIDENCE = 0.95


@contextmanager
def topics(kafka, *kinds):
    """Fresh topics, gone afterwards: what twenty runs write is more than a disk should hold."""
    admin, names = AdminClient({"bootstrap.servers": kafka}), [f"{kind}.{uuid.uuid4().hex[:8]}" for kind in kinds]
    for made in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        made.result(30)
    try:
        yield names
    finally:
        for gone in admin.delete_topics(names).values():
            gone.result(30)


def used_s(process):
    times = process.cpu_times()
    return times.user + times.system


def drained(lane, events, folder, *, summaries):
    """One worker reads the backlog: (events per second, CPU seconds per million events, summaries written)."""
    with topics(lane.kafka, "predictions", "dead-letters", "summaries") as (output, dead_letters, summary_topic):
        monitoring = {"summary_topic": summary_topic} if summaries else {}
        settings = lane.with_outputs(output, dead_letters).settings(pipeline={"monitoring": monitoring})
        with running_worker(settings, folder) as worker:
            process, looks = psutil.Process(worker.pid), []
            while not looks or looks[-1][0] < events:
                time.sleep(LOOK_S)
                looks.append((int(worker.metrics().records()), time.monotonic(), used_s(process)))
                assert worker.lives, worker.tail()
            assert worker.stop() == 0
        written = len(read_all(lane.kafka, summary_topic))
    first = next(look for look in looks if look[0] >= WARM_SHARE * events)
    # the last look may come up to LOOK_S after the end: the one before it is the last that saw it at work
    last = looks[-2] if looks[-2][0] > first[0] else looks[-1]
    count, took_s, cpu_s = (now - then for now, then in zip(last, first, strict=True))
    return count / max(took_s, LOOK_S), 1e6 * cpu_s / max(count, 1), written


def ratio(with_summaries, without):
    """The mean ratio of pairs, and its interval."""
    logs = np.log(np.asarray(with_summaries) / np.asarray(without))
    around = stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, mean, high = np.exp([logs.mean() - around, logs.mean(), logs.mean() + around])
    return {"ratio": round(float(mean), 4), "from": round(float(low), 4), "to": round(float(high), 4)}


def measure(folder, pairs, events):
    """All runs; the page of figures."""
    store = folder / "store"
    training.train("churn", store=str(store), estimator=None, rows=20_000, seed=0, progress=lambda _: None)
    stack = Stack(folder / "stack")
    runs = {True: [], False: []}
    try:
        lane = churn_lane(stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"], store)
        lane.produce(events)
        drained(lane, events, folder / "warm", summaries=True)  # the first one meets cold caches
        for pair in range(pairs):
            for summaries in (False, True) if pair % 2 else (True, False):
                runs[summaries].append(drained(lane, events, folder / f"{pair}-{summaries}", summaries=summaries))
    finally:
        stack.down(wipe=True)
    speeds, cpu, written = ({how: [run[at] for run in runs[how]] for how in runs} for at in range(3))
    return {
        "pairs": pairs,
        "events": events,
        "summaries_written": written[True],
        "events_per_s": {"with": round(np.median(speeds[True])), "without": round(np.median(speeds[False]))},
        "cpu_s_per_million": {"with": round(np.median(cpu[True]), 3), "without": round(np.median(cpu[False]), 3)},
        "throughput": ratio(speeds[True], speeds[False]),
        "cpu": ratio(cpu[True], cpu[False]),
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10, help="at least 2")
    parser.add_argument("--events", type=int, default=2_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inference-summaries-") as folder:
        Console().print_json(json.dumps(measure(Path(folder), max(2, options.pairs), options.events)))


if __name__ == "__main__":
    main()
