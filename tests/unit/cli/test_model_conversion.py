"""`models export` and `models quantize` as they are typed, exit status and what is printed included."""

import json
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from sklearn.linear_model import LogisticRegression

ROOT = Path(__file__).parents[3]
SPEC = """
data: by hand
event_schema: ChurnEvent
prediction_schema: ChurnPrediction
inputs:
  - name: X
    features:
      - {kind: number, field: age, min: 18, max: 120}
      - {kind: one_hot, field: plan, categories: [basic, premium]}
outputs:
  - {kind: probabilities, name: probabilities, classes: [0, 1]}
"""


@pytest.fixture
def worker(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "app", "models", *map(str, arguments)]
        environment = {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
        )

    return run


@pytest.fixture
def churn(tmp_path):
    """A fitted classifier, its spec, and held-out events with labels."""
    ages, premium = np.arange(20, 100), np.arange(80) % 2
    inputs = np.stack([ages, 1 - premium, premium], axis=1).astype(np.float32)
    joblib.dump(LogisticRegression().fit(inputs, ages > 50), tmp_path / "wrong.joblib")
    joblib.dump(LogisticRegression().fit(inputs, (ages > 50).astype(int)), tmp_path / "churn.joblib")
    (tmp_path / "spec.yaml").write_text(SPEC)
    plans = [("basic", "premium")[index] for index in premium]
    table = pa.table({"age": ages, "plan": plans, "left": (ages > 50).astype(int)})
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    given = ("--framework", "sklearn", "--spec", "spec.yaml", "--holdout", "rows.parquet", "--label", "left")
    return (*given, "--model", "churn", "--store", "models")


def test_a_classifier_is_exported_judged_and_published(worker, churn):
    done = worker("export", "churn.joblib", *churn, "--trust-pickle", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["model"], facts["version"]) == ("churn", "1")
    assert facts["agreement"]["rows"] == 80
    assert facts["agreement"]["max_difference"] <= 1e-5
    assert facts["metrics"]["accuracy"] > 0.9
    again = worker("export", "churn.joblib", *churn, "--trust-pickle")
    assert again.returncode == 0, again.stderr
    assert "churn version 2" in again.stdout
    assert "100.00%" in again.stdout


def test_without_the_flag_a_pickle_is_refused_as_a_bad_start(worker, churn, tmp_path):
    done = worker("export", "churn.joblib", *churn)
    assert done.returncode == 2
    assert "BadSettings: churn.joblib can hold code" in done.stderr
    assert "--trust-pickle" in done.stderr
    assert not (tmp_path / "models").exists()


def test_the_help_says_that_trust_means_running_code(worker):
    assert "can RUN CODE" in " ".join(worker("export", "--help").stdout.replace("│", " ").split())


def test_the_shipped_digits_model_is_quantized_by_one_command(worker):
    assert worker("train", "digits", "--store", "models").returncode == 0
    done = worker("quantize", "digits", "--mode", "static", "--store", "models")
    assert done.returncode == 0, done.stderr
    assert [word in done.stdout for word in ("bytes", "rows/s", "accuracy", "same class")] == [True] * 4
    done = worker("quantize", "digits/1", "--mode", "dynamic", "--store", "models", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["version"] == "3"
    assert facts["after"]["size_bytes"] < facts["before"]["size_bytes"]
    assert facts["loss"] <= 0.01
    refused = worker("quantize", "digits/99", "--mode", "dynamic", "--store", "models")
    assert refused.returncode == 2
    assert "has no version '99'" in refused.stderr


def test_rows_must_be_given_for_other_models(worker, churn):
    assert worker("export", "churn.joblib", *churn, "--trust-pickle").returncode == 0
    refused = worker("quantize", "churn", "--mode", "static", "--store", "models")
    assert (refused.returncode, "--holdout is needed" in refused.stderr) == (2, True)
    refused = worker("quantize", "churn", "--mode", "static", "--holdout", "rows.parquet", "--store", "models")
    assert (refused.returncode, "needs --calibration" in refused.stderr) == (2, True)
