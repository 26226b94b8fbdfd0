"""Batches on the real broker wait as long as a latency objective allows, and no longer."""

import pytest
from worker_process import running_worker

EVENTS, RATE = 2_000, 250.0


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once"])
def test_an_objective_makes_batches_large_and_keeps_records_on_time(lane, mode, tmp_path):
    """Of six seconds, so that a busy machine does not decide; the sharp bounds are in docs/BENCHMARKS.md."""
    one = lane()
    settings = one.settings(delivery={"mode": mode}, pipeline={"batch": {"slo_s": 6.0}})

    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_assigned()
        one.produce(EVENTS, rate=RATE)
        worker.wait_for_records(EVENTS)
        worker.wait_until(lambda: worker.metrics().total("inference_slo_seconds") == 6.0, "the objective to be shown")
        metrics = worker.metrics()
        assert one.verified().inputs == EVENTS
        assert worker.stop() == 0

    batches = metrics.total("inference_batches_total")
    assert EVENTS / batches > 50  # 250 a second for most of half the objective; the fixed wait of 10 ms would make it 3
    assert metrics.total("inference_records_past_slo_total") <= EVENTS / 100
    assert metrics.total("inference_batch_cost_seconds") > 0
