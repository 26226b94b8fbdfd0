"""`make bench`: one worker process on a real broker of its own: draining a backlog, and latency at a steady rate.

Prints a table and writes var/bench.json. Every run's outputs are verified by the load generator; a run that lost
or doubled anything is an error, not a figure.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from deploy.local.stack import Stack

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from worker_process import clean_environment, running_worker  # noqa: E402 - the tests' way to run a worker

PARTITIONS = 4


class Bench:
    """A broker, a model, and worker runs on them."""

    def __init__(self, folder, bootstrap):
        self._folder, self._bootstrap, self._runs = folder, bootstrap, 0
        self._store = folder / "models"
        self._command("inference-worker", "models", "train", "churn", "--store", str(self._store))

    def preload(self, events):
        """The backlog that every drain reads."""
        self._make_topics("bench.events")
        self._command("loadgen", "produce", "--topic", "bench.events", "--events", str(events))

    def drain(self, mode, events):
        """Events per second, CPU µs per event and peak MB of one worker, from its assignment to the last commit."""
        names = self._outputs()
        with running_worker(self._settings(mode, "bench.events", names, 0.01), self._folder) as worker:
            worker.wait_until_assigned()
            process = psutil.Process(worker.pid)
            started, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
            self._wait_until_committed(names["group"], events)
            seconds, cpu = time.perf_counter() - started, sum(process.cpu_times()[:2]) - cpu
            peak = _peak_mb(worker.pid)
            assert worker.stop() == 0
        self._verify("bench.events", names, mode)
        return {"events_per_s": events / seconds, "cpu_us_per_event": cpu / events * 1e6, "peak_mb": peak}

    def latency(self, mode, rate, seconds, max_wait_s):
        """Milliseconds from the intended send to the receipt by a reader, as the load generator measures them."""
        names = self._outputs()
        topic = names["output"].replace("predictions", "events")
        self._make_topics(topic)
        with running_worker(self._settings(mode, topic, names, max_wait_s), self._folder) as worker:
            worker.wait_until_assigned()
            printed = self._command(
                "loadgen", "run", "--topic", topic, "--predictions", names["output"], "--dead-letters", names["dead"],
                "--rate", str(rate), "--duration", str(seconds), "--warmup", "5", "--store", str(self._store), "--json",
            )  # fmt: skip
            assert worker.stop() == 0
        return json.loads(printed)

    def _outputs(self):
        self._runs += 1
        names = {"output": f"bench.predictions.{self._runs}", "dead": f"bench.dead-letters.{self._runs}"}
        self._make_topics(*names.values())
        return names | {"group": f"bench-{self._runs}"}

    def _settings(self, mode, topic, names, max_wait_s):
        pipeline = {
            "name": "churn",
            "input_topics": [topic],
            "output_topic": names["output"],
            "dead_letter_topic": names["dead"],
            "model": "churn",
            "batch": {"max_records": 512, "max_wait_s": max_wait_s},
        }
        return {
            "kafka": {"bootstrap_servers": self._bootstrap, "group_id": names["group"]},
            "schemas": {"directory": str(ROOT / "schemas")},
            "pipelines": [pipeline],
            "delivery": {"mode": mode},
            "models": {"store": f"file://{self._store}"},
            "http": {"port": 0},
            "log": {"format": "json"},
        }

    def _make_topics(self, *topics):
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        for made in admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics]).values():
            made.result(30)

    def _wait_until_committed(self, group, events):
        reader = Consumer({"bootstrap.servers": self._bootstrap, "group.id": group})
        places = [TopicPartition("bench.events", partition) for partition in range(PARTITIONS)]
        deadline = time.monotonic() + 300
        while sum(max(0, place.offset) for place in reader.committed(places, timeout=10)) < events:
            assert time.monotonic() < deadline, "not drained within 300 s"
            time.sleep(0.02)
        reader.close()

    def _verify(self, topic, names, mode):
        relaxed = ["--at-least-once"] if mode == "at_least_once" else []
        self._command(
            "loadgen", "verify", "--input", topic, "--predictions", names["output"], "--dead-letters", names["dead"],
            "--store", str(self._store), *relaxed,
        )  # fmt: skip

    def _command(self, program, *arguments):
        bootstrap = ["--bootstrap", self._bootstrap] if program == "loadgen" else []
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments, *bootstrap],
            capture_output=True, text=True, cwd=ROOT, env=clean_environment(), check=False, timeout=600,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{program} {arguments[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout


def _peak_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main():
    """Run it all, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    console = Console()
    result = {"events": options.events, "runs": options.runs, "rate": options.rate, "drain": {}, "latency": {}}
    with tempfile.TemporaryDirectory(prefix="inference-bench-") as folder:
        stack = Stack(Path(folder) / "stack")
        try:
            bench = Bench(Path(folder), stack.up().environment["KAFKA_BOOTSTRAP_SERVERS"])
            bench.preload(options.events)
            modes = ("exactly_once", "at_least_once")
            runs = [(mode, bench.drain(mode, options.events)) for _ in range(options.runs) for mode in modes]
            for mode in modes:
                figures = [figure for ran, figure in runs if ran == mode]
                result["drain"][mode] = {
                    name: statistics.median(figure[name] for figure in figures) for name in figures[0]
                }
                result["latency"][mode] = bench.latency(mode, options.rate, options.seconds, 0.002)["verified"][
                    "latency"
                ]
        finally:
            stack.down(wipe=True)
    _show(result, console)
    (ROOT / "var").mkdir(exist_ok=True)
    (ROOT / "var" / "bench.json").write_text(json.dumps(result, indent=2))


def _show(result, console):
    table = Table(
        title=f"draining {result['events']:,} events, median of {result['runs']}; latency at {result['rate']:,}/s"
    )
    for name in ("mode", "events/s", "CPU µs/event", "peak MB", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for mode, drain in result["drain"].items():
        latency = result["latency"][mode]
        table.add_row(
            mode,
            f"{drain['events_per_s']:,.0f}",
            f"{drain['cpu_us_per_event']:.2f}",
            f"{drain['peak_mb']:.0f}",
            f"{latency['p50']:.1f}",
            f"{latency['p99']:.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
