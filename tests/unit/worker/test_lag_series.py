"""A worker shows the lag of what it owns, and of nothing else from the moment that it is taken away."""

import pytest
from fake_stream import Rig
from fakes import ManualClock

from app.observe.metrics import Metrics, PipelineObserver
from app.worker.pulse import INTERVAL_S


@pytest.mark.parametrize("kind", ["revoked", "lost"])
def test_the_lag_of_a_partition_goes_with_it_at_once(kind):
    rig, metrics = Rig(ManualClock()), Metrics()
    rig.worker._observer = PipelineObserver(metrics, "p")
    rig.change("assigned", 0, 1)
    rig.broker.append(0, 3)
    rig.broker.append(1, 3)
    rig.sink.room = False

    def shown():
        series = {
            (name, dict(labels)["partition"])
            for name, labels, _ in metrics.samples()
            if name in {"inference_lag_records", "inference_lag_seconds"}
        }
        return sorted(series)

    for _ in range(3):
        rig.turn()
        rig.clock.advance(INTERVAL_S)
    before = shown()
    rig.change(kind, 0)
    rig.turn()

    assert {partition for _, partition in before} == {"0", "1"}
    assert shown() == [("inference_lag_records", "1"), ("inference_lag_seconds", "1")]
