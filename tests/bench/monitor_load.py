"""What the monitor costs: `python -m tests.bench.monitor_load BOOTSTRAP STORE [summaries/s] [sampled/s] [seconds]`.

The rate of predictions does not matter to it: a worker at 400,000/s in exactly_once writes ten summaries a second for
each version, whatever they sum up. So that is what is written here, with a sample and its outcomes, while the CPU time
of a monitor of its own is taken.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from confluent_kafka import Producer

from loadgen.bench.broker import create
from loadgen.kafka_client import KafkaOptions
from tests.integration.rig import SCHEMAS
from tests.integration.worker_process import running_worker
from tests.made_summaries import SHARES, category, framed, number, summary


def topics_of(servers):
    names = [f"load.{kind}.{time.time_ns()}" for kind in ("summaries", "sampled", "outcomes")]
    create(KafkaOptions(servers), names)
    return names


def main(servers, store, summaries=10, sampled=100, seconds=30):
    summary_topic, sample_topic, outcome_topic = topics_of(servers)
    settings = {
        "kafka": {"bootstrap_servers": servers},
        "schemas": {"directory": str(SCHEMAS)},
        "pipelines": [
            {
                "name": "churn", "input_topics": ["e"], "output_topic": "p", "dead_letter_topic": "d",
                "model": "churn", "monitoring": {"summary_topic": summary_topic, "sample_topic": sample_topic},
            }
        ],
        "monitor": {
            "group_id": f"load-{time.time_ns()}",
            "outcomes": {"churn": {"topic": outcome_topic, "record": "ChurnOutcome", "label": "churned"}},
        },
        "models": {"store": f"file://{store}"}, "http": {"port": 0}, "log": {"format": "json"},
    }  # fmt: skip
    random = np.random.default_rng(1)
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random"})
    with running_worker(settings, Path(tempfile.mkdtemp()), command="monitor") as monitor:
        monitor.wait_until_ready()
        process = psutil.Process(monitor.pid)
        used, begun, row = process.cpu_times(), time.monotonic(), 0
        for tick in range(10 * seconds):
            now_ms = int(time.time() * 1000)
            for number_of in range(tick * summaries // 10, (tick + 1) * summaries // 10):
                version = str(number_of % 2 + 1)
                features = [number(name, random.normal(size=40), SHARES) for name in ("a", "b", "c", "d", "e")]
                features.append(category("plan", [20, 15, 5]))
                record = summary(
                    random.random(40), version=version, start_ms=now_ms // 10_000 * 10_000, features=features
                )
                producer.produce(summary_topic, framed(record), key=f"churn/{version}")
            for _ in range(sampled // 10):
                row += 1
                prediction = {
                    "customer_id": f"c{row}", "prediction": 1, "will_churn": True, "probability": 0.9,
                    "confidence": 0.9, "model_name": "churn", "model_version": "1", "model_digest": "d",
                    "answered_by": "stable", "rollout_revision": 1, "source_topic": "e", "source_partition": 0,
                    "source_offset": row, "event_time": now_ms, "predicted_at": now_ms,
                }  # fmt: skip
                outcome = {"customer_id": f"c{row}", "event_time": now_ms, "churned": True, "observed_at": now_ms}
                for topic, value in (
                    (sample_topic, framed(prediction, "ChurnPrediction")),
                    (outcome_topic, framed(outcome, "ChurnOutcome")),
                ):
                    producer.produce(topic, value, key=f"c{row}")
            producer.poll(0)
            time.sleep(max(0.0, begun + (tick + 1) / 10 - time.monotonic()))
        producer.flush(30)
        elapsed, now = time.monotonic() - begun, process.cpu_times()
        share = (now.user + now.system - used.user - used.system) / elapsed
        taken = monitor.metrics().total("inference_monitor_summaries_total")
        paired = monitor.metrics().total("inference_monitor_outcomes_total", result="paired")
    sys.stdout.write(f"{summaries}/s summaries, {sampled}/s sampled with outcomes: {share:.1%} of a core "
          f"({taken:,.0f} summaries, {paired:,.0f} pairs in {elapsed:.0f} s)\n")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
