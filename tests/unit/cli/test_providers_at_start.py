"""A worker told to use an execution provider that it does not have says which it has, and does not start."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.models.model_store import open_store
from app.train.training import train_model

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = """
kafka: {{bootstrap_servers: "127.0.0.1:9"}}
schemas: {{directory: {root}/schemas}}
models: {{store: "{store}", providers: [CUDAExecutionProvider, CPUExecutionProvider]}}
pipelines:
  - {{name: churn, input_topics: [in], output_topic: out, dead_letter_topic: dead, model: churn}}
"""


@pytest.mark.parametrize("command", [("run",), ("check-config", "--live")])
def test_the_exit_status_is_2_and_the_providers_there_are_are_named(command, tmp_path):
    store = open_store(str(tmp_path / "models"), tmp_path, create=True)
    train_model("churn", store, schemas=ROOT / "schemas", at=NOW, who="a test", rows=500)
    (tmp_path / "worker.yaml").write_text(SETTINGS.format(root=ROOT, store=tmp_path / "models"))
    started = [sys.executable, "-m", "app", *command, "--config", str(tmp_path / "worker.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "400"}
    done = subprocess.run(
        started, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert "BadSettings: models.providers: CUDAExecutionProvider is not in this build of ONNX Runtime" in said
    assert "which offers" in said
    assert "CPUExecutionProvider" in said
