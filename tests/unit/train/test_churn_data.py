"""Generated customers: the page's own check values, and no dependence on how they are asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BadSettings
from app.train.churn_data import ChurnFormula

SCHEMAS = Path(__file__).parents[3] / "schemas"
FORMULA = ChurnFormula.load(SCHEMAS)
CHECK = json.loads((SCHEMAS / "churn_generated.json").read_text())["check"]


@pytest.mark.parametrize("expected", CHECK["customers"], ids=lambda customer: customer["customer_id"])
def test_the_generator_makes_the_customers_its_page_promises(expected):
    customers = FORMULA.customers(CHECK["seed"], expected["index"], 1)
    (row,) = customers.table.to_pylist()
    assert row == {name: expected[name] for name in row}
    assert customers.probability[0] == pytest.approx(expected["probability"], abs=1e-12)
    assert bool(customers.churned[0]) is expected["churned"]


def test_the_columns_are_those_of_the_event_schema():
    fields = json.loads((SCHEMAS / "churn_event.avsc").read_text())["fields"]
    names = [field["name"] for field in fields]
    assert [*FORMULA.customers(1, 0, 5).table.schema.names, "event_time"] == names


@settings(max_examples=25, deadline=None)
@given(first=st.integers(0, 9000), count=st.integers(1, 9000), seed=st.integers(0, 2**32))
def test_a_customer_does_not_depend_on_the_run_it_is_generated_in(first, count, seed):
    run = FORMULA.customers(seed, first, count)
    last = FORMULA.customers(seed, first + count - 1, 1)
    assert run.table.num_rows == len(run.probability) == len(run.churned) == count
    assert run.table.slice(count - 1).to_pylist() == last.table.to_pylist()
    assert run.probability[-1] == last.probability[0]


def test_the_truth_follows_the_stated_probability():
    customers = FORMULA.customers(11, 0, 100_000)
    expected = customers.probability.mean()
    error = np.sqrt((customers.probability * (1 - customers.probability)).mean() / 100_000)
    assert customers.churned.mean() == pytest.approx(expected, abs=4 * error)


def test_about_one_in_fifty_customers_has_no_total():
    column = FORMULA.customers(11, 0, 100_000).table.column("total_charges")
    assert 0.018 < column.null_count / 100_000 < 0.022


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', "\x00"])
def test_a_page_of_another_format_is_refused_by_name(tmp_path, content):
    (tmp_path / "churn_generated.json").write_text(content)
    with pytest.raises(BadSettings, match=r"churn_generated\.json"):
        ChurnFormula.load(tmp_path)


def test_a_missing_page_is_named(tmp_path):
    with pytest.raises(BadSettings, match=r"cannot read .*churn_generated\.json"):
        ChurnFormula.load(tmp_path)
