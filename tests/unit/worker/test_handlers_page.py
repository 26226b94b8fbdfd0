"""What docs/HANDLERS.md shows works as it stands there."""

import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from fakes import FakeModel, giving

from app import handler as promised
from app.answering.handler_start import handled
from app.avro.columns import reader_columns
from app.avro.schemas import SchemaDirectory
from app.errors import HandlerInvalid, Reason, Stage
from app.pipeline.infer import OutputPolicy
from app.records import Columns
from app.settings.pipelines import Pipeline
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput, ValueOutput

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/HANDLERS.md").read_text()
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(YAML,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
FIELDS = ("income", "monthly_charges", "total_charges")
INPUTS = (InputSpec(name="X", features=tuple(NumberFeature(field=name) for name in FIELDS)),)
OUTPUT = ProbabilitiesOutput(
    name="P", classes=(0, 1), threshold=0.5,
    fields={"prediction": "class", "will_churn": "positive", "probability": "probability", "confidence": "confidence"},
)  # fmt: skip
GOLDEN = {"X": np.ones((2, 3), np.float32)}


def by_income(tensors):
    """The logit is the logarithm of the income, less 10."""
    p = 1 / (1 + np.exp(10 - tensors["X"][:, 0].astype(np.float64)))
    return {"P": np.stack([1 - p, p], axis=1)}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The handler of the page, importable under the name that its settings give."""
    pipeline = Pipeline(**yaml.safe_load(YAML)["pipelines"][0])
    module = pipeline.handler.partition(":")[0]
    (tmp_path / f"{module}.py").write_text(PYTHON)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    return pipeline.handler


@pytest.fixture(scope="module")
def event():
    return reader_columns(SchemaDirectory(ROOT / "schemas").named("ChurnEvent"))


def test_its_tensors_are_logarithms_and_its_probability_is_calibrated(path, event):
    model = FakeModel(INPUTS, (OUTPUT,), by_income)
    plan, outputs = handled(path, model, event, GOLDEN)
    rows = [
        {"income": 20_000.0, "monthly_charges": 10.0, "total_charges": None},
        {"income": 90_000.0, "monthly_charges": -1.0, "total_charges": 5.0},
        {"income": 90_000.0, "monthly_charges": float("nan"), "total_charges": 5.0},
        {"income": 30_000.0, "monthly_charges": 10.0, "total_charges": 7.0},
    ]
    features = plan.apply(Columns(pa.RecordBatch.from_pylist(rows, schema=event), np.arange(4)))
    assert features.rows.tolist() == [0, 3]
    assert [(item.row, item.stage, item.reason, item.message) for item in features.rejected] == [
        (1, Stage.FEATURES, Reason.OUT_OF_RANGE, "an amount is negative"),
        (2, Stage.FEATURES, Reason.NOT_FINITE, "preprocess gave input 'X' what is not finite"),
    ]
    np.testing.assert_allclose(features.tensors["X"], np.log1p([[20_000, 10, 0], [30_000, 10, 7]]), rtol=1e-6)
    answer = outputs.infer(model, features.tensors, features.rows, OutputPolicy())
    p = 1 / (1 + np.exp(-(1.3 * (np.log1p([20_000, 30_000]) - 10) - 0.2)))
    np.testing.assert_allclose(answer.fields["probability"], p, rtol=1e-4)
    assert answer.fields["prediction"].tolist() == [0, 1]
    assert answer.fields["will_churn"].tolist() == [False, True]
    np.testing.assert_allclose(answer.confidence, [1 - p[0], p[1]], rtol=1e-4)
    assert answer.results == {"0": 1, "1": 1}


def test_it_refuses_a_model_that_it_was_not_made_for(path, event):
    model = FakeModel(INPUTS, (ValueOutput(name="P"),), giving(P=[1.0, 2.0]))
    with pytest.raises(HandlerInvalid, match="ValueError: made for a model with two classes and a threshold"):
        handled(path, model, event, GOLDEN)


def test_every_name_that_app_handler_promises_is_there():
    assert all(hasattr(promised, name) for name in promised.__all__)
