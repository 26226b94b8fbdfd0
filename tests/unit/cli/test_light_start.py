"""Nobody pays at start for what is not needed there, least of all for an extra that may not even be installed."""

import subprocess
import sys

import pytest

EXTRAS = "scipy", "faust", "fastapi", "grpc", "sklearn", "skl2onnx", "lightgbm", "xgboost", "torch", "onnx", "joserfc"
OTHERS = "redis", "pyarrow.parquet", "pyarrow.dataset"  # slow to load, and for what a setting or a command asks for
A_WORKER_S = (
    "onnxruntime",
    "pyarrow",
    "prometheus_client",
    "uvicorn",
)  # half of the start of a command that has no worker


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("app.__main__", EXTRAS + OTHERS + A_WORKER_S), ("app.wiring.processes, app.wiring.shadow", EXTRAS + OTHERS)],
    ids=["the command line", "a worker"],
)
def test_nothing_is_loaded_before_a_command_needs_it(module, unwanted):
    code = f"import sys, {module}; print(*({set(unwanted)} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == []
