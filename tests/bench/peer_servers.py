"""The servers that `serving_peers` asks: ours, and what people would use instead, each in a process of its own.

MLServer and BentoML live in environments under `var/peers`, made once with uv, from PyPI, at the versions below: they
pin other libraries than ours, and the lock file is not theirs. All of them are set as their documentation sets them,
with one process that asks the model.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "peers"
VENVS = ROOT / "var" / "peers"
# Each with what it is known to install and run with.
PEERS = {
    "mlserver": ("mlserver==1.7.1", "mlserver-sklearn==1.7.1"),
    "bentoml": ("bentoml==1.4.39", "scikit-learn>=1.7", "joblib"),
}
MLSERVER = ("-c", "from mlserver.cli import main; main()")  # it has no `__main__`
MOST_ROWS = 512
START_S = 90.0


class NoServer(Exception):
    """This one is not in the table; the message says why."""


@dataclass(slots=True)
class Server:
    """One that answers. ports: by protocol. counts: where the model of a peer counts its calls and rows."""

    name: str
    process: subprocess.Popen
    ports: dict[str, int]
    counts: Path | None = None
    asked: dict[str, tuple[int, int]] = field(default_factory=dict)

    def cpu_s(self):
        """What it and its children have used of the processor."""
        used = 0.0
        process = psutil.Process(self.process.pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                used += sum(each.cpu_times()[:2])
        return used

    def batches(self):
        """(calls of the model, rows in them), since it began."""
        if "rest" not in self.ports:
            return 0, 0
        if self.counts is not None:
            return tuple(np.fromfile(self.counts, np.int64).tolist())
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['rest']}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = {sample.name: sample.value for family in families for sample in family.samples}
        return int(samples.get("inference_batch_records_count", 0)), int(samples.get("inference_batch_records_sum", 0))

    def stop(self):
        """With all its children; whatever they are at."""
        if self.process.poll() is not None:
            return
        first = psutil.Process(self.process.pid)
        family = [first, *first.children(recursive=True)]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.terminate()
        _, left = psutil.wait_procs(family, 10)
        for each in left:
            each.kill()
        self.process.wait()


def python_of(peer):
    """The interpreter of its environment, made if it is not there. Raises NoServer."""
    folder = VENVS / peer
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = "\n".join(PEERS[peer])
    if ready.exists() and ready.read_text() == wanted:
        return python
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise NoServer(f"{peer} needs an environment of its own, and uv to make it, which is not installed")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder],
        [uv, "pip", "install", "--quiet", "--python", python, *PEERS[peer]],
    ):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise NoServer(f"{peer} does not install: {ended.stderr.strip().splitlines()[-1:]}")
    ready.write_text(wanted)
    return python


def ours(folder, batching):
    """`inference-worker serve`, REST and gRPC. folder: has `models`, from `train`."""
    ports = {"rest": _free_port(), "grpc": _free_port()}
    settings = {
        "schemas": {"directory": str(ROOT / "schemas")},
        "pipelines": [{"name": "churn", "input_topics": ["a"], "output_topic": "b", "dead_letter_topic": "c",
                       "model": "churn"}],
        "models": {"store": f"file://{folder / 'models'}"},
        "serving": {"port": ports["rest"], "grpc": {"port": ports["grpc"]},
                    "batch": {"max_rows": MOST_ROWS if batching else 1}},
    }  # fmt: skip
    config = folder / f"serve-{ports['rest']}.yaml"
    config.write_text(yaml.safe_dump(settings))
    return _started("inference-worker", [sys.executable, "-m", "app", "serve", "--config", config], ports, folder)


def plain(folder):
    """FastAPI and scikit-learn, from our own environment."""
    return _peer(
        "FastAPI + scikit-learn", sys.executable, folder, lambda port: [HERE / "plain_server.py", port["rest"]]
    )


def bare_grpc(folder):
    """grpc.aio and nothing else, on our loop."""
    ports = {"grpc": _free_port()}
    return _started("grpc.aio", [sys.executable, HERE / "bare_grpc.py", ports["grpc"]], ports, folder)


def mlserver(folder, batching):
    """REST and gRPC, the Open Inference Protocol. In one process: with workers of its own it was slower here."""
    python, place = python_of("mlserver"), folder / f"mlserver-{batching}"
    model = place / "churn"
    model.mkdir(parents=True)
    ports = {"rest": _free_port(), "grpc": _free_port()}
    batches = {"max_batch_size": MOST_ROWS, "max_batch_time": 0.002} if batching else {}
    page = {"name": "churn", "implementation": "mlserver_sklearn.SKLearnModel", **batches,
            "parameters": {"uri": str(_model(python, folder, "mlserver"))}}  # fmt: skip
    (model / "model-settings.json").write_text(json.dumps(page))
    settings = {"host": "127.0.0.1", "http_port": ports["rest"], "grpc_port": ports["grpc"],
                "metrics_port": _free_port(), "parallel_workers": 0, "debug": False}  # fmt: skip
    (place / "settings.json").write_text(json.dumps(settings))
    return _peer("MLServer", python, folder, lambda _: [*MLSERVER, "start", place], ports)


def bentoml(folder, batching):
    """REST; what it says of gRPC has been withdrawn by its makers."""
    more = {"BATCHING": "on" if batching else "off", "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder)}
    return _peer(
        "BentoML", python_of("bentoml"), folder,
        lambda port: ["-m", "bentoml", "serve", "bento_service:Churn", "--host", "127.0.0.1", "--port", port["rest"]],
        more=more,
    )  # fmt: skip


def train(folder):
    """What `models train` publishes: a scaler and a logistic regression, as the peers' is; and what it says of it."""
    command = [sys.executable, "-m", "app", "models", "train", "churn", "--store", folder / "models", "--rows", "20000"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return json.loads((folder / "models/churn/1/manifest.json").read_text())


def _peer(name, python, folder, arguments, ports=None, more=None):
    ports = ports or {"rest": _free_port()}
    kind = name.split(" ", maxsplit=1)[0].lower()
    counts = folder / f"counts-{ports['rest']}"
    counts.write_bytes(bytes(16))
    environment = {"COUNTS": str(counts), "PYTHONPATH": str(HERE), "MODEL": str(_model(python, folder, kind))}
    server = _started(name, [python, *arguments(ports)], ports, folder, environment | (more or {}), HERE)
    server.counts = counts
    return server


def _model(python, folder, kind):
    """The peers' model, made by the scikit-learn that will load it."""
    model = folder / f"{kind}.joblib"
    if not model.exists():
        subprocess.run([python, HERE / "counted.py", model], check=True, cwd=HERE)
    return model


def _started(name, command, ports, folder, environment=None, cwd=ROOT):
    with (folder / f"{ports[max(ports)]}.log").open("wb") as log:
        process = subprocess.Popen(
            list(map(str, command)), cwd=cwd, stdout=log, stderr=log, env=os.environ | (environment or {})
        )
    return Server(name, process, ports)


def wait_for(server, path, body, folder):
    """Until it answers a POST of this JSON, or takes connections where it has no REST. Raises NoServer and its log."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.ports.get('rest')}{path}", body, {"content-type": "application/json"}
    )
    deadline = time.monotonic() + START_S
    why = "it did not answer in time"
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if "rest" not in server.ports:
                socket.create_connection(("127.0.0.1", server.ports["grpc"]), 5).close()
                return
            with urllib.request.urlopen(request, timeout=5) as answer:
                if answer.status == 200:
                    return
        except urllib.error.HTTPError as refusal:
            why = f"{refusal.code}: {refusal.read(300)!r}"
        except OSError as error:
            why = str(error)
        time.sleep(0.1)
    log = (folder / f"{server.ports[max(server.ports)]}.log").read_text(errors="replace").strip()
    raise NoServer(f"{server.name} did not start: {why}; {' '.join(log.split())[-300:]}")


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]
