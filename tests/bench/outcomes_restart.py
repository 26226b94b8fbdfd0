"""How long the monitor needs for a backlog of outcomes, and to be back: `python -m tests.bench.outcomes_restart`.

A real broker, a topic of outcomes that is there from the start (`--labels`), and the predictions of the sample
(`--share` of the keys). The monitor reads all of it from the beginning; then it is killed, and started again.

Prints how many labels a second it went through, at what CPU time, and how many were judged; and how long from the
second start to ready, with all that waits and all that was judged restored.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import psutil
from confluent_kafka import Producer
from rich.console import Console

from app.kafka.sample import sampled_rows
from app.wiring import training
from deploy.local.stack import Stack
from loadgen.bench.broker import create
from loadgen.kafka_client import KafkaOptions
from tests.integration.rig import SCHEMAS
from tests.integration.worker_process import running_worker, wait_until
from tests.made_summaries import framed

WITHIN_S = 1_800.0


def write(kafka, sample_topic, outcome_topic, labels, share):
    """Outcomes of all customers, and predictions of those in the sample; returns how many these are."""
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 0,
            "linger.ms": 20,
        }
    )
    now_ms, keys = int(time.time() * 1000), [f"c{number:08}".encode() for number in range(labels)]
    for key in keys:
        outcome = {"customer_id": key.decode(), "event_time": now_ms, "churned": True, "observed_at": now_ms}
        _produce(producer, outcome_topic, key, framed(outcome, "ChurnOutcome"))
    chosen = sampled_rows(keys, share).tolist()
    for number in chosen:
        prediction = {
            "customer_id": keys[number].decode(), "prediction": 1, "will_churn": True, "probability": 0.9,
            "confidence": 0.9, "model_name": "churn", "model_version": "1", "model_digest": "d",
            "answered_by": "stable", "rollout_revision": 1, "source_topic": "e", "source_partition": 0,
            "source_offset": number, "event_time": now_ms, "predicted_at": now_ms,
        }  # fmt: skip
        _produce(producer, sample_topic, keys[number], framed(prediction, "ChurnPrediction"))
    assert producer.flush(120) == 0
    return len(chosen)


def _produce(producer, topic, key, value):
    while True:
        try:
            return producer.produce(topic, value, key)
        except BufferError:
            producer.poll(0.1)


def measure(folder, labels, share):
    """The page of figures."""
    store = folder / "store"
    training.train("churn", store=str(store), estimator=None, rows=5_000, seed=0, progress=lambda _: None)
    stack = Stack(folder / "stack")
    kafka = stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"]
    try:
        names = [f"restart.{kind}" for kind in ("summaries", "sampled", "outcomes")]
        create(KafkaOptions(kafka), names)
        pairs = write(kafka, names[1], names[2], labels, share)
        return _measured(settings(kafka, store, names, share), folder, labels, pairs)
    finally:
        stack.down(wipe=True)


def settings(kafka, store, names, share):
    """Of a monitor whose windows keep all of it."""
    monitoring = {"summary_topic": names[0], "sample_topic": names[1], "sample_share": share}
    return {
        "kafka": {"bootstrap_servers": kafka},
        "schemas": {"directory": str(SCHEMAS)},
        "pipelines": [
            {"name": "churn", "input_topics": ["e"], "output_topic": "p", "dead_letter_topic": "d", "model": "churn",
             "monitoring": monitoring}
        ],
        "monitor": {"group_id": f"restart-{time.time_ns()}", "most_waiting_keys": 2_000_000,
                    "outcomes": {"churn": {"topic": names[2], "record": "ChurnOutcome", "label": "churned"}}},
        "models": {"store": f"file://{store}"}, "http": {"port": 0}, "log": {"format": "json"},
    }  # fmt: skip


def used_s(process):
    """CPU seconds of it."""
    times = process.cpu_times()
    return times.user + times.system


def _measured(settings, folder, labels, pairs):
    with running_worker(settings, folder / "monitor", command="monitor") as monitor:
        monitor.wait_until_ready()
        process, begun = psutil.Process(monitor.pid), time.monotonic()
        before_s = used_s(process)
        wait_until(
            lambda: monitor.metrics().total("inference_monitor_outcomes_total", result="paired") >= pairs
            and monitor.metrics().total("inference_monitor_lag_records") == 0,
            "everything to be judged", WITHIN_S,
        )  # fmt: skip
        took_s, cpu_s = time.monotonic() - begun, used_s(process) - before_s
        time.sleep(2)  # offsets are committed every second
        monitor.kill()
    begun = time.monotonic()
    with running_worker(settings, folder / "monitor", command="monitor") as monitor:
        monitor.wait_until_ready()
        back_s = time.monotonic() - begun
        monitor.kill()
    return {
        "labels": labels,
        "pairs": pairs,
        "seconds": round(took_s, 1),
        "labels_per_s": round(labels / took_s),
        "cpu_seconds": round(cpu_s, 1),
        "seconds_from_a_start_after_kill_9_to_ready": round(back_s, 1),
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.01, help="of the keys, in the sample")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inference-outcomes-") as folder:
        Console().print_json(json.dumps(measure(Path(folder), options.labels, options.share)))


if __name__ == "__main__":
    main()
