"""Rows to judge a model by: event columns through the feature code, or model inputs as they are; or what is wrong."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.errors import BadSettings
from app.models.held_out import read_rows
from app.specs import Impute, InputSpec, NumberFeature, OneHotFeature, TensorFeature
from app.wiring.conversion import model_inputs

AGE = NumberFeature(field="age", min=18, max=120)
FEE = NumberFeature(field="fee", missing=Impute(impute=7))
PLAN = OneHotFeature(field="plan", categories=("basic", "premium"))
CUSTOMER = (InputSpec(name="X", features=(AGE, FEE, PLAN)),)
PIXELS = (InputSpec(name="X", features=(TensorFeature(field="pixels", length=4),), shape=(1, 2, 2)),)
PAIR = (InputSpec(name="a", features=(AGE,)), InputSpec(name="b", dtype="int64", features=(AGE, FEE)))
CUSTOMERS = {"age": [20, 30], "fee": [1.5, None], "plan": ["basic", "premium"], "left": ["no", "yes"]}


def read(path, inputs, label=None):
    return read_rows(path, inputs, label, model_inputs)


@pytest.fixture
def table(tmp_path):
    def write(suffix, **changes):
        path = tmp_path / f"rows{suffix}"
        found = pa.table(CUSTOMERS | changes)
        (pa.csv.write_csv if suffix == ".csv" else pa.parquet.write_table)(found, path)
        return path

    return write


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_event_columns_become_what_the_worker_would_make_of_them(suffix, table):
    rows = read(table(suffix), CUSTOMER, "left")
    assert rows.tensors["X"].tolist() == [[20, 1.5, 1, 0], [30, 7, 0, 1]]
    assert rows.labels.tolist() == ["no", "yes"]
    assert len(rows) == 2


def test_arrays_in_parquet_take_the_shape_of_the_input(tmp_path):
    pa.parquet.write_table(pa.table({"pixels": [[1.0, 2.0, 3.0, 4.0]]}), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", PIXELS).tensors["X"].tolist() == [[[[1, 2], [3, 4]]]]


def test_many_row_groups_are_one_table(tmp_path):
    found = pa.table({"pixels": [[float(i)] * 4 for i in range(10)]})
    pa.parquet.write_table(found, tmp_path / "rows.parquet", row_group_size=3)
    assert read(tmp_path / "rows.parquet", PIXELS).tensors["X"][:, 0, 0, 0].tolist() == list(range(10))


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(4)), elements=st.floats(-1e30, 1e30)))
def test_model_inputs_come_back_as_the_model_takes_them(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("npy") / "rows.npy"
    np.save(path, found)
    tensor = read(path, PIXELS).tensors["X"]
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert (tensor.reshape(-1, 4) == found.astype(np.float32)).all()


def test_several_inputs_and_labels_come_in_one_file(tmp_path):
    np.savez(tmp_path / "rows.npz", a=[[20.0], [30.0]], b=[[1, 2], [3, 4]], y=["no", "yes"])
    rows = read(tmp_path / "rows.npz", PAIR, "y")
    assert rows.tensors["b"].dtype == np.int64
    assert rows.labels.tolist() == ["no", "yes"]


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((0, 4)), "0 rows, allowed 1 to"),
        (np.zeros((2, 3)), r"shape \[2, 3\], the model takes \[2, 1, 2, 2\]"),
        (np.zeros((4,)), r"shape \[4\]"),
        (np.zeros(()), "shape|0 rows|1 rows"),
        (np.full((1, 4), np.nan), "holds numbers that float32 cannot"),
        (np.full((1, 4), 1e300), "holds numbers that float32 cannot"),
        (np.array([["a", "b", "c", "d"]]), "holds <U1, the model takes float32"),
        (np.zeros((1, 4), complex), "holds complex128"),
        (np.array([[1, 2, 3, None]]), "Object arrays cannot be loaded when allow_pickle=False"),
    ],
)
def test_an_array_that_is_no_input_is_refused(array, complaint, tmp_path):
    np.save(tmp_path / "rows.npy", array, allow_pickle=True)
    with pytest.raises(BadSettings, match=rf"rows\.npy: .*({complaint})"):
        read(tmp_path / "rows.npy", PIXELS)


def test_a_fraction_is_no_whole_number(tmp_path):
    np.savez(tmp_path / "rows.npz", a=[[20.0]], b=[[1.5, 2]])
    with pytest.raises(BadSettings, match="'b' holds numbers that int64 cannot"):
        read(tmp_path / "rows.npz", PAIR)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet", ".csv", ".xlsx"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x03\x04", b"PAR1PAR1"])
def test_bytes_that_are_no_rows_are_refused(suffix, content, tmp_path):
    (tmp_path / f"rows{suffix}").write_bytes(content)
    with pytest.raises(BadSettings, match=rf"rows{suffix}: "):
        read(tmp_path / f"rows{suffix}", CUSTOMER)


@pytest.mark.parametrize("name", ["none.csv", "none.npy", "none.npz", "none.parquet"])
def test_a_missing_file_is_refused(name, tmp_path):
    with pytest.raises(BadSettings, match=name):
        read(tmp_path / name, CUSTOMER)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"age": [20, 5]}, r"row 1 would be rejected: age is 5, allowed 18 to 120 \(1 of 2 rows\)"),
        ({"age": [None, 20]}, "row 0 would be rejected: age is missing"),
        ({"plan": ["basic", "gold"]}, "row 1 would be rejected: plan is 'gold'"),
        ({"age": ["x", "y"]}, "the field 'age' is string, the model needs numbers"),
        ({"left": ["no", None]}, "1 rows have no left"),
    ],
)
def test_a_row_that_the_worker_would_reject_is_named(changes, complaint, table):
    with pytest.raises(BadSettings, match=complaint):
        read(table(".parquet", **changes), CUSTOMER, "left")


def test_an_absent_column_is_named_beside_those_there(table):
    with pytest.raises(BadSettings, match="no column churned; there are age, fee, plan, left"):
        read(table(".csv"), CUSTOMER, "churned")


def test_labels_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "rows.npz", a=[[20.0]], b=[[1, 2]], y=[1, 2])
    with pytest.raises(BadSettings, match=r"labels have the shape \[2\], there are 1 rows"):
        read(tmp_path / "rows.npz", PAIR, "y")
    with pytest.raises(BadSettings, match="z is not a file in the archive"):
        read(tmp_path / "rows.npz", PAIR, "z")


def test_an_npy_file_has_neither_labels_nor_several_inputs(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((1, 4)))
    with pytest.raises(BadSettings, match="has no labels"):
        read(tmp_path / "rows.npy", PIXELS, "y")
    with pytest.raises(BadSettings, match="the model has 2 inputs"):
        read(tmp_path / "rows.npy", PAIR)
