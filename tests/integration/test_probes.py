"""What a worker shows of itself agrees with what it did."""

from rig import committed, ends, events_of, write
from worker_process import running_worker

LAG = "inference_lag_records"


def test_counters_agree_with_the_topics_and_with_each_other(lane, tmp_path):
    one = lane()
    one.produce(5_000, poison=0.01)

    with running_worker(one.settings(), tmp_path) as worker:
        verdict = one.verified()
        worker.wait_for_records(5_000)
        # told with the pulse that follows the records, up to a second later
        capacity = worker.wait_until(
            lambda: worker.metrics().total("inference_capacity_records_per_second"), "the capacity to be known"
        )
        metrics = worker.metrics()
        assert worker.get("/livez") == (200, "ok")
        assert worker.get("/readyz") == (200, "ok")
        assert worker.stop() == 0

    assert (metrics.records("predicted"), metrics.records("dead_lettered")) == (4_950, 50)
    assert metrics.total("inference_predictions_total", model="churn", version="1") == verdict.predictions
    reasons = {}
    for (reason, _), count in metrics.of("inference_dead_letters_total", "reason", "stage").items():
        reasons[reason] = reasons.get(reason, 0) + int(count)
    assert reasons == verdict.dead_letters
    assert metrics.total("inference_end_to_end_latency_seconds_count", pipeline="churn") == 5_000
    assert metrics.total("inference_prediction_confidence_count") == 4_950
    assert metrics.total("inference_batch_records_sum") == 5_000
    assert metrics.total("inference_batches_total") == metrics.total("inference_batch_records_count")
    assert metrics.total("inference_batches_total") == metrics.total("inference_model_seconds_count")
    assert metrics.total("inference_transactions_total", result="committed") >= 1
    assert metrics.total("inference_transactions_total", result="aborted") == 0
    assert metrics.of("inference_rebalances_total", "kind") == {("assigned",): 1}
    assert metrics.total("inference_model_load_seconds", model="churn", version="1") > 0
    assert 0 <= metrics.total("inference_busy_ratio") <= 1
    assert capacity > 0


def test_lag_ends_at_0_and_offsets_pass_the_transaction_markers_of_the_input(lane, tmp_path):
    one = lane()
    settings = one.settings()
    events = events_of(one.event_stream(), 2_000)
    write(one.kafka, one.inputs[0], events, **{"transactional.id": one.inputs[0]})
    end = ends(one.kafka, one.inputs[0])
    assert sum(end.values()) >= 2_000 + 20 * 4  # markers in every partition

    with running_worker(settings, tmp_path) as worker:
        worker.wait_for_records(2_000)
        group = settings["kafka"]["group_id"]
        worker.wait_until(
            lambda: committed(one.kafka, group, one.inputs[0]) == end,
            lambda: f"{end} committed, now {committed(one.kafka, group, one.inputs[0])}",
        )
        worker.wait_until(
            lambda: set(worker.metrics().of(LAG, "partition").values()) == {0},
            lambda: worker.metrics().of(LAG, "partition"),
        )
        assert worker.metrics().total("inference_lag_seconds") == 0
        assert worker.stop() == 0


def test_lag_shows_the_backlog_of_a_worker_that_cannot_keep_up(lane, tmp_path):
    one = lane(partitions=1)
    one.produce(50_000)

    with running_worker(one.settings(pipeline={"batch": {"max_records": 1}}), tmp_path) as worker:

        def loaded():
            """Figures of a second that was all under load: that of the assignment may not have been."""
            metrics = worker.metrics()
            behind_s, busy = metrics.total("inference_lag_seconds"), metrics.total("inference_busy_ratio")
            return metrics if behind_s > 0 and busy > 0.5 else None

        metrics, later = worker.wait_until(loaded, "a pulse under load"), worker.metrics()
        assert 50_000 - later.records() - 1_000 <= metrics.total(LAG) <= 50_000
        assert worker.stop() == 0
