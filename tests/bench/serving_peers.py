"""Requests per second over REST and gRPC, micro-batching on and off, beside the servers that people would use instead.

    .venv/bin/python -m tests.bench.serving_peers [--rounds 3] [--write]

One sitting on one machine: every server is started once, and each round asks all of them in turn, one at a time, by
the same closed loops (`closed_loops`), with one row a request and more and more callers. Peers that do not install or
start are named under the table, and not in it. All models are a scaler and a logistic regression over eight numbers;
ours is ONNX.

`--write` puts the tables into docs/SERVING.md, between its two marks.
"""

import argparse
import contextlib
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import psutil
import uvloop

from app.grpc_api import grpc_predict_v2_pb2 as v2
from app.grpc_api import prediction_pb2 as messages
from tests.bench import peer_servers
from tests.bench.closed_loops import grpc_loop, rest_loop
from tests.bench.peer_servers import PEERS, NoServer, Server
from tests.bench.serving_figures import Figures, page

PAGE = Path(__file__).parents[2] / "docs" / "SERVING.md"
BEGIN = "<!-- serving_peers: begin. Written by the command; edits are lost. -->"
END = "<!-- serving_peers: end -->"
CALLERS = (1, 8, 32, 128)
SECONDS, WARM_UP_S = 1.5, 0.4

FIELDS = {"age": 34, "income": 50_000.0, "tenure_months": 12, "monthly_charges": 70.5, "plan": "basic"}
VECTOR = [34, 50_000.0, 12, 70.5, 846.0, 0]  # what ours takes: a category is its index
WIDE = [34, 50_000.0, 12, 70.5, 846.0, 1, 0, 0]  # what the peers' takes: three columns of a category
V2, PREDICT = "/inference.GRPCInferenceService/ModelInfer", "/prediction.PredictionService/Predict"


@dataclass(frozen=True)
class Surface:
    """One way to ask one server. target: path of a POST, or a gRPC method. batching: whether requests share batches."""

    label: str
    batching: str
    protocol: str
    target: str
    body: bytes


def v2_json(numbers, **more):
    tensor = {"name": "features", "shape": [1, len(numbers)], "datatype": "FP32", "data": numbers}
    return orjson.dumps({"inputs": [tensor], **more})


def v2_message(numbers, outputs=()):
    request = v2.ModelInferRequest(model_name="churn")
    tensor = request.inputs.add(name="features", datatype="FP32", shape=[1, len(numbers)])
    tensor.contents.fp32_contents.extend(numbers)
    for name in outputs:
        request.outputs.add(name=name)
    return request.SerializeToString()


def of_ours(batching):
    named = orjson.dumps({"features": FIELDS})
    shown = [Surface("inference-worker, `/predict`", batching, "rest", "/predict", named)]
    predict = messages.PredictRequest(features=VECTOR).SerializeToString()
    shown.append(Surface("inference-worker, `Predict`", batching, "grpc", PREDICT, predict))
    if batching == "on":
        path = "/v2/models/churn/infer"
        shown.append(Surface("inference-worker, v2", batching, "rest", path, v2_json(VECTOR)))
        shown.append(Surface("inference-worker, v2", batching, "grpc", V2, v2_message(VECTOR)))
    return shown


def of_mlserver(batching):
    asked = v2_json(WIDE, outputs=[{"name": "predict_proba"}])
    path = "/v2/models/churn/infer"
    return [
        Surface("MLServer, v2", batching, "rest", path, asked),
        Surface("MLServer, v2", batching, "grpc", V2, v2_message(WIDE, ["predict_proba"])),
    ]


def of_bentoml(batching):
    return [Surface("BentoML", batching, "rest", "/predict", orjson.dumps({"rows": [WIDE]}))]


BARE = [
    Surface(
        "grpc.aio without a model",
        "none",
        "grpc",
        PREDICT,
        messages.PredictRequest(features=VECTOR).SerializeToString(),
    )
]
PLAIN = [Surface("FastAPI + scikit-learn", "none", "rest", "/predict", orjson.dumps({"features": FIELDS}))]


