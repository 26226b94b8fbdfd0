"""A shadow's candidate has a handler of its own, on the real broker: whatever it does, the primary answers as ever."""

from collections import Counter

from made_pages import put, shadow_page
from rig import answers, events_of, write
from test_hot_swap import settings_of, until_serving
from test_odd_models import ages
from test_shadow_faults import ROWS as COUNTED
from test_shadow_faults import comparisons, errors, shadowed_lane
from worker_process import running_worker

__all__ = ["shadowed_lane"]  # the fixture

HANDLER = "tests.integration.churn_handler:OddBeside"
IMPATIENT = "tests.integration.odd_shadow"
ROWS = 1_500
REASONS = {77: "model_error", 44: "bad_shape", 88: "not_finite"}


def results(worker):
    """(version, result) → rows so far."""
    return {key: int(count) for key, count in worker.metrics().of(COUNTED, "version", "result").items()}


def until_counted(worker, rows):
    worker.wait_until(lambda: sum(results(worker).values()) == rows, lambda: f"{rows} rows, now {results(worker)}")


def test_a_candidates_handler_that_raises_answers_nan_or_hangs_costs_its_own_rows_only(shadowed_lane, tmp_path):
    lane = shadowed_lane
    events = events_of(lane.event_stream(), ROWS)
    put(lane.store, shadow_page("1", "2", percent=100))
    settings = settings_of(lane, pipeline={"shadow_topic": lane.shadow_topic, "handler": HANDLER})
    with running_worker(settings, tmp_path, module=IMPATIENT, ODD_SHADOW="nothing") as worker:
        worker.wait_until_assigned()
        worker.wait_until(lambda: worker.said("shadow_ready"), "the shadow to be ready")
        for start in range(0, ROWS, 100):  # two batches have places: what comes at once is dropped
            write(lane.kafka, lane.inputs[0], events[start : start + 100])
            until_counted(worker, start + 100)
        assert errors(worker) == set()  # rows failed, and nothing else did

        put(lane.store, shadow_page("1", "3", 2))
        until_serving(worker, 2)
        worker.wait_until(lambda: len(worker.said("shadow_ready")) == 2, "the other shadow to be ready")
        write(lane.kafka, lane.inputs[0], events[:300])
        worker.wait_for_records(ROWS + 300)
        until_counted(worker, ROWS + 300)
        worker.wait_until(lambda: "ShadowHung" in errors(worker), "the shadow to be killed")
        found = results(worker)
        assert worker.stop() == 0

    assert lane.verified(sample=300).inputs == ROWS + 300  # loadgen's own arithmetic
    assert {answer["model_version"] for _, answer in answers(lane)} == {"1"}
    told = [comparison for _, comparison in comparisons(lane)]
    assert {comparison["candidate_version"] for comparison in told} == {"2"}  # who hangs compares nothing
    age_of = {key: age for (_, key, _), age in zip(events, ages([value for _, _, value in events]), strict=True)}
    by_reason = Counter()
    for message, comparison in comparisons(lane):
        reason = REASONS.get(age_of[message.key()])
        if reason is not None:
            assert (comparison["result"], comparison["reason"]) == ("failed", reason)
        elif comparison["result"] == "failed":
            assert comparison["reason"] == "bad_output"  # it was not sure of this one
        else:
            assert comparison["max_difference"] is not None
        by_reason[comparison["reason"]] += 1
    assert min(by_reason[reason] for reason in (*REASONS.values(), "bad_output", None)) > 0
    assert found["2", "failed"] == sum(count for reason, count in by_reason.items() if reason)
    assert found["3", "failed"] + found.get(("3", "dropped"), 0) == 300
