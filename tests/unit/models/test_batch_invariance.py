"""A row scores the same in any company, or the version gets fixed batch sizes, or it is refused."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from app.errors import ModelFailed, ModelInvalid
from app.models.batch_invariance import in_buckets, worst_difference
from app.models.manifest import Golden
from app.models.runtime import RuntimePolicy, load_model
from app.specs import ValueOutput

POLICY = RuntimePolicy(warm_up_rows=(1, 12), buckets=(8, 16))
VALUE = (ValueOutput(name="Y"),)


def graph(nodes, initializers=()):
    """ONNX bytes of X (N, 1) → Y (N, 1)."""
    made = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["N", 1])],
        list(initializers),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def plain():
    return graph([helper.make_node("Identity", ["X"], ["Y"])])


def less_the_mean():
    """Y = X - mean of the batch: no batch size helps."""
    return graph([helper.make_node("ReduceMean", ["X"], ["m"], axes=[0]), helper.make_node("Sub", ["X", "m"], ["Y"])])


def plus_remainder(divisor):
    """Y = X + (rows mod divisor): the same in all batches of a multiple of it."""
    numbers = {"first": [0], "divisor": [divisor]}
    return graph(
        [
            helper.make_node("Shape", ["X"], ["shape"]),
            helper.make_node("Gather", ["shape", "first"], ["rows"]),
            helper.make_node("Mod", ["rows", "divisor"], ["rest"]),
            helper.make_node("Cast", ["rest"], ["more"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["X", "more"], ["Y"]),
        ],
        [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in numbers.items()],
    )


def in_blocks_of(size):
    """It fails unless the rows fill blocks of this size."""
    shapes = {"blocks": [-1, size], "rows": [-1, 1]}
    return graph(
        [helper.make_node("Reshape", ["X", "blocks"], ["b"]), helper.make_node("Reshape", ["b", "rows"], ["Y"])],
        [numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items()],
    )


def quantized_by_the_batch():
    """Y = X through uint8 with the scale of the whole batch, as dynamic quantization does it."""
    return graph(
        [
            helper.make_node("DynamicQuantizeLinear", ["X"], ["q", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["Y"]),
        ]
    )


@pytest.fixture
def load(stored):
    def make(content, *, rows=tuple((float(n),) for n in range(8)), answers=None, atol=1e-5):
        golden = Golden(inputs={"X": rows}, outputs={"Y": answers or rows}, atol=atol)
        return load_model(stored(content, outputs=VALUE, golden=golden), POLICY)

    return make


def test_a_model_that_looks_at_single_rows_runs_in_batches_as_they_come(load):
    model = load(plain())
    assert model.buckets == ()
    assert model.run({"X": np.ones((5, 1), np.float32)})["Y"].shape == (5, 1)


def test_a_model_that_looks_at_its_whole_batch_is_refused_with_the_difference(load):
    rows = tuple((float(n),) for n in (-3, -1, 1, 3))  # whose mean is 0: the golden rows alone would not tell
    with pytest.raises(ModelInvalid) as refusal:
        load(less_the_mean(), rows=rows)
    assert "answers a row otherwise in other company than alone: output 'Y' by 3" in str(refusal.value)
    assert "allowed 1e-05; padded to 8, 16 rows: output 'Y' differs from golden row 0" in str(refusal.value)


def test_one_golden_row_is_enough_to_find_that(load):
    with pytest.raises(ModelInvalid, match="in other company"):
        load(less_the_mean(), rows=((2.0,),), answers=((0.0,),))


def test_a_scale_taken_from_the_batch_is_found(load):
    rows = tuple((float(n),) for n in (0, 100, 200, 255))
    with pytest.raises(ModelInvalid, match="in other company"):
        load(quantized_by_the_batch(), rows=rows, atol=1e-3)


def test_a_tolerance_that_allows_the_difference_is_the_publishers_word(load):
    rows = tuple((n / 255,) for n in (0, 100, 255))
    assert load(quantized_by_the_batch(), rows=rows, atol=0.01).buckets == ()


def test_a_model_that_depends_on_the_number_of_rows_only_gets_batches_of_fixed_sizes(load):
    model = load(plus_remainder(8))
    assert model.buckets == (8, 16)
    for count in (1, 3, 8, 9, 16, 17, 40):
        rows = np.arange(count, dtype=np.float32)[:, None]
        np.testing.assert_array_equal(model.run({"X": rows})["Y"], rows)


def test_so_does_one_that_fails_on_other_numbers(load):
    model = load(in_blocks_of(8))
    assert model.run({"X": np.ones((3, 1), np.float32)})["Y"].tolist() == [[1.0]] * 3
    model.check()


def test_a_model_that_answers_otherwise_in_each_of_the_sizes_is_refused(load):
    with pytest.raises(ModelInvalid, match=r"otherwise in other company.*; padded to 8, 16 rows: output 'Y' differs"):
        load(plus_remainder(5), rows=tuple((float(n),) for n in range(5)))


def test_a_model_whose_sizes_differ_among_themselves_is_refused(load):
    # 16 golden rows: right in batches of 16, by 8 off in those of 8
    with pytest.raises(ModelInvalid, match=r"padded to 8, 16 rows: output 'Y' by 8"):
        load(plus_remainder(16), rows=tuple((float(n),) for n in range(16)))


class Counting:
    """Answers with its input and remembers the sizes it was asked for."""

    def __init__(self):
        self.sizes = []

    def __call__(self, tensors):
        self.sizes.append(len(tensors["X"]))
        return {"Y": tensors["X"] * 2, "Z": tensors["X"][:, 0]}


@given(st.integers(1, 100), st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True))
def test_padding_answers_every_row_once_in_order_and_asks_only_for_the_sizes_there_are(count, sizes):
    sizes, run = sorted(sizes), Counting()
    rows = np.arange(count, dtype=np.float32)[:, None]
    answers = in_buckets(run, {"X": rows}, sizes)
    np.testing.assert_array_equal(answers["Y"], rows * 2)
    np.testing.assert_array_equal(answers["Z"], rows[:, 0])
    assert set(run.sizes) <= set(sizes)
    assert len(run.sizes) == -(-count // sizes[-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
def test_trials_keep_the_dtype_and_cover_positions_neighbours_and_sizes(dtype):
    seen = []

    def run(tensors):
        seen.append(tensors["X"])
        return {"Y": tensors["X"].astype(np.float64)}

    found = worst_difference(run, {"X": np.array([[4], [6]], dtype)}, (12,))
    assert found.by == 0
    assert {batch.dtype for batch in seen} == {np.dtype(dtype)}
    assert {len(batch) for batch in seen} == {1, 2, 3, 7, 12, 16, 33}
    assert {value for batch in seen for value in batch[:, 0].tolist()} == {4, 6, 2, 3}


def test_an_answer_that_is_no_number_in_company_is_infinitely_far():
    found = worst_difference(
        lambda tensors: {"Y": tensors["X"] if len(tensors["X"]) < 7 else tensors["X"] * np.nan},
        {"X": np.ones((4, 1), np.float32)},
    )
    assert found.by == np.inf


def test_a_failure_in_company_is_told_with_its_reason():
    def run(tensors):
        if len(tensors["X"]) == 7:
            raise ModelFailed("not seven")
        return {"Y": tensors["X"]}

    found = worst_difference(run, {"X": np.ones((4, 1), np.float32)})
    assert str(found) == "it fails on a batch of 7 rows: not seven"


def test_only_so_many_golden_rows_are_tried():
    run = Counting()
    worst_difference(run, {"X": np.zeros((1000, 1), np.float32)})
    assert run.sizes.count(1) == 32


def test_the_graphs_of_these_tests_are_sound():
    for content in (plain(), less_the_mean(), plus_remainder(8), in_blocks_of(8), quantized_by_the_batch()):
        onnx.checker.check_model(onnx.load_from_string(content))