def contenders(folder: Path, wanted: set[str]) -> list[tuple[list[Surface], Callable[[], Server]]]:
    """What is asked of a server, and what starts it."""
    made: list[tuple[list[Surface], Callable[[], Server]]] = []
    for batching in ("on", "off"):
        is_on = batching == "on"
        made.append((of_ours(batching), lambda is_on=is_on: peer_servers.ours(folder, is_on)))
        if "mlserver" in wanted:
            made.append((of_mlserver(batching), lambda is_on=is_on: peer_servers.mlserver(folder, is_on)))
        if "bentoml" in wanted:
            made.append((of_bentoml(batching), lambda is_on=is_on: peer_servers.bentoml(folder, is_on)))
    made += [(PLAIN, lambda: peer_servers.plain(folder)), (BARE, lambda: peer_servers.bare_grpc(folder))]
    return made


def measured(server: Server, surface: Surface, callers: int, seconds: float) -> Figures:
    """One turn: so many callers of one surface."""
    loop = rest_loop if surface.protocol == "rest" else grpc_loop
    used, (calls, rows) = server.cpu_s(), server.batches()
    load = uvloop.run(loop(server.ports[surface.protocol], surface.target, surface.body, callers, WARM_UP_S, seconds))
    used, (later_calls, later_rows) = server.cpu_s() - used, server.batches()
    p50, p99 = np.percentile(load.took_s, (50, 99)) * 1000
    return Figures(
        label=surface.label,
        protocol=surface.protocol,
        batching=surface.batching,
        callers=callers,
        per_second=len(load.took_s) / seconds,
        p50_ms=float(p50),
        p99_ms=float(p99),
        cpu_us=1e6 * used / load.asked,
        batch_rows=(later_rows - rows) / max(1, later_calls - calls),
    )


def sitting(folder: Path, options: argparse.Namespace) -> tuple[list[Figures], list[str]]:
    """Every turn of every round, and why some servers had none."""
    told, answering, turns = [], [], []
    with contextlib.ExitStack() as servers:
        for surfaces, start in contenders(folder, set(options.peers)):
            try:
                server = start()
                servers.callback(server.stop)
                peer_servers.wait_for(server, surfaces[0].target, surfaces[0].body, folder)
            except NoServer as why:
                told.append(str(why))
                continue
            answering.append((server, surfaces))
        for number in range(options.rounds):
            for server, surfaces in answering:
                for surface in surfaces:
                    turns += [measured(server, surface, callers, options.seconds) for callers in options.callers]
            sys.stderr.write(f"round {number + 1} of {options.rounds}\n")
    return turns, told


def medians(turns: list[Figures]) -> list[Figures]:
    """Of the rounds, each figure by itself."""
    kept: dict[tuple[str, str, str, int], list[Figures]] = {}
    for turn in turns:
        kept.setdefault((turn.protocol, turn.label, turn.batching, turn.callers), []).append(turn)
    names = ("per_second", "p50_ms", "p99_ms", "cpu_us", "batch_rows")
    return [
        Figures(
            **asdict(rounds[0]) | {name: statistics.median(getattr(turn, name) for turn in rounds) for name in names}
        )
        for rounds in kept.values()
    ]


def written(text: str, block: str) -> str:
    """The page with this between its marks. Raises ValueError if it has none."""
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{block.strip()}\n{END}{after}"


def main() -> None:
    """Measure, print, and write if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each turn, after its warm-up")
    parser.add_argument("--callers", type=int, nargs="+", default=CALLERS)
    parser.add_argument(
        "--peers", nargs="*", default=tuple(PEERS), choices=tuple(PEERS), help="beside the plain server"
    )
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        trained = peer_servers.train(folder)
        turns, told = sitting(folder, options)
    where = (
        f"{datetime.now(UTC):%Y-%m-%d}, {psutil.cpu_count()} CPUs shared by server and load, Python "
        f"{platform.python_version()}; median of {options.rounds} rounds of {options.seconds:g} s, one row a request. "
        f"Model: {trained['training']['estimator']}, of ours as ONNX, of the others in scikit-learn."
    )
    block = page(medians(turns), where, told)
    sys.stdout.write(block)
    if options.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), block), encoding="utf-8")


if __name__ == "__main__":
    main()
