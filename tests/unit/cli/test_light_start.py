"""What a worker does not use it does not load: a start takes less time, and no extra has to be installed."""

import subprocess
import sys

EXTRAS = "scipy", "faust", "fastapi", "grpc", "sklearn", "skl2onnx", "lightgbm", "xgboost", "torch", "onnx", "joserfc"
OTHERS = "redis", "pyarrow.parquet", "pyarrow.dataset"  # slow to load, and for what a setting or a command asks for


def test_the_command_line_loads_no_extra_before_a_command_needs_it():
    code = f"import sys, app.__main__; print(*({set(EXTRAS + OTHERS)} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == []
