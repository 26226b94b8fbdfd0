"""Eight bits: a quantized version is published with what it costs and brings, or refused."""

import builtins
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.errors import BadSettings, ModelInvalid, ModelMissing
from app.models.held_out import HeldOut
from app.models.manifest import Golden
from app.models.model_store import open_store
from app.models.quantize import influence_of_neighbours, quantize_model
from app.models.runtime import RuntimePolicy, load_model
from app.specs import InputSpec, ProbabilitiesOutput, TensorFeature, ValueOutput
from app.train.digits import digits_data
from app.train.training import train_model
from app.wiring.conversion import model_inputs

SCHEMAS = Path(__file__).parents[3] / "schemas"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODES = ("dynamic", "static")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A store with the shipped digits model, the rows it was trained on, and those it never saw."""
    store = open_store("store", tmp_path_factory.mktemp("quantize"), create=True)
    manifest = train_model("digits", store, schemas=SCHEMAS, at=NOW, who="a test")
    data = digits_data()
    tensor = model_inputs(data.table, manifest.inputs)["X"]
    return store, {"X": tensor[~data.held_out]}, HeldOut({"X": tensor[data.held_out]}, data.labels[data.held_out])


def quantize(world, mode, *, model="digits", version="1", loss=0.01, held_out=None, **more):
    store, calibration, rows = world
    options = {"calibration": calibration, "held_out": held_out or rows, "max_accuracy_loss": loss} | more
    return quantize_model(store, model, version, mode, **options, at=NOW, who="me")


@pytest.fixture(scope="module", params=MODES)
def quantized(request, digits):
    return quantize(digits, request.param)


def test_the_shipped_digits_model_is_less_than_half_the_size_and_as_right(quantized):
    assert quantized.after.size_bytes < quantized.before.size_bytes / 2
    assert quantized.loss <= 0.01
    assert quantized.agreement.same_class > 0.98
    assert min(quantized.before.rows_per_second, quantized.after.rows_per_second) > 0


def test_what_was_measured_is_in_the_manifest(quantized):
    metrics, facts = quantized.manifest.metrics, quantized.manifest.training
    assert (metrics["accuracy_before"], metrics["accuracy"]) == (quantized.before.accuracy, quantized.after.accuracy)
    assert metrics["accuracy_loss"] == quantized.loss
    assert metrics["size_bytes"] < metrics["size_bytes_before"]
    assert metrics["speed_up"] == metrics["rows_per_second"] / metrics["rows_per_second_before"]
    assert facts["quantized_from"] == "1"
    assert facts["estimator"] == "mlp"


def test_the_worker_loads_it_by_golden_rows_of_its_own(quantized, digits):
    store, _, rows = digits
    first, own = store.manifest("digits", "1").golden, quantized.manifest.golden
    assert own.outputs != first.outputs
    assert own.atol >= max(0.01, 2 * quantized.neighbours)
    loaded = load_model(store.fetch("digits", quantized.manifest.version), RuntimePolicy())
    assert loaded.run(rows.tensors)["probabilities"].shape == (len(rows), 10)


def test_a_static_version_answers_a_row_alike_in_any_company(digits):
    assert quantize(digits, "static").neighbours == 0


def test_its_products_are_in_eight_bits_and_its_weights_in_seven(quantized, digits):
    store, _, _ = digits
    graph = onnx.load_from_string(store.fetch("digits", quantized.manifest.version).files["model.onnx"]).graph
    weights = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == TensorProto.INT8 and t.dims]
    matrices = [matrix for matrix in weights if matrix.ndim == 2]
    assert len(matrices) == 2
    assert all(np.abs(matrix.astype(int)).max() <= 64 for matrix in matrices)


@pytest.mark.parametrize("mode", MODES)
def test_without_labels_the_loss_is_the_share_of_rows_that_change_their_class(mode, digits):
    rows = digits[2]
    done = quantize(digits, mode, held_out=HeldOut(rows.tensors))
    assert done.loss == 1 - done.agreement.same_class
    assert done.before.accuracy is None
    assert "accuracy" not in done.manifest.metrics


def test_calibration_that_knows_no_digit_costs_accuracy_and_is_refused(digits):
    store = digits[0]
    before = store.versions("digits")
    blank = {"X": np.zeros((64, 64), np.float32)}
    with pytest.raises(ModelInvalid, match=r"static: 0\.\d+ of the accuracy is lost, 0\.97\d+, allowed 0.01, over 359"):
        quantize(digits, "static", calibration=blank)
    with pytest.raises(ModelInvalid, match=r"of the rows change their class, allowed 0.01"):
        quantize(digits, "static", calibration=blank, held_out=HeldOut(digits[2].tensors))
    assert store.versions("digits") == before


def test_a_model_without_matrix_products_is_refused(digits):
    store = digits[0]
    train_model("churn", store, schemas=SCHEMAS, at=NOW, who="a test", rows=2_000)
    rows = {"X": np.ones((20, 8), np.float32)}
    with pytest.raises(ModelInvalid, match=r"there is no matrix product to quantize in .*LinearClassifier"):
        quantize(digits, "dynamic", model="churn", held_out=HeldOut(rows))
    assert store.versions("churn") == ["1"]


@pytest.mark.parametrize("loss", [-0.1, 1, float("nan")])
def test_an_allowed_loss_that_makes_no_sense_is_refused(loss, digits):
    with pytest.raises(BadSettings, match="max-accuracy-loss is"):
        quantize(digits, "dynamic", loss=loss)


@pytest.mark.parametrize(("model", "version"), [("digits", "99"), ("none", "1"), ("digits", "../1"), ("..", "1")])
def test_a_version_that_is_not_there_is_refused(model, version, digits):
    with pytest.raises(ModelMissing):
        quantize(digits, "dynamic", model=model, version=version)


def test_labels_of_another_kind_are_refused(digits):
    rows = digits[2]
    with pytest.raises(BadSettings, match="the label 'seven' is none of the classes"):
        quantize(digits, "dynamic", held_out=HeldOut(rows.tensors, np.array(["seven"] * len(rows))))


def test_without_onnx_the_extra_is_named(digits, monkeypatch):
    real = builtins.__import__

    def without_onnx(name, *rest, **more):
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "onnx")
    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(BadSettings, match=r"needs onnx, which is not installed.*\[quantize\]"):
        quantize(digits, "dynamic")


def network(weights, output, width):
    """y = x · W, as ONNX bytes with the weights in a file beside it."""
    tensor = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[width, 2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "w.data", "offset": "0", "length": str(weights.nbytes)}.items():
        tensor.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "W"], [output])],
        "by hand",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 2])],
        [tensor],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.fixture
def by_hand(make_card, tmp_path):
    """A store with a product of 64 columns whose weights lie beside the graph, and rows for it."""
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(64, 2)) / 200).astype(np.float32)
    weights[:, 1] += 0.01
    rows = rng.random((50, 64), np.float32)
    answers = rows @ weights
    card = make_card(
        inputs=(InputSpec(name="X", features=(TensorFeature(field="x", length=64),)),),
        golden=Golden(inputs={"X": rows[:4].tolist()}, outputs={"probabilities": answers[:4].tolist()}, atol=1e-5),
    )
    store = open_store("store", tmp_path, create=True)
    files = {"model.onnx": network(weights, "probabilities", 64), "w.data": weights.tobytes()}
    store.publish("hand", card, files, at=NOW, who="a test")
    return store, {"X": rows}, HeldOut({"X": rows})


@pytest.mark.parametrize("mode", MODES)
def test_weights_kept_beside_the_graph_come_along(mode, by_hand):
    store = by_hand[0]
    done = quantize(by_hand, mode, model="hand", loss=0.05)
    assert list(store.fetch("hand", done.manifest.version).files) == ["model.onnx"]


def test_an_answer_that_moves_too_much_with_its_neighbours_is_refused(by_hand):
    store, rows, _ = by_hand
    far = rows["X"].copy()
    far[40] = 1e4  # one such row in a batch leaves its neighbours two steps of the scale
    with pytest.raises(
        ModelInvalid, match=r"moves by .* with the batch that its row is in; try static|change their class"
    ):
        quantize(by_hand, "dynamic", model="hand", loss=0.99, held_out=HeldOut({"X": far}))
    assert store.versions("hand") == ["1"]


def test_neighbours_do_not_move_a_float_model(by_hand):
    store, rows, _ = by_hand
    model = load_model(store.fetch("hand", "1"), RuntimePolicy())
    assert influence_of_neighbours(model, rows, model.run(rows)) < 1e-6


def test_a_regression_has_no_accuracy_to_lose(by_hand, make_card, make_graph):
    store = by_hand[0]
    card = make_card(
        outputs=(ValueOutput(name="value"),), golden=Golden(inputs={"X": ((1,),)}, outputs={"value": ((1,),)})
    )
    store.publish("number", card, {"model.onnx": make_graph(output="value")}, at=NOW, who="a test")
    with pytest.raises(BadSettings, match="has no classes"):
        quantize(by_hand, "dynamic", model="number")


def test_classes_named_by_words_work_as_well(by_hand):
    assert isinstance(by_hand[0].manifest("hand", "1").outputs[0], ProbabilitiesOutput)
    labels = np.array(["no", "yes"] * 25)
    rows = HeldOut(by_hand[1], labels)
    done = quantize(by_hand, "static", model="hand", loss=0.2, held_out=rows)
    assert done.before.accuracy is not None
