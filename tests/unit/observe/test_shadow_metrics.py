"""What a shadow does is shown by the name and labels that whoever decides about it reads."""

import numpy as np

from app.facts import MetricsLook, ShadowCounted
from app.observe.pipeline_observer import ShadowMetrics
from app.observe.worker_metrics import Metrics
from app.rollouts.measurements import NAMES, Tally


def test_a_rollout_watcher_reads_what_a_shadow_counted():
    metrics = Metrics()
    seen, tally = ShadowMetrics(metrics, "p", "churn"), Tally()
    tally.add(MetricsLook({"worker": metrics.samples()}))
    seen.shadow_counted(ShadowCounted("2", agreed=5, disagreed=2, failed=1, dropped=9, model_seconds=0.25))
    seen.shadow_counted(ShadowCounted("2", failed=4))
    seen.shadow_failed("2", "ShadowGivenUp")
    shown = [sample for sample in metrics.samples() if sample[0] in NAMES and ("model", "churn") in sample[1]]
    tally.add(MetricsLook({"worker": shown}))
    counts = tally.shadows()["2"]
    assert (counts.compared, counts.differing, counts.rows, counts.errors.events) == (7, 2, 12, 5)
    assert (counts.batches, counts.seconds) == (1, 0.25)
    assert tally.unusable()["2"].given_up


def test_differences_and_errors_are_shown_by_version():
    metrics = Metrics()
    seen = ShadowMetrics(metrics, "p", "churn")
    seen.shadow_counted(ShadowCounted("2", agreed=2, differences=np.array([0.0, 0.3], np.float32)))
    seen.shadow_counted(ShadowCounted("2", dropped=1))
    seen.shadow_failed("2", "ShadowHung")
    page = metrics.exposition().decode()
    labels = 'model="churn",pipeline="p",version="2"'
    assert f"inference_shadow_difference_count{{{labels}}} 2.0" in page
    assert f'inference_shadow_difference_bucket{{le="0.25",{labels}}} 1.0' in page
    assert f'inference_shadow_errors_total{{error="ShadowHung",{labels}}} 1.0' in page
    assert 'inference_shadow_rows_total{model="churn",pipeline="p",result="dropped",version="2"} 1.0' in page
