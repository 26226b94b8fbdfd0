"""RecordBatch → RecordBatch: every row comes back in its place."""

import pickle
from dataclasses import dataclass

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_world import scorer, table

from app.errors import BadSettings, SchemaIncompatible
from app.scoring.arrow_function import ArrowFunction

LOADED = []


@dataclass(frozen=True)
class Order:
    """The order to load the small model."""

    number: int = 0

    def __call__(self):
        LOADED.append(self.number)
        return scorer()


def function(**policy):
    return ArrowFunction(Order(), **policy)


@given(st.lists(st.sampled_from([0.0, 50.0, 100.0, 101.0, None]), max_size=30))
def test_every_row_comes_back_in_its_place_with_an_answer_or_with_why_not(x):
    answered = function(keep=("x",))(table(x)).to_pylist()
    assert [row["x"] for row in answered] == x
    for row in answered:
        good = row["x"] is not None and row["x"] <= 100
        assert (row["probability"] is not None) == good
        assert (row["rejected_reason"] is None) == good
        assert (row["model_version"] is not None) == good


def test_its_columns_are_plain_and_known_before():
    rows = table([1.0, 500.0])
    given_schema = function(key="plan", keep=("x",)).schema(rows.schema)
    answered = function(key="plan", keep=("x",))(rows)
    assert answered.schema == given_schema
    assert not any(pa.types.is_dictionary(item.type) for item in given_schema)


def test_a_table_is_answered_as_its_batches_are():
    first, second = table([1.0]), table([2.0, 500.0])
    answered = function()(pa.Table.from_batches([first, second]))
    batches = list(function().over(iter([first, second])))
    assert answered.drop_columns(["predicted_at"]) == pa.Table.from_batches(batches).drop_columns(["predicted_at"])
    empty = pa.Table.from_batches([], first.schema)
    assert function()(empty).num_rows == 0


def test_it_goes_over_the_wire_as_an_order_and_is_loaded_once_a_process():
    sent = pickle.loads(pickle.dumps(ArrowFunction(Order(7))))
    again = pickle.loads(pickle.dumps(ArrowFunction(Order(7))))
    for one in (sent, again, sent):
        one(table([1.0]))
    assert LOADED.count(7) == 1


def test_what_cannot_be_kept_is_named():
    with pytest.raises(SchemaIncompatible, match="nowhere"):
        function(keep=("nowhere",))(table([1.0]))
    with pytest.raises(BadSettings, match="probability more than once"):
        function(keep=("probability",))(table([1.0], probability=pa.array([0.5])))
