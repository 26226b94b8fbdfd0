"""A model is ONNX and nothing else: no pickle at run time, no library of operators."""

import re
import subprocess
import sys
from pathlib import Path

APP = Path(__file__).parents[3] / "app"


def test_nothing_in_the_program_reads_pickles_or_registers_operators():
    forbidden = re.compile(r"pickle|joblib|cloudpickle|marshal\b|register_custom_ops|allow_pickle|torch\.load")
    run_time = [file for file in APP.rglob("*.py") if "train" not in file.parts]
    assert [file.name for file in run_time if forbidden.search(file.read_text(encoding="utf-8"))] == []


def test_a_worker_imports_nothing_it_could_train_or_unpickle_models_with():
    script = "import sys, app.wiring; print({'sklearn', 'joblib', 'skl2onnx', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=APP.parent, check=True)
    assert done.stdout.strip() == "set()"
