"""A model is ONNX and nothing else: no pickle at run time, no library of operators.

The one pickle that is ever read is the source of `models export --trust-pickle`, in the confined process of
`app/models/conversion.py`; its PyTorch twin is `export_torch.py`. Nothing but that process imports them.
"""

import re
import subprocess
import sys
from pathlib import Path

APP = Path(__file__).parents[3] / "app"


def test_nothing_in_the_program_reads_pickles_or_registers_operators():
    forbidden = re.compile(
        r"(import|from) (c?pickle|joblib|cloudpickle|dill|marshal|shelve|torch)\b"
        r"|register_custom_ops|allow_pickle=True|\b(joblib|pickle|torch|torch\.export|torch\.jit)\.load"
    )
    run_time = [file for file in APP.rglob("*.py") if "train" not in file.parts]
    found = {file.name for file in run_time if forbidden.search(file.read_text(encoding="utf-8"))}
    assert found == {"conversion.py", "export_torch.py"}


def test_the_confined_process_alone_runs_the_conversions():
    imports = re.compile(r"from app\.models\.(conversion|export_torch|export_trees|export) import (.+)")
    users = {
        (file.name, found[1], found[2]) for file in APP.rglob("*.py") for found in imports.finditer(file.read_text())
    }
    assert {(user, names) for user, module, names in users if module == "export_torch"} == {
        ("conversion.py", "torch_original  # noqa: PLC0415 - the extra may not be installed")
    }
    assert {user for user, module, names in users if module == "conversion" and "main" in names} == {"sandbox.py"}


def test_a_worker_imports_nothing_it_could_train_or_unpickle_models_with():
    libraries = "{'sklearn', 'joblib', 'skl2onnx', 'torch', 'lightgbm', 'xgboost', 'onnxmltools'}"
    script = f"import sys, app.wiring.processes, app.wiring.conversion; print({libraries} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=APP.parent, check=True)
    assert done.stdout.strip() == "set()"
