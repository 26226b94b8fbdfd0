"""Autoscaling on real processes: Kafka, workers, `inference-worker lag`, Prometheus, the KEDA overlay's own query.

The long version, with other policies beside ours, is `python -m tests.bench.autoscaling_shown`; figures are there.
"""

from tests.bench import load_shapes
from tests.bench.autoscaling_shown import Ours, Setting, World

# Slow processes, so that a small load needs several; ten times as fast as real, as far as processes can be.
SETTING = Setting(
    scale=5.0,
    rate=300.0,
    capacity=500.0,
    partitions=4,
    policy={"reaction_s": 60.0, "drain_target_s": 180.0, "hold_s": 75.0, "fall_s": 25.0},
)
SURGE = load_shapes.spike(times=4.0, begins_s=5.0, ends_s=35.0, lasts_s=75.0)


def test_a_surge_brings_processes_that_make_it_good_and_its_end_takes_them_away(kafka, models, tmp_path):
    with World(tmp_path, SETTING, kafka, models, ["ours"]) as world:
        outcome = world.run(SURGE, [Ours(world)])["ours"]

    ups = [change for _, change in outcome.changes if change > 0]
    assert ups
    assert max(outcome.replicas) in {3, 4}  # 1,200 a second, and what had to wait for them
    assert outcome.turns <= 1
    assert outcome.lag_s[-1] < 5.0
    assert outcome.replicas[-1] < max(outcome.replicas)
