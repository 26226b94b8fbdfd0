"""Handlers on the real broker: the manifest's own mapping in Python, and some that fail."""

import pytest
from made_pages import put, stable_page
from rig import answers, committed, events_of, read_all, write
from test_hot_swap import settings_of
from test_odd_models import ages, letters_by_offset
from worker_process import refused_start, running_worker

WHERE = "tests.integration.churn_handler"


def with_handler(lane, name, **options):
    """A worker's settings with this handler."""
    return lane.settings(pipeline={"handler": f"{WHERE}:{name}", **options})


def test_a_handler_that_does_what_the_manifest_says_predicts_what_loadgen_expects(lane, tmp_path):
    one = lane()
    with running_worker(with_handler(one, "SameAsManifest"), tmp_path) as worker:
        one.produce(5_000, poison=0.01)
        verdict = one.verified(sample=1_000)
        rejected = worker.metrics().of("inference_dead_letters_total", "stage", "reason")
        assert worker.stop() == 0
    assert verdict.inputs == 5_000
    assert rejected.keys() >= {("features", "out_of_range")}


def test_events_that_a_handler_fails_on_are_dead_lettered_alone(lane, tmp_path):
    one = lane(partitions=1)
    events = events_of(one.event_stream(), 5_000, partitions=1)
    allergic = {(0, offset) for offset, age in enumerate(ages([value for _, _, value in events])) if age == 77}
    assert 10 < len(allergic) < 500
    write(one.kafka, one.inputs[0], events)
    with running_worker(with_handler(one, "Allergic"), tmp_path) as worker:
        worker.wait_for_records(5_000)
        assert worker.stop() == 0
    letters = letters_by_offset(one)
    assert letters.keys() == allergic
    named = ("__connect.errors.stage", "inference.reason", "__connect.errors.exception.class.name")
    assert {tuple(letter[name] for name in named) for letter in letters.values()} == {
        ("features", "model_error", "SystemExit")
    }
    answered = {(a["source_partition"], a["source_offset"]) for _, a in answers(one)}
    assert answered == {(0, offset) for offset in range(5_000)} - allergic


def test_a_handler_that_breaks_dead_letters_nothing_stops_the_worker_and_loses_nothing(lane, tmp_path):
    one = lane(partitions=1)
    one.produce(5_000)
    settings = with_handler(one, "Tiring", batch={"max_records": 100})
    with running_worker(settings, tmp_path) as worker:
        assert worker.wait() == 1
        assert "HandlerFailed" in worker.log
        assert "RuntimeError: tired (churn_handler.py, line" in worker.log
    assert read_all(one.kafka, one.dead_letters) == []
    answered = len(answers(one))
    assert answered == max(0, committed(one.kafka, settings["kafka"]["group_id"], one.inputs[0])[0]) < 5_000

    del settings["pipelines"][0]["handler"]
    with running_worker(settings, tmp_path) as worker:
        verdict = one.verified()
        assert worker.stop() == 0
    assert verdict.predictions == 5_000


def test_a_version_that_its_handler_refuses_leaves_the_old_one_serving(changing_lane, tmp_path):
    one = changing_lane()
    put(one.store, stable_page("1"))
    settings = with_handler(one, "FirstOnly") | {"models": settings_of(one)["models"]}
    with running_worker(settings, tmp_path) as worker:
        worker.wait_until_assigned()
        put(one.store, stable_page("2", revision=2))
        worker.wait_until(lambda: worker.said("rollout_refused"), "the version to be refused")
        one.produce(1_000)
        worker.wait_for_records(1_000)
        assert worker.stop() == 0
        (line,) = worker.said("rollout_refused")
    assert (line["error"], line["version"], line["still_serving"]) == ("HandlerInvalid", "2", 1)
    assert "ValueError: not made for version 2" in line["reason"]
    assert {answer["model_version"] for _, answer in answers(one)} == {"1"}


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (f"{WHERE}:Absent", "has no attribute 'Absent'"),
        ("tests.integration.nowhere:Any", "ModuleNotFoundError"),
        (f"{WHERE}:NUMBERS", "is no class but a tuple"),
        (f"{WHERE}:Unwilling", "refuses in initialize: PermissionError: no licence for version 1"),
    ],
)
def test_a_handler_that_is_none_or_refuses_ends_the_start_by_name(lane, tmp_path, handler, reason):
    said, _ = refused_start(lane().settings(pipeline={"handler": handler}), tmp_path)
    assert "HandlerInvalid" in said
    assert handler in said
    assert reason in said
