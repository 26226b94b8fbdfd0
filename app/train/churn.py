"""The churn model: will this customer leave? Trained on GENERATED customers, and labelled so everywhere."""

from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from app.models.export import classifier_to_onnx
from app.models.manifest import ModelCard
from app.specs import Impute, InputSpec, NumberFeature, OneHotFeature, ProbabilitiesOutput
from app.train.candidate import Array, Candidate, Progress, golden_of, tensor_of
from app.train.churn_data import ChurnFormula, Customers
from app.train.reference import reference_of

ChurnEstimator = Literal["logistic", "forest"]
HELD_OUT_SHARE = 0.2  # the last rows: the generator has no order, so they are as good as any
THRESHOLD = 0.5


def train_churn(schemas: Path, *, estimator: ChurnEstimator, rows: int, seed: int, progress: Progress) -> Candidate:
    """Generate `rows` customers, fit on the first four fifths, keep the rest for measuring.

    The same arguments give the same model.
    """
    progress(f"generating {rows:,} customers")
    customers = ChurnFormula.load(schemas).customers(seed, 0, rows)
    cut = rows - int(rows * HELD_OUT_SHARE)
    training = customers.table.slice(0, cut)
    spec = _input_spec(training)
    tensor = tensor_of(customers.table, spec)
    progress(f"fitting {estimator} on {cut:,} customers")
    fitted = _estimator(estimator, seed).fit(tensor[:cut], customers.churned[:cut].astype(np.int64))
    held_out = tensor[cut:]
    card = ModelCard(
        data="generated",
        event_schema="ChurnEvent",
        prediction_schema="ChurnPrediction",
        inputs=(spec,),
        outputs=(
            ProbabilitiesOutput(
                name="probabilities",
                classes=(0, 1),
                threshold=THRESHOLD,
                fields={
                    "prediction": "class",
                    "will_churn": "positive",
                    "probability": "probability",
                    "confidence": "confidence",
                },
            ),
        ),
        golden=golden_of(spec.name, held_out, fitted.predict_proba(held_out)),
        reference=reference_of(training, (spec,)),
        training={
            "estimator": estimator,
            "rows": rows,
            "seed": seed,
            "held_out": f"rows {cut} to {rows - 1}",
            "scikit-learn": version("scikit-learn"),
            "skl2onnx": version("skl2onnx"),
        },
    )

    def measure(probabilities: Array) -> dict[str, int | float]:
        return _metrics(probabilities[:, 1], customers, cut)

    return Candidate(card, classifier_to_onnx(fitted, spec.width, "churn"), {spec.name: held_out}, measure)


def _input_spec(training: pa.RecordBatch) -> InputSpec:
    median = float(np.median(training.column("total_charges").drop_null().to_numpy()))
    return InputSpec(
        name="X",
        features=(
            NumberFeature(field="age", min=18, max=120),
            NumberFeature(field="income", min=0),
            NumberFeature(field="tenure_months", min=0),
            NumberFeature(field="monthly_charges", min=0),
            NumberFeature(field="total_charges", min=0, missing=Impute(impute=median)),
            OneHotFeature(field="plan", categories=tuple(training.column("plan").dictionary.to_pylist())),
        ),
    )


def _estimator(name: ChurnEstimator, seed: int) -> Any:  # noqa: ANN401 - scikit-learn ships no types
    if name == "forest":
        return RandomForestClassifier(n_estimators=100, max_depth=6, random_state=seed, n_jobs=-1)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


def _metrics(probability: npt.NDArray[Any], customers: Customers, cut: int) -> dict[str, int | float]:
    """Judge the held-out customers; Bayes accuracy is what a model that knew the formula would expect."""
    truth, known = customers.churned[cut:], customers.probability[cut:]
    return {
        "held_out_rows": len(truth),
        "accuracy": float(accuracy_score(truth, probability >= THRESHOLD)),
        "auc": float(roc_auc_score(truth, probability)),
        "log_loss": float(log_loss(truth, probability.astype(np.float64))),
        "bayes_accuracy": float(np.maximum(known, 1 - known).mean()),
        "churn_share": float(truth.mean()),
    }
