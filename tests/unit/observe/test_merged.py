"""Several processes' metrics are one page: counters only rise, gauges mean what they meant."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from app.facts import Asked, BatchScored, Committed, Lag, Outcomes, Pulse, Serving
from app.observe.merged import RESTARTS, STATES, ProcessMetrics, merge
from app.observe.metrics import TABLE
from app.observe.pipeline_observer import PipelineObserver
from app.observe.worker_metrics import Metrics
from app.records import TopicPartition

OWN = {STATES, RESTARTS}


def process(*, records=10, busy=0.5, rate=100.0, buffered=7, lag=None, load_s=0.1, version="1"):
    """The metrics of a process that did something of everything."""
    metrics = Metrics()
    observer = PipelineObserver(metrics, "p")
    metrics.model_loaded("churn", version, load_s)
    observer.batch_scored(BatchScored(records, "age", 0.019, 0.004, (Asked("churn", version, 0.002),), [records]))
    outcomes = Outcomes("churn", version, records, 0, {"1": records}, {}, np.zeros(records), np.full(records, 0.9))
    observer.committed(Committed((outcomes,), 250))
    observer.transaction("committed")
    lags = {TopicPartition("in", partition): Lag(*values) for partition, values in (lag or {}).items()}
    observer.pulse(Pulse(busy_ratio=busy, records_per_second=rate, buffered_bytes=buffered, lag=lags))
    return metrics


def together(*processes):
    merged = ProcessMetrics()
    for slot, metrics in enumerate(processes):
        merged.reported(slot, metrics.samples())
    return merged


def shown(merged):
    """name{label=value} → value, of the page, labels in order."""
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(merged.exposition().decode())
        for sample in family.samples
    }


def what_it_did(page):
    """The page up to what the operating system tells of the process, which is another at each look."""
    return page.partition(b"# HELP process_")[0]


def test_the_page_of_one_process_is_its_own():
    metrics = process(lag={0: (5, 1.5)})
    assert what_it_did(together(metrics).exposition()) == what_it_did(metrics.exposition())


def test_memory_and_processor_time_are_added_up_and_a_restart_shows():
    page = shown(together(process(), process()))
    (alone,) = (value for name, value in shown(together(process())).items() if "resident_memory" in name)
    assert page["process_resident_memory_bytes{}"] > 1.5 * alone
    assert page["process_cpu_seconds_total{}"] > 0
    starts = {("process_start_time_seconds", ()): 100.0}, {("process_start_time_seconds", ()): 200.0}
    assert merge(starts)["process_start_time_seconds", ()] == 200.0


def test_counters_and_histograms_are_added_up():
    page = shown(together(process(records=10), process(records=30), process(records=2, version="2")))
    assert page["inference_records_total{outcome=predicted,pipeline=p}"] == 42
    assert page["inference_predictions_total{model=churn,pipeline=p,result=1,version=1}"] == 40
    assert page["inference_transactions_total{result=committed}"] == 3
    assert page["inference_batch_records_count{pipeline=p}"] == 3
    assert page["inference_batch_records_sum{pipeline=p}"] == 42
    assert page["inference_batch_records_bucket{le=8.0,pipeline=p}"] == 1
    assert page["inference_batch_records_bucket{le=16.0,pipeline=p}"] == 2
    assert page["inference_batch_records_bucket{le=+Inf,pipeline=p}"] == 3
    assert page["inference_end_to_end_latency_seconds_sum{pipeline=p}"] == 0.25 * 42


def test_the_page_in_force_is_the_oldest_that_a_process_still_serves_by():
    processes = [Metrics(), Metrics()]
    for metrics, revision in zip(processes, (7, 6), strict=True):
        PipelineObserver(metrics, "p").serving(Serving("churn", revision, ()))
    assert shown(together(*processes))["inference_rollout_revision{model=churn,pipeline=p}"] == 6


def test_gauges_are_merged_by_what_they_mean():
    first = process(busy=0.2, rate=100.0, buffered=7, lag={0: (5, 1.5), 2: (1, 1.0)}, load_s=0.1)
    second = process(busy=0.8, rate=50.0, buffered=9, lag={1: (0, 0.0)}, load_s=0.3)
    page = shown(together(first, second))
    assert page["inference_busy_ratio{}"] == 0.5
    assert page["inference_capacity_records_per_second{}"] == 150
    assert page["inference_buffered_bytes{pipeline=p}"] == 16
    assert page["inference_model_load_seconds{model=churn,version=1}"] == 0.3
    assert {name: value for name, value in page.items() if "lag_records" in name} == {
        "inference_lag_records{partition=0,topic=in}": 5,
        "inference_lag_records{partition=1,topic=in}": 0,
        "inference_lag_records{partition=2,topic=in}": 1,
    }


def test_a_partition_that_changes_hands_shows_the_larger_lag():
    page = shown(together(process(lag={0: (5, 0.5)}), process(lag={0: (2, 3.0)})))
    assert page["inference_lag_records{partition=0,topic=in}"] == 5
    assert page["inference_lag_seconds{partition=0,topic=in}"] == 3.0


def test_of_an_ended_process_its_counts_are_left():
    merged = together(process(records=10, lag={0: (5, 1.5)}), process(records=30, busy=0.8, lag={1: (1, 1.0)}))
    merged.ended(0)
    page = shown(merged)
    assert page["inference_records_total{outcome=predicted,pipeline=p}"] == 40
    assert page["inference_busy_ratio{}"] == 0.8
    assert [name for name in page if "lag_records" in name] == ["inference_lag_records{partition=1,topic=in}"]
    merged.ended(0)
    merged.ended(7)
    assert shown(merged) == page


def test_supervision_shows_states_and_restarts():
    merged = ProcessMetrics()
    for slot in (0, 1):
        merged.started(slot, again=False)
    merged.started(1, again=True)
    merged.counted({"ready": 1, "not_ready": 1, "waiting": 0})
    assert shown(merged) == {
        "inference_worker_processes{state=ready}": 1,
        "inference_worker_processes{state=not_ready}": 1,
        "inference_worker_processes{state=waiting}": 0,
        "inference_process_restarts_total{slot=0}": 0,
        "inference_process_restarts_total{slot=1}": 1,
    }


def test_a_metric_of_a_newer_program_is_left_out():
    merged = together(process())
    before = merged.exposition()
    merged.reported(1, (("inference_of_tomorrow", (), 1.0),))
    assert merged.exposition() == before


@pytest.mark.parametrize("name", sorted(OWN))
def test_one_process_alone_exports_nothing_of_supervision(name):
    assert not [line for line in process().exposition().decode().splitlines() if line.startswith(name)]


# -- laws ------------------------------------------------------------------------------------------------------

SERIES = [
    (spec.name + part, (*((label, "x") for label in spec.labels), *more))
    for spec in TABLE
    for part, more in {
        "counter": [("", ())],
        "gauge": [("", ())],
        "histogram": [("_bucket", (("le", "+Inf"),)), ("_count", ()), ("_sum", ())],
    }[spec.kind]
]
GAUGES = {spec.name for spec in TABLE if spec.kind == "gauge"}
SAMPLES = st.dictionaries(st.sampled_from(SERIES), st.integers(0, 2**40).map(float))
AMOUNTS = st.floats(0, 1e9, allow_nan=False) | st.integers(0, 10**9).map(float)


@given(SAMPLES)
def test_merging_one_changes_nothing(samples):
    assert list(merge([samples]).items()) == list(samples.items())


@given(st.lists(SAMPLES, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_processes_does_not_matter(processes, random):
    shuffled = random.sample(processes, len(processes))
    assert merge(shuffled) == merge(processes)


@given(st.lists(SAMPLES, max_size=4))
def test_what_is_counted_is_the_sum_and_every_series_is_kept(processes):
    merged = merge(processes)
    assert merged.keys() == {series for samples in processes for series in samples}
    for series, value in merged.items():
        if series[0] not in GAUGES:
            assert value == sum(samples.get(series, 0.0) for samples in processes)


COUNTED = [series for series in SERIES if series[0] not in GAUGES and series[0] not in OWN]
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.none() | st.dictionaries(st.sampled_from(COUNTED), AMOUNTS, max_size=4)),
    max_size=30,
)


LATENCY = ("inference_end_to_end_latency_seconds_sum", (("pipeline", "p"),))


@given(STEPS)
@example([(0, {LATENCY: 0.1}), (1, {LATENCY: 0.4}), (2, {LATENCY: 0.1}), (0, None), (1, None)])  # 0.1 + 0.4 rounds down
def test_no_count_ever_falls_whatever_is_reported_and_whoever_ends(steps):
    """Each step, a process counts more of something, or ends (None) and comes back with nothing."""
    merged, counts, before = ProcessMetrics(), {}, {}
    for slot, more in steps:
        if more is None:
            merged.ended(slot)
            counts.pop(slot, None)
        else:
            mine = counts.setdefault(slot, {})
            for series, amount in more.items():
                mine[series] = mine.get(series, 0.0) + amount
            merged.reported(slot, [(*series, value) for series, value in mine.items()])
        after = merged.samples()
        assert all(after[series] >= value for series, value in before.items())
        before = after
