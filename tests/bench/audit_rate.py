"""How fast `audit run` keeps predictions, and at what cost: a backlog on a real broker, into a folder.

    python -m tests.bench.audit_rate --records 2000000 [--mask]

Prints rows per second from the first record read to the last file, CPU seconds per million rows, the largest resident
size, bytes per row on disk, and how long a question for one key takes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from app.avro.datum_writer import DatumWriter
from app.avro.framing import SingleObjectFraming
from app.avro.schemas import parse
from deploy.local.stack import Stack

ROOT = Path(__file__).parents[2]
TOPIC, PARTITIONS, CHUNK = "churn.predictions", 4, 20_000
SCHEMA = ROOT / "schemas" / "churn_prediction.avsc"


def publish(kafka: str, count: int) -> None:
    """Predictions with keys of a million customers and numbers that do not compress."""
    schema = parse(SCHEMA.read_text())
    writer = DatumWriter(SingleObjectFraming(), SingleObjectFraming.header(schema.fingerprint), schema)
    producer = Producer({"bootstrap.servers": kafka, "queue.buffering.max.messages": 0, "linger.ms": 20,
                         "compression.type": "lz4"})  # fmt: skip
    random = np.random.default_rng(0)
    for start in range(0, count, CHUNK):
        now_ms = int(time.time() * 1000)
        p = random.random(CHUNK)
        customers = [f"customer-{number:07}" for number in random.integers(0, 1_000_000, CHUNK)]
        ms = pa.array(np.full(CHUNK, now_ms)).cast(pa.timestamp("ms"))
        columns = {
            "customer_id": pa.array(customers),
            "prediction": pa.array((p > 0.5).astype(np.int32)),
            "will_churn": pa.array(p > 0.5),
            "probability": pa.array(p),
            "confidence": pa.array(np.maximum(p, 1 - p)),
            "model_name": pa.array(["churn"] * CHUNK),
            "model_version": pa.array(["3"] * CHUNK),
            "model_digest": pa.array(["0123456789abcdef"] * CHUNK),
            "answered_by": pa.array(["stable"] * CHUNK),
            "rollout_revision": pa.array(np.full(CHUNK, 4, np.int32)),
            "source_topic": pa.array(["churn.events"] * CHUNK),
            "source_partition": pa.array((np.arange(CHUNK) % PARTITIONS).astype(np.int32)),
            "source_offset": pa.array(np.arange(start, start + CHUNK)),
            "event_time": ms,
            "predicted_at": ms,
        }
        columns = {name: column.cast(writer.fields.field(name).type) for name, column in columns.items()}
        for number, (key, value) in enumerate(zip(customers, writer.write(columns, CHUNK), strict=True)):
            producer.produce(TOPIC, value, key.encode(), partition=number % PARTITIONS)
        producer.flush()


def main() -> None:
    """One backlog, one process."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--records", type=int, default=2_000_000)
    asked.add_argument("--mask", action="store_true", help="hash key and customer_id")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / "stack")
        try:
            kafka = stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"]
            admin = AdminClient({"bootstrap.servers": kafka})  # what it makes ends with it
            admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(30)
            publish(kafka, options.records)
            measure(kafka, Path(folder), options.records, mask=options.mask)
        finally:
            stack.down(wipe=True)


def measure(kafka: str, folder: Path, records: int, *, mask: bool) -> None:
    """Keep them all, then ask for one key."""
    (folder / "secret").write_text("a secret of a good length")
    masked = {"mask": {"audit_key": "hash", "customer_id": "hash"}, "mask_secret_file": "secret"}
    settings = {
        "kafka": {"bootstrap_servers": kafka},
        "schemas": {"directory": str(ROOT / "schemas")},
        "pipelines": [{"name": "churn", "input_topics": ["in"], "output_topic": TOPIC, "dead_letter_topic": "dead",
                       "model": "churn", "prediction_schema": "ChurnPrediction"}],
        "http": {"port": 0},
        "audit": {"store": "file://trail", "file_age_s": 3} | (masked if mask else {}),
        "log": {"format": "json"},
    }  # fmt: skip
    config = folder / "worker.yaml"
    config.write_text(yaml.safe_dump(settings))
    log = folder / "log"
    with log.open("wb") as output:
        audit = psutil.Popen([sys.executable, "-m", "app", "audit", "run", "--config", config], stderr=output, cwd=ROOT)
    largest = 0
    while "trail_goes_on" not in log.read_text():
        time.sleep(0.01)
    began, cpu_before = time.monotonic(), sum(audit.cpu_times()[:2])
    last, kept = began, 0
    while kept < records:
        time.sleep(0.1)
        largest = max(largest, audit.memory_info().rss)
        if time.monotonic() - last > 0.1:
            last = time.monotonic()
            kept = sum(pq.read_metadata(file).num_rows for file in (folder / "trail").rglob("*.parquet"))
    seconds, cpu = time.monotonic() - began, sum(audit.cpu_times()[:2]) - cpu_before
    audit.terminate()
    audit.wait()
    files = list((folder / "trail").rglob("*.parquet"))
    print(f"{kept} rows in {seconds:.1f} s: {kept / seconds:,.0f} rows/s")  # noqa: T201 - a script
    print(f"CPU {cpu:.1f} s, {cpu / kept * 1e6:.2f} s per million rows; largest {largest / 2**20:.0f} MiB")  # noqa: T201
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / kept:.1f} bytes a row")  # noqa: T201
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "app", "audit", "query", "--config", config, "--key", "customer-0000042", "--json"],
        check=True, stdout=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    print(f"a question for one key: {time.monotonic() - began:.2f} s, the start of the program included")  # noqa: T201


if __name__ == "__main__":
    main()
