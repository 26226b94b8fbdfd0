"""Training: what is published is labelled and measured, loads in the worker, and can be made again."""

import builtins
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from app.errors import BadSettings
from app.models.model_store import open_store
from app.models.runtime import RuntimePolicy, load_model
from app.train.candidate import tensor_of
from app.train.churn_data import ChurnFormula
from app.train.digits import digits_data
from app.train.training import train_model

SCHEMAS = Path(__file__).parents[3] / "schemas"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store("store", tmp_path_factory.mktemp("train"), create=True)


def train(store, pipeline, **options):
    return train_model(pipeline, store, schemas=SCHEMAS, at=NOW, who="a test", **options)


@pytest.fixture(scope="module")
def logistic(store):
    return train(store, "churn", rows=20_000, seed=3)


@pytest.fixture(scope="module")
def digits(store):
    return train(store, "digits", seed=3)


def test_churn_comes_close_to_what_can_be_known(logistic):
    metrics = logistic.metrics
    assert metrics["held_out_rows"] == 4000
    assert metrics["bayes_accuracy"] - 0.02 < metrics["accuracy"] < metrics["bayes_accuracy"] + 0.02
    assert metrics["auc"] > 0.9
    assert metrics["log_loss"] < 0.37


def test_churn_is_labelled_as_generated_and_digits_as_what_they_are(logistic, digits):
    assert logistic.data == "generated"
    assert digits.data == "scikit-learn digits"


def test_a_forest_is_trained_on_request(store):
    manifest = train(store, "churn", estimator="forest", rows=4000)
    assert manifest.training["estimator"] == "forest"
    assert manifest.metrics["accuracy"] > 0.8


def test_digits_are_read_as_well_as_a_perceptron_can(digits):
    assert digits.metrics["held_out_rows"] == 359
    assert digits.metrics["accuracy"] > 0.95
    assert digits.training["held_out"] == "row number % 5 == 4"


@pytest.mark.parametrize(("pipeline", "options"), [("churn", {"rows": 20_000}), ("digits", {})])
def test_the_same_seed_gives_the_same_bytes(store, logistic, digits, pipeline, options):
    again = train(store, pipeline, seed=3, **options)
    first = logistic if pipeline == "churn" else digits
    assert again.version != first.version
    assert again.digest == first.digest
    assert again.model_copy(update={"version": first.version}) == first


def test_another_seed_gives_another_model(store, logistic):
    assert train(store, "churn", rows=20_000, seed=4).digest != logistic.digest


def test_a_published_model_loads_and_answers_the_held_out_digits_as_its_manifest_says(store, digits):
    model = load_model(store.fetch("digits", digits.version), RuntimePolicy())
    data = digits_data()
    tensor = tensor_of(data.table, model.inputs[0])[data.held_out]
    answers = model.run({"X": tensor})["probabilities"].argmax(axis=1)
    assert float((answers == data.labels[data.held_out]).mean()) == digits.metrics["accuracy"]


def test_the_replacement_of_a_missing_total_is_the_median_of_the_training_rows(logistic):
    totals = ChurnFormula.load(SCHEMAS).customers(3, 0, 20_000).table.column("total_charges").slice(0, 16_000)
    features = {feature.field: feature for feature in logistic.inputs[0].features}
    assert features["total_charges"].missing.impute == np.median(totals.drop_null().to_numpy())


def test_every_feature_has_its_reference_and_the_model_its_golden_rows(logistic, digits):
    for manifest in (logistic, digits):
        assert set(manifest.reference) == {feature.field for feature in manifest.inputs[0].features}
        assert len(manifest.golden.inputs["X"]) == len(manifest.golden.outputs["probabilities"]) == 16
    assert 0.01 < logistic.reference["total_charges"].missing < 0.03
    assert sum(logistic.reference["plan"].counts.values()) == 16_000


def test_predictions_fill_the_fields_of_the_prediction_schemas(logistic, digits):
    assert logistic.outputs[0].fields == {
        "prediction": "class",
        "will_churn": "positive",
        "probability": "probability",
        "confidence": "confidence",
    }
    assert (logistic.outputs[0].threshold, logistic.outputs[0].classes) == (0.5, (0, 1))
    assert digits.outputs[0].fields["probabilities"] == "probabilities"
    assert digits.outputs[0].classes == tuple(range(10))


@pytest.mark.parametrize(
    ("pipeline", "options", "message"),
    [
        ("churn", {"estimator": "oracle"}, "estimator is 'oracle', allowed for churn: logistic, forest"),
        ("digits", {"estimator": "forest"}, "allowed for digits: mlp"),
        ("churn", {"rows": 3}, "rows is 3, allowed 500"),
        ("churn", {"rows": -1}, "rows is -1, allowed 500"),
        ("churn", {"rows": 0}, "rows is 0, allowed 500"),
        ("digits", {"rows": 100}, "rows is 100: only churn is generated"),
        ("churn", {"seed": -1}, "seed is -1"),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(store, pipeline, options, message):
    with pytest.raises(BadSettings, match=message):
        train(store, pipeline, **options)


@pytest.mark.parametrize("pipeline", ["churn", "digits"])
def test_without_the_training_libraries_the_extra_is_named(store, monkeypatch, pipeline):
    real = builtins.__import__

    def without_sklearn(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, f"app.train.{pipeline}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(BadSettings, match=r"pip install 'kafka-inference-worker\[train\]'"):
        train(store, pipeline)


def test_nothing_but_a_training_run_imports_the_training_libraries():
    code = "import sys, app.train.training; sys.exit(any(m in sys.modules for m in ('sklearn', 'skl2onnx')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=SCHEMAS.parent).returncode == 0
