"""The latency objective while the cache's Redis is killed and suspended: `python -m tests.bench.redis_killed`.

A real broker, a real Redis that every batch asks (nothing is kept in the process), one worker, exactly once, with
`batch.slo_s: 0.1`. Under a steady stream Redis is killed and started again, suspended and woken again. For each
stretch this prints which share of the records was committed within 0.1 s of their own timestamps, by the worker's
latency histogram, and what became of the look-ups. Afterwards loadgen verifies every record.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from rich.console import Console

from app.wiring import training
from deploy.local.redis_server import RedisServer
from deploy.local.stack import Stack
from tests.bench.steady_load import churn_lane, events
from tests.integration.worker_process import running_worker

OBJECTIVE_S = 0.1
LATENCY = "inference_end_to_end_latency_seconds"
LOOK_UPS = "inference_cache_lookups_total"
WARM_UP_S, SETTLE_S = 5.0, 1.0


def counted(worker):
    """(records so far, of them within the objective, look-ups by result)."""
    metrics = worker.metrics()
    look_ups = {result: count for (result,), count in metrics.of(LOOK_UPS, "result").items()}
    return metrics.total(f"{LATENCY}_count"), metrics.total(f"{LATENCY}_bucket", le=str(OBJECTIVE_S)), look_ups


def stretch(worker, name, lasts_s):
    """What happened in this time."""
    before = counted(worker)
    time.sleep(lasts_s)
    after = counted(worker)
    records = after[0] - before[0]
    on_time = (after[1] - before[1]) / records if records else 0.0
    look_ups = {result: round(count - before[2].get(result, 0)) for result, count in after[2].items()}
    return {"redis": name, "records": round(records), "within_objective": round(on_time, 5), "look_ups": look_ups}


def measure(folder, rate, lasts_s):
    """One run; the page of figures."""
    store = folder / "store"
    training.train("churn", store=str(store), estimator=None, rows=20_000, seed=0, progress=lambda _: None)
    stack, redis = Stack(folder / "stack"), RedisServer(folder / "redis")
    kafka = stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"]
    redis.start()
    try:
        lane = churn_lane(kafka, store)
        settings = lane.settings(
            pipeline={"batch": {"slo_s": OBJECTIVE_S}},
            models={"cache": {"enabled": True, "max_bytes": 0, "redis_url": redis.url}},
        )
        with running_worker(settings, folder / "worker") as worker:
            return _under_load(worker, lane, redis, rate, lasts_s)
    finally:
        redis.process.resume()  # a suspended one could not be stopped
        redis.stop()
        stack.down(wipe=True)


def _under_load(worker, lane, redis, rate, lasts_s):
    worker.wait_until_assigned()
    with events(lane, rate):
        worker.wait_for_records(1)
        time.sleep(WARM_UP_S)
        stretches = [stretch(worker, "up", lasts_s)]
        for name, away, back in (
            ("killed", redis.kill, redis.start),
            ("suspended", redis.process.suspend, redis.process.resume),
        ):
            away()
            stretches.append(stretch(worker, name, lasts_s))
            back()
            stretches.append(stretch(worker, f"back after it was {name}", lasts_s))
        time.sleep(SETTLE_S)
    verdict = lane.verify(sample=2_000, timeout_s=600)
    assert worker.stop() == 0
    violations = [f"{found.kind}: {found.count}" for found in verdict.violations]
    return {"rate": rate, "objective_s": OBJECTIVE_S, "events": verdict.inputs, "violations": violations} | {
        "stretches": stretches
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=5_000, help="events per second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each of the five stretches")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inference-redis-") as folder:
        Console().print_json(json.dumps(measure(Path(folder), options.rate, options.seconds)))


if __name__ == "__main__":
    main()
