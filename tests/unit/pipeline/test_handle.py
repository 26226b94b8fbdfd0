"""Which rows a step fails on is found whatever they are, and a step at fault costs no row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import HandlerFailed, Reason
from app.handler import RejectRows
from app.pipeline.handle import BadStep, called, isolated

ROWS = st.lists(st.sampled_from(["good", "bad", "unwanted"]), min_size=1, max_size=60)


def step_over(kinds, calls):
    """A step that fails on bad rows, rejects unwanted ones, and answers a row with its own position."""

    def step(positions):
        return called(answer, positions, len(positions), lambda columns: columns)

    def answer(positions):
        calls.append(len(positions))
        found = [kinds[position] for position in positions.tolist()]
        if "bad" in found:
            raise BadStep(Reason.MODEL_ERROR, "Oops", "bad")
        if "unwanted" in found:
            raise RejectRows([kind == "unwanted" for kind in found], Reason.EXPIRED, "unwanted")
        return {"a": positions.copy(), "b": np.stack([positions, -positions], axis=1)}

    return step


@given(ROWS)
def test_each_row_is_answered_in_order_or_refused_in_order_for_its_own_reason(kinds):
    handled = isolated(step_over(kinds, []), len(kinds), lambda: None)
    good = [row for row, kind in enumerate(kinds) if kind == "good"]
    assert handled.positions.tolist() == good
    if good:
        assert handled.columns["a"].tolist() == good
        assert handled.columns["b"].tolist() == [[row, -row] for row in good]
    reasons = {"bad": Reason.MODEL_ERROR, "unwanted": Reason.EXPIRED}
    expected = [(row, reasons[kind]) for row, kind in enumerate(kinds) if kind != "good"]
    assert [(item.position, item.reason) for item in handled.refused] == expected


@given(st.integers(1, 512), st.integers(0, 511))
def test_one_bad_row_costs_few_calls(count, bad):
    kinds = ["good"] * count
    kinds[bad % count] = "bad"
    calls = []
    isolated(step_over(kinds, calls), count, lambda: None)
    assert len(calls) <= 1 + 2 * int(np.ceil(np.log2(count)))


def test_a_good_batch_is_one_call_and_no_check():
    calls = []
    isolated(step_over(["good"] * 512, calls), 512, lambda: pytest.fail("checked"))
    assert calls == [512]


@pytest.mark.parametrize("healthy_checks", [0, 1])
def test_a_step_at_fault_before_or_afterwards_gives_no_row_up(healthy_checks):
    checks = []

    def check():
        checks.append(1)
        if len(checks) > healthy_checks:
            raise HandlerFailed("at fault")

    with pytest.raises(HandlerFailed):
        isolated(step_over(["good", "bad"], []), 2, check)
    assert len(checks) == healthy_checks + 1
