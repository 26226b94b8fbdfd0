"""The autoscaler's algorithm, as its documentation and its own tests have it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lag.desired_replicas import DesiredReplicas, ScalingPolicy, ScalingSample
from tests.bench.autoscaler import (
    DEFAULT_DOWN,
    DEFAULT_UP,
    OVERLAY,
    HorizontalPodAutoscaler,
    Keda,
    Rules,
    ScaledObject,
    Step,
    kafka_trigger,
)


def autoscaler(target=1.0, **options):
    return HorizontalPodAutoscaler(target, **{"most": 100, **options})


@pytest.mark.parametrize(
    ("current", "value", "becomes"),
    [(1, 2, 2), (5, 6, 6), (9, 10, 10), (10, 11, 10), (10, 12, 12), (10, 9, 10), (9, 8, 8), (10, 8, 8), (30, 33, 30)],
)
def test_a_ratio_within_a_tenth_changes_nothing(current, value, becomes):
    """11 of 10 is 1.1, which is within 1.0 + 0.1; as is 0.9."""
    at_once = Rules(0.0, DEFAULT_DOWN.steps)

    assert autoscaler(down=at_once).sync(0.0, current, value) == becomes


def test_the_number_of_pods_is_the_value_by_the_target():
    assert autoscaler(target=50_000.0).sync(0.0, 3, 220_000) == 5


def test_by_default_it_doubles_or_adds_four_in_fifteen_seconds():
    scaler = autoscaler()

    assert [scaler.sync(now, current, 100) for now, current in ((0, 1), (15, 5), (30, 10), (45, 20))] == [5, 10, 20, 40]


def test_within_a_period_what_was_added_counts():
    scaler = autoscaler()
    assert scaler.sync(0.0, 1, 100) == 5
    assert scaler.sync(5.0, 5, 100) == 5
    assert scaler.sync(15.1, 5, 100) == 10


def test_by_default_it_comes_down_to_the_most_that_was_asked_for_in_five_minutes():
    scaler = autoscaler()
    assert scaler.sync(0.0, 10, 10) == 10
    assert [scaler.sync(now, 10, 2) for now in range(15, 300, 15)] == [10] * 19
    assert scaler.sync(300.1, 10, 2) == 2


def test_coming_down_can_be_slowed():
    slow = Rules(0.0, (Step("pods", 1, 60.0), Step("percent", 10, 60.0)))
    scaler = autoscaler(down=slow)

    assert scaler.sync(0.0, 50, 1) == 45
    assert scaler.sync(30.0, 45, 1) == 45
    assert scaler.sync(60.1, 45, 1) == 40


def test_the_bounds_are_kept_whatever_the_metric_says():
    scaler = autoscaler(least=2, most=6, up=Rules(0.0, (Step("pods", 100, 15.0),)))

    assert scaler.sync(0.0, 4, 50) == 6
    assert scaler.sync(15.0, 8, 1) == 6
    assert scaler.sync(30.0, 1, 1) == 2


def test_a_metric_that_cannot_be_had_takes_nobody_away():
    scaler = HorizontalPodAutoscaler(1.0, 1.0, most=100, down=Rules(0.0, DEFAULT_DOWN.steps))

    assert scaler.sync(0.0, 7, 2, None) == 7
    assert scaler.sync(15.0, 7, None, 9) == 9
    assert scaler.sync(30.0, 9, None, None) == 9


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0.1, 60.0), st.floats(0.0, 200.0)), max_size=40))
def test_it_never_grows_faster_than_its_steps_allow(current, looks):
    """From the most there were within the period: what was taken away in it may come back."""
    scaler, now_s, sizes = autoscaler(most=50), 0.0, [(0.0, current)]
    for seconds, value in looks:
        now_s += seconds
        following = scaler.sync(now_s, current, value)
        lately = max([current, *(size for at, size in sizes if at > now_s - 15.0)])
        assert 1 <= following <= max(2 * lately, lately + 4)
        sizes.append((now_s, current))
        current = following


def test_keda_wakes_and_sends_to_sleep():
    keda = Keda(1.0, least=0, most=10, cooldown_s=300.0)

    assert keda.poll(0.0, 0, active=True) == 1
    assert keda.poll(290.0, 1, active=False) == 1
    assert keda.poll(301.0, 1, active=False) == 0
    assert keda.sync(302.0, 0, 5.0) == 0


def test_the_kafka_trigger_never_asks_for_more_than_there_are_partitions():
    assert kafka_trigger(lag=10**9, lag_threshold=50_000, partitions=12) == 600_000
    assert kafka_trigger(lag=120_000, lag_threshold=50_000, partitions=12) == 120_000


def test_the_overlay_is_read_as_it_is():
    overlay = ScaledObject.read(OVERLAY)
    keda = overlay.keda(least=1)

    assert "inference_desired_replicas" in overlay.query
    assert overlay.threshold == 1
    # the number alone counts: a lag of a hundred million asks for one
    assert keda.sync(0.0, 6, 10**8, 6.0) == 6
    assert keda.sync(15.0, 6, 10**8, float(overlay.most)) == overlay.most
    assert keda.sync(30.0, overlay.most, 10**8, 1.0) == 1


def test_a_faster_world_has_shorter_periods():
    faster = DEFAULT_DOWN.faster(10.0)

    assert (faster.stabilization_s, faster.steps[0].period_s, faster.tolerance) == (30.0, 1.5, 0.1)
    assert DEFAULT_UP.faster(2.0).steps[1].value == 4


@pytest.mark.parametrize("capacity", [None, 5_000.0])
@pytest.mark.parametrize("new_exporter_at_s", [None, 0, *range(300, 450, 10)])
def test_a_rolling_update_ends_with_as_many_pods_as_it_began_with(capacity, new_exporter_at_s):
    """Each pod is away for 20 s, no member then; a change of settings replaces the exporter in the middle of it."""
    pods, rate, keda = 6, 24_000, ScaledObject.read(OVERLAY).keda()
    policy = ScalingPolicy(max_replicas=12, capacity_per_process=capacity)
    desired, shown = DesiredReplicas(policy), None
    for now_s in range(0, 900, 5):
        if now_s == new_exporter_at_s:
            desired, shown = DesiredReplicas(policy), None
        replaced = 300 <= now_s < 450 and (now_s - 300) % 25 < 20
        sample = ScalingSample(now_s, rate * now_s, rate * now_s, 0, 0.0, partitions=12, members=pods - replaced)
        advice = desired.advise(sample)
        shown = advice.replicas if advice.settled else shown
        if now_s % 15 == 0:
            pods = keda.sync(now_s, pods, 0, shown)

    assert pods == 6
