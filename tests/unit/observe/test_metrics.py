"""Counters count what is committed; lag is shown for owned partitions only; names are those of the contract."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from fakes import NOW_MS
from prometheus_client.parser import text_string_to_metric_families

from app.errors import Reason, Stage
from app.facts import Asked, BatchScored, Committed, InUse, Lag, Outcomes, PaceState, Pulse, Serving
from app.observe.metrics import TABLE, metrics_page
from app.observe.pipeline_observer import PipelineObserver
from app.observe.worker_metrics import Metrics
from app.records import TopicPartition

A, B = TopicPartition("events", 0), TopicPartition("events", 1)
# The contract's table, without the lag exporter's three and with what was added to it, below.
CONTRACT = {
    "inference_records_total": ("pipeline", "outcome"),
    "inference_predictions_total": ("pipeline", "model", "version", "result"),
    "inference_end_to_end_latency_seconds": ("pipeline",),
    "inference_batch_records": ("pipeline",),
    "inference_batch_wait_seconds": ("pipeline",),
    "inference_batches_total": ("pipeline", "cause"),
    "inference_model_seconds": ("model", "version"),
    "inference_prediction_confidence": ("pipeline", "version"),
    "inference_model_load_seconds": ("model", "version"),
    "inference_model_provider_info": ("model", "version", "provider"),
    "inference_dead_letters_total": ("pipeline", "stage", "reason"),
    "inference_cache_lookups_total": ("model", "version", "result"),
    "inference_answers_total": ("pipeline", "model", "version", "answered_by", "outcome"),
    "inference_model_failures_total": ("pipeline", "model", "version"),
    "inference_model_rows_total": ("model", "version", "outcome"),
    "inference_model_info": ("pipeline", "model", "version", "digest", "part"),
    "inference_shadow_rows_total": ("pipeline", "model", "version", "result"),
    "inference_shadow_seconds": ("pipeline", "model", "version"),
    "inference_shadow_difference": ("pipeline", "model", "version"),
    "inference_shadow_errors_total": ("pipeline", "model", "version", "error"),
    "inference_rollout_revision": ("pipeline", "model"),
    "inference_rollout_errors_total": ("model", "version", "error"),
    "inference_lag_records": ("topic", "partition"),
    "inference_lag_seconds": ("topic", "partition"),
    "inference_transactions_total": ("result",),
    "inference_rebalances_total": ("kind",),
    "inference_busy_ratio": (),
    "inference_capacity_records_per_second": (),
    "inference_buffered_bytes": ("pipeline",),
    "inference_offset_resets_total": ("pipeline", "reason"),
    "inference_records_missed_total": ("pipeline",),
    "inference_partition_changes_total": ("topic",),
    "inference_traced_batches_total": ("why",),
    "inference_spans_total": ("result",),
    "inference_waiting_partitions": ("pipeline",),
    "inference_slo_seconds": ("pipeline",),
    "inference_batch_cost_seconds": ("pipeline", "part"),
    "inference_delivery_seconds": ("pipeline",),
    "inference_records_past_slo_total": ("pipeline",),
    "inference_worker_processes": ("state",),
    "inference_process_restarts_total": ("slot",),
    "inference_requests_total": ("surface", "method", "code"),
    "inference_request_seconds": ("surface", "method"),
}


def shown(metrics: Metrics) -> dict[str, float]:
    """Samples of the exposition as name{label=value}, labels in order, without the created ones."""
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def outcomes(version="1", predicted=2, skipped=0, results=None, rejected=None, confidence=(0.9, 0.8), ages_ms=(5, 10)):
    return Outcomes(
        model="churn",
        version=version,
        predicted=predicted,
        skipped=skipped,
        results={"1": predicted} if results is None else results,
        rejected=rejected or {},
        timestamps_ms=np.array([NOW_MS - age for age in ages_ms]),
        confidence=None if confidence is None else np.array(confidence),
    )


def pulse(lag=None, busy=0.5, rate=100.0, buffered=7):
    return Pulse(busy_ratio=busy, records_per_second=rate, buffered_bytes=buffered, lag=lag or {})


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def observer(metrics):
    return PipelineObserver(metrics, "p")


def test_names_and_labels_are_exactly_those_of_the_contract():
    assert {spec.name: spec.labels for spec in TABLE} == CONTRACT
    for spec in TABLE:
        assert spec.name.endswith("_total") == (spec.kind == "counter")
        assert bool(spec.bounds) == (spec.kind == "histogram")


def test_the_generated_page_has_a_line_for_every_metric():
    page = metrics_page()
    assert all(f"| `{spec.name}` | {spec.kind} |" in page for spec in TABLE)


def test_a_scored_batch_counts_no_record(metrics, observer):
    observer.batch_scored(BatchScored(256, "age", 0.019, 0.004, (Asked("churn", "1", 0.002),), [256]))
    found = shown(metrics)
    assert found["inference_batches_total{cause=age,pipeline=p}"] == 1
    assert found["inference_batch_records_sum{pipeline=p}"] == 256
    assert found["inference_batch_wait_seconds_sum{pipeline=p}"] == 0.019
    assert found["inference_model_seconds_sum{model=churn,version=1}"] == 0.002
    assert not [name for name in found if name.startswith(("inference_records_total", "inference_predictions_total"))]


def test_counters_count_what_is_committed(metrics, observer):
    rejected = {(Stage.DECODE, Reason.TRUNCATED): 2, (Stage.FEATURES, Reason.NOT_FINITE): 1}
    observer.committed(Committed((outcomes(predicted=2, skipped=1, rejected=rejected, ages_ms=(1,) * 6),), NOW_MS))
    observer.committed(Committed((outcomes(predicted=3, results={"0": 2, "1": 1}), outcomes(version="2")), NOW_MS))
    found = shown(metrics)
    assert found["inference_records_total{outcome=predicted,pipeline=p}"] == 7
    assert found["inference_records_total{outcome=dead_lettered,pipeline=p}"] == 3
    assert found["inference_records_total{outcome=skipped,pipeline=p}"] == 1
    assert found["inference_predictions_total{model=churn,pipeline=p,result=1,version=1}"] == 3
    assert found["inference_predictions_total{model=churn,pipeline=p,result=0,version=1}"] == 2
    assert found["inference_predictions_total{model=churn,pipeline=p,result=1,version=2}"] == 2
    assert found["inference_dead_letters_total{pipeline=p,reason=truncated,stage=decode}"] == 2
    assert found["inference_dead_letters_total{pipeline=p,reason=not_finite,stage=features}"] == 1


def test_latency_is_of_every_record_and_never_below_zero(metrics, observer):
    observer.committed(Committed((outcomes(ages_ms=(250, -5000)), outcomes(ages_ms=(1000,))), NOW_MS))
    found = shown(metrics)
    assert found["inference_end_to_end_latency_seconds_count{pipeline=p}"] == 3
    assert found["inference_end_to_end_latency_seconds_sum{pipeline=p}"] == pytest.approx(1.25)
    assert found["inference_end_to_end_latency_seconds_bucket{le=0.001,pipeline=p}"] == 1


def test_without_an_objective_nothing_is_said_of_one(metrics, observer):
    observer.committed(Committed((outcomes(ages_ms=(250,)),), NOW_MS))
    observer.pulse(Pulse(0.5, None, 0))
    assert not [name for name in shown(metrics) if "slo" in name or "cost" in name or "delivery" in name]


def test_with_an_objective_its_state_and_what_missed_it_are_shown(metrics):
    observer = PipelineObserver(metrics, "p", slo_s=0.1)
    observer.committed(Committed((outcomes(ages_ms=(99, 100, 101)),), NOW_MS))
    observer.pulse(Pulse(0.5, None, 0, pace=PaceState(0.1, 0.002, 0.0001, 0.01)))
    found = shown(metrics)
    assert found["inference_records_past_slo_total{pipeline=p}"] == 1
    assert found["inference_slo_seconds{pipeline=p}"] == 0.1
    assert found["inference_batch_cost_seconds{part=fixed,pipeline=p}"] == 0.002
    assert found["inference_batch_cost_seconds{part=per_record,pipeline=p}"] == 0.0001
    assert found["inference_delivery_seconds{pipeline=p}"] == 0.01


def test_confidence_is_told_apart_by_version(metrics, observer):
    observer.committed(
        Committed(
            (outcomes("1", confidence=(0.5,)), outcomes("2", confidence=(0.9, 0.9)), outcomes("1", confidence=None)),
            NOW_MS,
        )
    )
    found = shown(metrics)
    assert found["inference_prediction_confidence_count{pipeline=p,version=1}"] == 1
    assert found["inference_prediction_confidence_count{pipeline=p,version=2}"] == 2


def test_lag_is_removed_when_a_partition_is_revoked(metrics, observer):
    observer.pulse(pulse({A: Lag(5, 1.5), B: Lag(0, 0.0)}))
    assert shown(metrics)["inference_lag_records{partition=0,topic=events}"] == 5
    assert shown(metrics)["inference_lag_seconds{partition=0,topic=events}"] == 1.5
    observer.revoked({A, TopicPartition("never", 3)})
    observer.revoked({A})
    left = [name for name in shown(metrics) if "lag" in name]
    assert left == [
        "inference_lag_records{partition=1,topic=events}",
        "inference_lag_seconds{partition=1,topic=events}",
    ]


def test_lag_is_removed_when_a_partition_is_no_longer_in_the_pulse(metrics, observer):
    observer.pulse(pulse({A: Lag(5, 1.5), B: Lag(1, 0.5)}))
    observer.pulse(pulse({B: Lag(2, 0.75)}))
    assert {name: value for name, value in shown(metrics).items() if "lag" in name} == {
        "inference_lag_records{partition=1,topic=events}": 2,
        "inference_lag_seconds{partition=1,topic=events}": 0.75,
    }


def test_two_pipelines_may_lose_the_same_partition(metrics, observer):
    other = PipelineObserver(metrics, "q")
    for one in (observer, other):
        one.pulse(pulse({A: Lag(1, 1.0)}))
    for one in (observer, other):
        one.revoked({A})
    assert not [name for name in shown(metrics) if "lag" in name]


def test_the_busiest_pipeline_and_the_sum_of_capacities_are_shown(metrics, observer):
    other = PipelineObserver(metrics, "q")
    observer.pulse(pulse(busy=0.25, rate=100.0))
    other.pulse(pulse(busy=0.75, rate=50.0, buffered=9))
    found = shown(metrics)
    assert (found["inference_busy_ratio{}"], found["inference_capacity_records_per_second{}"]) == (0.75, 150.0)
    assert found["inference_buffered_bytes{pipeline=q}"] == 9
    other.pulse(pulse(busy=0.0, rate=None))
    observer.pulse(pulse(busy=0.5, rate=200.0))
    found = shown(metrics)
    assert found["inference_busy_ratio{}"] == 0.5
    assert found["inference_capacity_records_per_second{}"] == pytest.approx(130 + 50)


def test_transactions_rebalances_and_model_loads_are_counted(metrics, observer):
    for result in ("committed", "committed", "aborted", "dropped"):
        observer.transaction(result)
    for kind in ("assigned", "revoked", "lost"):
        observer.rebalanced(kind)
    metrics.model_loaded("churn", "3", 0.25)
    found = shown(metrics)
    assert found["inference_transactions_total{result=committed}"] == 2
    assert found["inference_rebalances_total{kind=lost}"] == 1
    assert found["inference_model_load_seconds{model=churn,version=3}"] == 0.25


def test_versions_in_use_are_shown_by_their_part_and_others_no_longer(metrics, observer):
    metrics.model_loaded("churn", "1", 0.25)
    observer.serving(Serving("churn", 3, (InUse("1", "aa", "stable"), InUse("2", "bb", "canary"))))
    observer.serving(Serving("churn", 4, (InUse("2", "bb", "stable"),)))
    found = shown(metrics)
    assert found["inference_rollout_revision{model=churn,pipeline=p}"] == 4
    info = {name for name in found if name.startswith(("inference_model_info", "inference_model_load"))}
    assert info == {"inference_model_info{digest=bb,model=churn,part=stable,pipeline=p,version=2}"}


def test_answers_are_told_apart_by_who_gave_them(metrics, observer):
    observer.committed(Committed((outcomes(rejected={(Stage.MODEL, Reason.MODEL_ERROR): 3}),), NOW_MS))
    observer.committed(Committed((replace(outcomes(version="2"), answered_by="canary"),), NOW_MS))
    found = {name: value for name, value in shown(metrics).items() if name.startswith("inference_answers")}
    assert found == {
        "inference_answers_total{answered_by=stable,model=churn,outcome=predicted,pipeline=p,version=1}": 2,
        "inference_answers_total{answered_by=stable,model=churn,outcome=dead_lettered,pipeline=p,version=1}": 3,
        "inference_answers_total{answered_by=canary,model=churn,outcome=predicted,pipeline=p,version=2}": 2,
    }


def test_failures_of_models_and_of_rollouts_are_counted(metrics, observer):
    asked = (Asked("churn", "2", 0.1, failed=True), Asked("churn", "1", 0.2))
    observer.batch_scored(BatchScored(5, "age", 0.0, 0.3, asked, (5,)))
    observer.rollout_failed("churn", "ModelInvalid", "4")
    found = shown(metrics)
    assert found["inference_model_failures_total{model=churn,pipeline=p,version=2}"] == 1
    assert "inference_model_failures_total{model=churn,pipeline=p,version=1}" not in found
    assert found["inference_model_seconds_count{model=churn,version=1}"] == 1
    assert found["inference_rollout_errors_total{error=ModelInvalid,model=churn,version=4}"] == 1


def test_two_workers_in_one_process_share_no_metric():
    first, second = Metrics(), Metrics()
    PipelineObserver(first, "p").transaction("committed")
    assert 'result="committed"' in first.exposition().decode()
    assert 'result="committed"' not in second.exposition().decode()


def test_the_exposition_is_well_formed(metrics, observer):
    observer.committed(Committed((outcomes(),), NOW_MS))
    observer.pulse(pulse({A: Lag(5, 1.5)}))
    text = metrics.exposition().decode()
    assert all(math.isfinite(value) for value in shown(metrics).values())
    assert re.search(r"^# TYPE inference_batch_records histogram$", text, re.M)
