"""A worker shows the lag of what it owns, and of nothing else from the moment that it is taken away."""

import pytest
from fake_stream import Rig
from fakes import FakeRecord, ManualClock

from app.facts import Pulse
from app.observe.pipeline_observer import PipelineObserver
from app.observe.worker_metrics import Metrics
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


@pytest.mark.parametrize("timestamp", [(0, -1), (1, -1), (1, 0)])
def test_records_without_a_timestamp_do_not_seem_to_wait_since_1970(timestamp):
    rig = Rig(ManualClock(), max_wait_s=60.0)  # they stay in the batcher
    rig.change("assigned", 0)
    rig.broker.append(0, 3)
    (source,) = (at for at, log in rig.broker.records.items() if log)
    rig.broker.records[source] = [
        FakeRecord(b"v", topic=source.topic, partition=source.partition, offset=offset, timestamp=timestamp)
        for offset in range(3)
    ]
    for _ in range(3):
        rig.turn()
        rig.clock.advance(INTERVAL_S)

    ages = [fact.lag[source].seconds for fact in rig.observer.facts if isinstance(fact, Pulse) and source in fact.lag]
    assert ages
    assert all(age is None or age < 60 for age in ages)
