"""`inference-worker demo`: the whole product in one process, with nothing to set up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mock_broker

ROOT = Path(__file__).parents[2]
DEAD_PORT = "127.0.0.1:1"


def demo(folder, *arguments, **environment):
    """Run it in an empty folder, where it finds no model yet."""
    return subprocess.run(
        [sys.executable, "-m", "app", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.parametrize("pipeline", ["churn", "digits"])
def test_the_demo_passes_from_an_empty_folder_whatever_the_environment_says(pipeline, tmp_path):
    done = demo(
        tmp_path,
        *("--pipeline", pipeline, "--events", "4000", "--json"),
        KAFKA_BOOTSTRAP_SERVERS=DEAD_PORT,
        SCHEMA_REGISTRY_URL=f"http://{DEAD_PORT}",
        KAFKA_GROUP_ID="somebody-elses",
        INFERENCE_DELIVERY__MODE="at_least_once",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["passed"]
    assert (verdict["lost"], verdict["duplicated"]) == (0, 0)
    assert (verdict["predictions"], verdict["dead_letters"]) == (3980, 20)
    assert verdict["broken"] == 20
    assert 0 < verdict["p50_s"] <= verdict["p99_s"]
    assert verdict["accuracy"] >= verdict["promised_accuracy"] - 0.05 > 0.7
    assert versions(tmp_path, pipeline) == ["1"]
    if pipeline == "churn":
        again = demo(tmp_path, "--events", "2000")
        assert again.returncode == 0, again.stdout + again.stderr
        assert "generated customers" in again.stdout
        assert "nothing lost, nothing doubled" in again.stdout
        assert versions(tmp_path, pipeline) == ["1"]  # not trained again


def versions(folder, model):
    """Of a model in the demo's store."""
    return [path.name for path in (folder / "var/models" / model).iterdir() if path.is_dir()]
