"""The model of fixed cost takes the time it says, which is what the load sweep rests on."""

import time
from types import SimpleNamespace

import numpy as np
from fixed_cost_worker import APP_BEGINS, FixedCost

from app.worker import children

ROWS = 10
COST_S = 0.002 + 0.0001 * ROWS


def run_once(model):
    """(its answer, seconds)."""
    cost = FixedCost(0.002, 0.0001)
    started = time.perf_counter()
    answer = cost.run(model, lambda _, tensors: {"y": tensors["x"] * 2}, {"x": np.ones((ROWS, 3))})
    return answer, time.perf_counter() - started


def test_a_batch_takes_its_cost_and_hardly_more_and_is_answered_by_the_real_model():
    took, deadline = [], time.monotonic() + 20
    while not took or (min(took) >= COST_S * 1.05 and time.monotonic() < deadline):
        answer, seconds = run_once(SimpleNamespace(load_s=0.1))
        took.append(seconds)

    assert (answer["y"] == 2).all()
    assert min(took) >= COST_S
    assert min(took) < COST_S * 1.05  # the best of many: a busy machine wakes some of them late


def test_a_model_that_is_still_being_verified_does_not_wait():
    assert min(run_once(SimpleNamespace(load_s=0.0))[1] for _ in range(10)) < COST_S


def test_the_processes_of_a_worker_begin_in_a_way_we_can_take_part_in():
    assert APP_BEGINS in children._BEGIN
