"""Loading: a model is verified and warm, or refused with what is wrong; and running it."""

import time
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from onnx import TensorProto

from app.errors import ModelFailed, ModelInvalid
from app.models.manifest import Golden
from app.models.model_store import StoredModel
from app.models.runtime import RuntimePolicy, load_model
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput, ValueOutput

POLICY = RuntimePolicy(warm_up_rows=(1, 7))
X = NumberFeature(field="x")


def outside(location, tensor="W"):
    """An initializer whose numbers are kept in a file beside the graph."""
    proto = TensorProto(name=tensor, data_type=TensorProto.FLOAT, dims=[1, 2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "8"}.items():
        proto.external_data.add(key=key, value=value)
    return proto


@pytest.fixture
def bias():
    return TensorProto(name="B", data_type=TensorProto.FLOAT, dims=[2], float_data=[1, 0])


def test_a_loaded_model_answers_row_by_row(make_graph, stored):
    model = load_model(stored(make_graph()), POLICY)
    answers = model.run({"X": np.array([[0], [3], [4]], np.float32)})
    assert answers["probabilities"].tolist() == [[1, 0], [0.25, 0.75], [0, 1]]


def test_a_model_is_given_no_more_rows_at_a_time_than_it_takes(make_graph, stored):
    model = load_model(stored(make_graph()), RuntimePolicy(warm_up_rows=(1,), max_rows=3))
    given, session = [], model._session

    class Watched:
        def run(self, names, tensors):
            given.append(len(tensors["X"]))
            return session.run(names, tensors)

    model._session = Watched()
    rows = np.arange(8, dtype=np.float32).reshape(-1, 1) / 2
    together = model.run({"X": rows})["probabilities"]

    assert given == [3, 3, 2]
    assert together.tolist() == [model.run({"X": row[None]})["probabilities"][0].tolist() for row in rows]


def test_parts_of_a_large_batch_are_scored_side_by_side_and_answered_in_order(make_graph, stored):
    model = load_model(stored(make_graph()), RuntimePolicy(warm_up_rows=(1,), max_rows=2, runs_at_once=2))
    both, session = Barrier(2), model._session

    class Watched:
        def run(self, names, tensors):
            both.wait(10)
            return session.run(names, tensors)

    rows = np.arange(8, dtype=np.float32).reshape(-1, 1) / 2
    alone = [model.run({"X": row[None]})["probabilities"][0].tolist() for row in rows]
    model._session = Watched()
    assert model.run({"X": rows})["probabilities"].tolist() == alone


def test_a_part_that_fails_fails_the_batch(make_graph, stored):
    model = load_model(stored(make_graph()), RuntimePolicy(warm_up_rows=(1,), max_rows=2, runs_at_once=2))
    session = model._session

    class Fails:
        def run(self, names, tensors):
            if 3 in tensors["X"]:
                raise RuntimeError("no")
            return session.run(names, tensors)

    model._session = Fails()
    with pytest.raises(ModelFailed, match="version 1: no"):
        model.run({"X": np.arange(5, dtype=np.float32).reshape(-1, 1)})


def test_a_loaded_model_says_who_it_is(make_graph, stored):
    package = stored(make_graph())
    model = load_model(package, POLICY)
    assert (model.name, model.version, model.event_schema) == ("hand", "1", "Event")
    assert package.manifest.digest["model.onnx"].startswith(f"sha256:{model.digest}")
    assert len(model.digest) == 16
    assert model.load_s > 0


def test_one_changed_byte_is_refused_before_the_runtime_sees_it(make_graph, stored):
    package = stored(make_graph())
    graph = bytearray(package.files["model.onnx"])
    graph[-1] ^= 1
    with pytest.raises(ModelInvalid, match=r"model\.onnx has the digest sha256:.*, its manifest says sha256:"):
        load_model(StoredModel(package.manifest, {"model.onnx": bytes(graph)}), POLICY)


@pytest.mark.parametrize("graph", [b"", b"not a graph" * 10, b"\x08\x09"])
def test_bytes_that_are_no_graph_are_refused(stored, graph):
    with pytest.raises(ModelInvalid, match="ONNX Runtime refuses it"):
        load_model(stored(graph), POLICY)


def test_an_operator_nobody_knows_is_refused(make_graph, stored):
    with pytest.raises(ModelInvalid, match="ONNX Runtime refuses it"):
        load_model(stored(make_graph(operator="Evil", domain="evil.ops")), POLICY)


def test_tensors_kept_beside_the_graph_come_from_the_listed_files(make_graph, stored, bias):
    weights = np.array([-0.25, 0.25], np.float32).tobytes()
    graph = make_graph(initializers=[outside("w.data"), bias])
    model = load_model(stored(graph, {"w.data": weights}), POLICY)
    assert model.run({"X": np.array([[2]], np.float32)})["probabilities"].tolist() == [[0.5, 0.5]]


@pytest.fixture
def folder_with_weights(tmp_path, monkeypatch):
    (tmp_path / "w.data").write_bytes(np.array([-0.25, 0.25], np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("location", ["w.data", "../{here}/w.data", "{folder}/w.data", "/etc/passwd", "/dev/zero"])
def test_tensors_elsewhere_on_the_disk_are_never_read(make_graph, stored, bias, folder_with_weights, location):
    location = location.format(here=folder_with_weights.name, folder=folder_with_weights)
    with pytest.raises(ModelInvalid, match="ONNX Runtime refuses it"):
        load_model(stored(make_graph(initializers=[outside(location), bias])), POLICY)


def golden(inputs=((0,), (4,)), outputs=((1, 0), (0, 1)), name="X", atol=1e-5):
    return Golden(inputs={name: inputs}, outputs={"probabilities": outputs}, atol=atol)


def test_a_golden_row_that_comes_out_otherwise_is_refused_with_the_difference(make_graph, stored):
    wrong = golden(outputs=((1, 0), (0.125, 0.875)))
    with pytest.raises(ModelInvalid, match=r"differs from golden row 1 by 0.125, allowed 1e-05"):
        load_model(stored(make_graph(), golden=wrong), POLICY)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int32", 2**31), ("int64", 2**63), ("int32", -(2**31) - 1), ("float32", 1e39), ("float64", 10**400)],
)
def test_a_golden_row_that_its_input_cannot_hold_is_refused_by_name(make_graph, stored, dtype, value):
    kind = {"int32": TensorProto.INT32, "int64": TensorProto.INT64, "float64": TensorProto.DOUBLE}
    graph = make_graph(dtype=kind.get(dtype, TensorProto.FLOAT))
    spec = InputSpec(name="X", dtype=dtype, features=(NumberFeature(field="x"),))
    with pytest.raises(ModelInvalid, match=f"golden rows of input 'X' are no {dtype}"):
        load_model(stored(graph, inputs=(spec,), golden=golden(inputs=((0,), (value,)))), POLICY)


def test_a_golden_answer_that_no_float_holds_is_refused_by_name(make_graph, stored):
    with pytest.raises(ModelInvalid, match="golden rows of output 'probabilities' are no float64"):
        load_model(stored(make_graph(), golden=golden(outputs=((1, 0), (10**400, 1)))), POLICY)


def test_a_golden_row_within_its_tolerance_is_accepted(make_graph, stored):
    load_model(stored(make_graph(), golden=golden(outputs=((1, 0), (0.0625, 0.9375)), atol=0.07)), POLICY)


def test_a_model_that_answers_nan_is_refused(make_graph, stored, bias):
    nan = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[1, 2], float_data=[float("nan")] * 2)
    with pytest.raises(ModelInvalid, match="differs from golden row"):
        load_model(stored(make_graph(initializers=[nan, bias])), POLICY)


def test_a_graph_with_another_input_is_refused(make_graph, stored):
    spec = InputSpec(name="Z", features=(X,))
    with pytest.raises(ModelInvalid, match="the graph takes X, its manifest describes Z"):
        load_model(stored(make_graph(), inputs=(spec,), golden=golden(name="Z")), POLICY)


def test_a_graph_of_another_width_is_refused(make_graph, stored):
    with pytest.raises(ModelInvalid, match=r"input 'X' has the shape \['N', 3\], its manifest says \['N', 1\]"):
        load_model(stored(make_graph(width=3)), POLICY)


def test_a_graph_of_another_dtype_is_refused(make_graph, stored):
    with pytest.raises(ModelInvalid, match=r"input 'X' is tensor\(double\), its manifest says float32"):
        load_model(stored(make_graph(dtype=TensorProto.DOUBLE)), POLICY)


def test_a_graph_for_one_row_only_is_refused(make_graph, stored):
    with pytest.raises(ModelInvalid, match="takes exactly 1 rows, it must take any number"):
        load_model(stored(make_graph(rows=1)), POLICY)


def test_a_graph_without_the_output_is_refused(make_graph, stored):
    with pytest.raises(ModelInvalid, match="no output 'probabilities', it has scores"):
        load_model(stored(make_graph(output="scores")), POLICY)


def test_a_graph_with_another_number_of_classes_is_refused(make_graph, stored):
    output = ProbabilitiesOutput(name="probabilities", classes=(1, 2, 3))
    with pytest.raises(ModelInvalid, match=r"has the shape \['N', 2\], its manifest says \['N', 3\]"):
        load_model(stored(make_graph(), outputs=(output,)), POLICY)


def test_a_value_that_comes_as_two_numbers_is_refused(make_graph, stored):
    with pytest.raises(ModelInvalid, match="describes 1 a row"):
        load_model(stored(make_graph(), outputs=(ValueOutput(name="probabilities"),)), POLICY)


@pytest.mark.parametrize(
    "tensors",
    [
        {"X": np.zeros((2, 5), np.float32)},
        {"X": np.zeros((2, 1), np.float64)},
        {"Z": np.zeros((2, 1), np.float32)},
        {"X": np.array([["a"]])},
    ],
)
def test_whatever_the_runtime_raises_is_model_failed(make_graph, stored, tensors):
    model = load_model(stored(make_graph()), POLICY)
    with pytest.raises(ModelFailed, match="model 'hand' version 1"):
        model.run(tensors)


def test_a_model_of_one_thread_runs_on_the_callers_and_starts_none(make_graph, stored):
    def threads():
        return {task.name for task in Path("/proc/self/task").iterdir()}

    load_model(stored(make_graph()), POLICY)
    before = threads()
    model = load_model(stored(make_graph()), POLICY)
    model.run({"X": np.zeros((512, 1), np.float32)})
    begun, deadline = threads() - before, time.monotonic() + 10
    while begun & threads() and time.monotonic() < deadline:  # a pool's would stay as long as the model
        time.sleep(0.01)
    assert not begun & threads()
    assert model.name == "hand"
