"""REST requests per second and their latency: micro-batching on and off, beside a plain FastAPI + scikit-learn server.

    .venv/bin/python -m tests.bench.rest_speed [--clients 64] [--seconds 8] [--rounds 3]

One sitting: the servers run one after the other, in turn for each round, each in a process of its own, asked by the
same closed loop of clients over kept connections from one more process. The plain server does what the usual tutorial
does: a pydantic model in, `predict_proba` of one row in a worker thread, a dict out. Both models are a scaler
and a logistic regression over eight numbers; ours is the ONNX of it.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import orjson
import psutil
import typer
import yaml

ROOT = Path(__file__).parents[2]
FEATURES = {"age": 34, "income": 50_000.0, "tenure_months": 12, "monthly_charges": 70.5, "plan": "basic"}
WARM_UP_S = 1.0
VECTOR = [34, 50_000.0, 12, 70.5, 846.0, 0]


def plain_server(port):
    """What most people begin with."""
    import joblib
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel, Field

    class Churn(BaseModel):
        age: int = Field(ge=18, le=120)
        income: float
        tenure_months: int
        monthly_charges: float
        total_charges: float = 846.0
        plan: str

    class Request(BaseModel):
        features: Churn

    app, model = FastAPI(), joblib.load(os.environ["PLAIN_MODEL"])
    plans = ("basic", "standard", "premium")

    @app.post("/predict")
    def predict(request: Request):
        given = request.features
        row = [given.age, given.income, given.tenure_months, given.monthly_charges, given.total_charges]
        row += [float(given.plan == plan) for plan in plans]
        probabilities = model.predict_proba(np.array([row], np.float32))[0]
        winner = int(probabilities.argmax())
        return {
            "prediction": winner,
            "probabilities": probabilities.tolist(),
            "confidence": float(probabilities[winner]),
        }

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


async def load(port, clients, seconds):
    """(requests per second, latencies in ms, requests) of a closed loop; every answer must be a 200.

    The latter with those of the warm-up, which the first two leave out.
    """
    body = orjson.dumps({"features": FEATURES})
    request = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body), body,
    )  # fmt: skip
    end = time.perf_counter() + WARM_UP_S + seconds
    begin = end - seconds
    took, sent = [], 0

    async def client():
        nonlocal sent
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (asked := time.perf_counter()) < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            at = head.lower().index(b"content-length:") + 15
            sent += 1
            await reader.readexactly(int(head[at : head.index(b"\r", at)]))
            if asked >= begin:
                took.append(time.perf_counter() - asked)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return len(took) / seconds, [1000 * one for one in took], sent


def train(folder):
    """What `models train` publishes, and a pipeline of the same kind and width in scikit-learn."""
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    subprocess.run(
        [sys.executable, "-m", "app", "models", "train", "churn", "--store", str(folder / "models"), "--rows", "20000"],
        check=True, cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    manifest = json.loads((folder / "models/churn/1/manifest.json").read_text())
    random = np.random.default_rng(0)
    rows = random.uniform(0, 100, (20_000, 8)).astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        rows, rows[:, 0] + random.normal(0, 20, 20_000) > 50
    )
    joblib.dump(model, folder / "plain.joblib")
    return manifest["training"]


def ours(folder, port, batching):
    settings = {
        "schemas": {"directory": str(ROOT / "schemas")},
        "pipelines": [{"name": "churn", "input_topics": ["a"], "output_topic": "b", "dead_letter_topic": "c",
                       "model": "churn"}],
        "models": {"store": f"file://{folder / 'models'}"},
        "serving": {"port": port, "batch": {"max_rows": 512 if batching else 1}},
    }  # fmt: skip
    config = folder / f"serve-{port}.yaml"
    config.write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "app", "serve", "--config", str(config)]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def started(command, port, environment):
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stderr=subprocess.DEVNULL)
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", orjson.dumps({"features": FEATURES}), {"content-type": "application/json"}
    )
    for _ in range(600):
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                assert answer.status == 200
                return process
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
    raise TimeoutError(command)


def cpu_s(process):
    """What the server has used of the processor: says more than a rate where others use it too."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def main():
    """Measure and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clients", type=int, nargs="+", default=[1, 64, 256])
    options.add_argument("--seconds", type=float, default=8.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--plain", type=int, help="serve the plain server on this port, and nothing else")
    chosen = options.parse_args()
    if chosen.plain:
        plain_server(chosen.plain)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        typer.echo(f"model: {train(folder)}; {os.cpu_count()} cores; {chosen.rounds} rounds of {chosen.seconds:g} s")
        found = {}
        for _ in range(chosen.rounds):
            for name in ("batching on", "batching off", "plain"):
                port = free_port()
                command = (
                    [sys.executable, "-m", "tests.bench.rest_speed", "--plain", str(port)]
                    if name == "plain" else ours(folder, port, name == "batching on")
                )  # fmt: skip
                process = started(command, port, {"PLAIN_MODEL": str(folder / "plain.joblib")})
                try:
                    for clients in chosen.clients:
                        before = cpu_s(process)
                        rate, took, asked = asyncio.run(load(port, clients, chosen.seconds))
                        cost_us = 1e6 * (cpu_s(process) - before) / asked
                        row = (rate, *np.percentile(took, (50, 99)).tolist(), cost_us)
                        found.setdefault((clients, name), []).append(row)
                finally:
                    process.send_signal(signal.SIGTERM)
                    process.wait(30)
        typer.echo(
            "| clients | server | requests/s | p50 ms | p99 ms | CPU µs per request |\n|---|---|---|---|---|---|"
        )
        for (clients, name), rounds in sorted(found.items(), key=lambda item: item[0][0]):
            rate, half, most, cost_us = np.median(np.array(rounds), axis=0)
            typer.echo(f"| {clients} | {name} | {rate:,.0f} | {half:.1f} | {most:.1f} | {cost_us:,.0f} |")


if __name__ == "__main__":
    main()
