"""The trainer and the load generator implement the same page independently: same customers, same truth."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.train.churn_data import ChurnFormula as TrainersFormula
from loadgen.churn import ChurnFormula as GeneratorsFormula

SCHEMAS = Path(__file__).parents[2] / "schemas"
TRAINERS = TrainersFormula.load(SCHEMAS)
GENERATORS = GeneratorsFormula.load(SCHEMAS / "churn_generated.json")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), first=st.integers(0, 100_000), count=st.integers(1, 6000))
def test_both_generators_make_the_same_customers(seed, first, count):
    ours, theirs = TRAINERS.customers(seed, first, count), GENERATORS.rows(seed, first, count)
    for name in ("age", "income", "tenure_months", "monthly_charges", "total_charges"):
        column = ours.table.column(name).to_numpy(zero_copy_only=False)
        np.testing.assert_array_equal(column, getattr(theirs, name), err_msg=name)
    np.testing.assert_array_equal(ours.table.column("plan").indices.to_numpy(), theirs.plan)
    assert tuple(ours.table.column("plan").dictionary.to_pylist()) == GENERATORS.plans
    np.testing.assert_array_equal(ours.churned, theirs.churned)
    assert ours.probability == pytest.approx(theirs.probability, abs=1e-12)
