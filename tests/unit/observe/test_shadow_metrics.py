"""What a shadow does is shown by the name and labels that whoever decides about it reads."""

import numpy as np

from app.facts import MetricsLook, ShadowCounted
from app.observe.metrics import Metrics, ShadowMetrics
from app.rollouts.measurements import NAMES, Tally


def test_a_rollout_watcher_reads_what_a_shadow_counted():
    metrics = Metrics()
    seen, tally = ShadowMetrics(metrics, "p", "churn"), Tally()
    tally.add(MetricsLook({"worker": metrics.samples()}))
    seen.shadow_counted(ShadowCounted("2", agreed=5, disagreed=2, failed=1, dropped=9))
    shown = [sample for sample in metrics.samples() if sample[0] in NAMES and ("model", "churn") in sample[1]]
    tally.add(MetricsLook({"worker": shown}))
    assert (tally.counts()["2"].compared, tally.counts()["2"].differing) == (7, 2)


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
