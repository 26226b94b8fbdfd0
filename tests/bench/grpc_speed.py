"""Throughput and latency of gRPC, with micro-batching on and off: `python tests/bench/grpc_speed.py`.

Each server is `inference-worker serve` with the shipped logistic churn model, a process of its own; the client is this
process, on the same machine. Closed loops: so many calls are under way at any time, the next begins when one ends. The
two servers take turns, and the best turn of each counts. Off is `serving.batch.max_rows: 1`: every row is a batch.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
import psutil
import uvloop
import yaml
from rich.console import Console
from rich.table import Table

from app.grpc_api import prediction_pb2 as messages
from app.grpc_api.prediction_pb2_grpc import PredictionServiceStub
from app.wiring import training

ROOT = Path(__file__).parents[2]
BATCHING = {"on": 512, "off": 1}
UNDER_WAY = (1, 32, 256)
ROWS_PER_CALL = 256  # of BatchPredict
CHANNELS = 4  # calls of one connection take turns
WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What one turn measured. Latencies are of calls; the stream's of rows, from written to answered."""

    call: str
    batching: str
    under_way: int
    rows_per_second: float
    p50_ms: float
    p99_ms: float
    server_us_per_row: float  # of processor time: what another process on the machine hardly changes


@contextlib.contextmanager
def server(store, folder, max_rows):
    """(its process, its gRPC port) once it answers; killed at the end of the block."""
    config, log = folder / f"serve-{max_rows}.yaml", folder / f"serve-{max_rows}.log"
    pipeline = {
        "name": "churn", "input_topics": ["events"], "output_topic": "predictions",
        "dead_letter_topic": "dead-letters", "model": "churn",
    }  # fmt: skip
    settings = {
        "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "nobody"},
        "pipelines": [pipeline],
        "schemas": {"directory": str(ROOT / "schemas")},
        "models": {"store": str(store)},
        "serving": {"port": 0, "grpc": {"port": 0}, "batch": {"max_rows": max_rows}},
        "log": {"format": "json"},
    }
    config.write_text(yaml.safe_dump(settings))
    with log.open("wb") as output:
        command = [sys.executable, "-m", "app", "serve", "--config", config]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=dict(os.environ))
    try:
        yield psutil.Process(process.pid), _port(process, log)
    finally:
        process.kill()
        process.wait()


def _port(process, log):
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"started"' in line:
                port = json.loads(line)["grpc_port"]
                with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                    stub = PredictionServiceStub(channel)
                    while not stub.HealthCheck(messages.HealthRequest(), wait_for_ready=True).model_loaded:
                        time.sleep(0.05)
                return port
        time.sleep(0.05)
    raise SystemExit(f"the server did not start: {log.read_text()[-2000:]}")


def good_rows(store, count):
    """Vectors that the model answers: its golden rows are inputs, so the features' own ranges are used."""
    manifest = json.loads((Path(store) / "churn" / "1" / "manifest.json").read_text())
    generator, columns = np.random.default_rng(0), []
    for feature in manifest["inputs"][0]["features"]:
        if feature["kind"] == "number":
            low, high = feature.get("min") or 0.0, feature.get("max")
            columns.append(np.floor(generator.uniform(low, low + 50 if high is None else high, count)))
        else:
            columns.append(generator.integers(0, len(feature["categories"]), count).astype(float))
    return np.column_stack(columns)


async def closed_loop(port, call, under_way, seconds, rows):
    """(rows answered, latencies in seconds) of so many calls under way at any time."""
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(CHANNELS)
    ]
    singles = [messages.PredictRequest(features=row) for row in rows.tolist()]
    many = messages.BatchPredictRequest(instances=singles[:ROWS_PER_CALL])
    latencies, answered = [], 0
    ends_at = time.perf_counter() + seconds

    async def unary(number):
        nonlocal answered
        stub = PredictionServiceStub(channels[number % CHANNELS])
        at = number
        while (started := time.perf_counter()) < ends_at:
            if call == "Predict":
                await stub.Predict(singles[at % len(singles)])
                answered += 1
            else:
                await stub.BatchPredict(many)
                answered += ROWS_PER_CALL
            latencies.append(time.perf_counter() - started)
            at += 1

    async def stream(number):
        nonlocal answered
        sent = asyncio.Queue()
        room = asyncio.Semaphore(max(1, under_way // CHANNELS))

        async def requests():
            at = number
            while time.perf_counter() < ends_at:
                await room.acquire()
                sent.put_nowait(time.perf_counter())
                yield messages.StreamedPredictRequest(features=singles[at % len(singles)].features)
                at += 1

        async for _ in PredictionServiceStub(channels[number]).PredictStream(requests()):
            latencies.append(time.perf_counter() - sent.get_nowait())
            answered += 1
            room.release()

    if call == "PredictStream":
        await asyncio.gather(*(stream(number) for number in range(min(CHANNELS, under_way))))
    else:
        await asyncio.gather(*(unary(number) for number in range(under_way)))
    for channel in channels:
        await channel.close()
    return answered, latencies


def turn(process, port, call, batching, under_way, seconds, rows):
    started, used = time.perf_counter(), sum(process.cpu_times()[:2])
    answered, latencies = uvloop.run(closed_loop(port, call, under_way, seconds, rows))
    took_s = time.perf_counter() - started
    server_us = (sum(process.cpu_times()[:2]) - used) / answered * 1e6
    p50, p99 = (float(np.percentile(latencies, q)) * 1000 for q in (50, 99))
    return Figures(call, batching, under_way, answered / took_s, p50, p99, server_us)


def measure(seconds, turns):
    """The best turn of each call, batching and number of calls under way."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        store = Path(folder) / "store"
        training.train("churn", store=str(store), estimator=None, rows=5_000, seed=0, progress=lambda _: None)
        running = {name: servers.enter_context(server(store, Path(folder), most)) for name, most in BATCHING.items()}
        rows = good_rows(store, 1000)
        cases = [(call, many) for call in ("Predict", "PredictStream") for many in UNDER_WAY]
        cases += [("BatchPredict", 1), ("BatchPredict", 8)]
        found = []
        for call, many in cases:
            tried = {name: [] for name in BATCHING}
            for _ in range(turns):
                for name, (process, port) in running.items():
                    tried[name].append(turn(process, port, call, name, many, seconds, rows))
            found += [max(each, key=lambda figures: figures.rows_per_second) for each in tried.values()]
        return found


def show(found):
    table = Table(
        "call", "under way", "batching", "rows/s", "p50 ms", "p99 ms", "server µs/row", title="gRPC, one server process"
    )
    for each in found:
        table.add_row(
            each.call, str(each.under_way), each.batching, f"{each.rows_per_second:,.0f}",
            f"{each.p50_ms:.2f}", f"{each.p99_ms:.2f}", f"{each.server_us_per_row:.1f}",
        )  # fmt: skip
    Console(width=100).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=3, help="of each server in each case")
    parser.add_argument("--json", action="store_true", help="figures as JSON instead of a table")
    options = parser.parse_args()
    measured = measure(options.seconds, options.turns)
    if options.json:
        sys.stdout.write(json.dumps([asdict(each) for each in measured], indent=2) + "\n")
    else:
        show(measured)
