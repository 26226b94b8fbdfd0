"""Versions change while the stream flows: no record lost, doubled or without one version, no rebalance, no restart."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from made_pages import blue_green_page, put, stable_page
from rig import answers
from test_groups import produce_until
from worker_process import running_worker, wait_until

FAST = {"rollout_poll_s": 0.05}


def revision_of(worker):
    """Of the page in force."""
    return worker.metrics().total("inference_rollout_revision")


def until_serving(worker, revision):
    worker.wait_until(lambda: revision_of(worker) == revision, f"revision {revision} to be in force")


def settings_of(lane, **sections):
    return lane.settings(models=FAST, **sections)


def in_source_order(lane):
    """Answers by source partition, in offset order."""
    found = {}
    for _, answer in answers(lane):
        found.setdefault(answer["source_partition"], []).append(answer)
    return [sorted(part, key=lambda answer: answer["source_offset"]) for part in found.values()]


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once"])
def test_swaps_in_mid_stream_lose_nothing_and_cost_no_rebalance(changing_lane, mode, tmp_path):
    lane = changing_lane()
    pages = [stable_page("1")]
    for revision in range(2, 12):
        version, other = ("1", "2") if revision % 2 else ("2", "3")
        make = blue_green_page if revision > 6 else lambda stable, _, number: stable_page(stable, number)
        pages.append(make(version, other, revision))
    put(lane.store, pages[0])
    settings = settings_of(lane, delivery={"mode": mode})

    with running_worker(settings, tmp_path) as worker, ThreadPoolExecutor(1) as background:
        worker.wait_until_assigned()
        load = Event()
        sent = background.submit(produce_until, lane, load, rate=2_000, poison=0.005)
        try:
            for page in pages[1:]:
                seen = worker.metrics().records()
                worker.wait_for_records(seen + 500)
                put(lane.store, page)
                until_serving(worker, page.revision)
        finally:
            load.set()
        events = sent.result()
        verdict = lane.verified(at_least_once=mode == "at_least_once", sample=0)
        metrics = worker.metrics()
        assert worker.stop() == 0

    assert verdict.inputs == events
    assert metrics.of("inference_rebalances_total", "kind").keys() == {("assigned",)}
    assert metrics.of("inference_rollout_errors_total", "error") == {}
    version_of = {page.revision: page.stable for page in pages}
    for part in in_source_order(lane):
        revisions = [answer["rollout_revision"] for answer in part]
        assert revisions == sorted(revisions), "a partition never goes back to an older page"
        assert len(set(revisions)) > len(pages) / 2
        assert all(answer["model_version"] == version_of[answer["rollout_revision"]] for answer in part)
        assert {answer["answered_by"] for answer in part} == {"stable"}


def test_a_standby_that_is_loaded_answers_within_one_poll(changing_lane, tmp_path):
    lane = changing_lane()
    put(lane.store, blue_green_page("1", "2"))
    with running_worker(settings_of(lane), tmp_path) as worker:
        worker.wait_until_ready()
        info = worker.metrics().of("inference_model_info", "version", "part")
        assert info == {("1", "stable"): 1, ("2", "standby"): 1}
        put(lane.store, blue_green_page("2", "1", 2, previous="1"))
        until_serving(worker, 2)
        lane.produce(500)
        worker.wait_for_records(500)
        put(lane.store, blue_green_page("1", "2", 3, previous="2"))
        until_serving(worker, 3)
        assert len(worker.said("model_loaded")) == 2, "neither the switch nor the way back loads anything"
        assert worker.stop() == 0
    assert {answer["model_version"] for _, answer in answers(lane)} == {"2"}


def spoil(store, number, change):
    """A version made of version 2, with `change` done to its folder and its manifest."""
    folder = store / "churn" / number
    shutil.copytree(store / "churn" / "2", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["version"] = number
    change(folder, manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def one_byte(folder, _):
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(content)


def other_golden_rows(_, manifest):
    manifest["golden"]["outputs"]["probabilities"][3] = [0.0, 1.0]


def a_field_nobody_has(_, manifest):
    manifest["inputs"][0]["features"][0]["field"] = "shoe_size"


def another_schema(_, manifest):
    manifest["prediction_schema"] = "DigitPrediction"


def no_graph(folder, _):
    (folder / "model.onnx").unlink()


def test_bad_versions_leave_the_old_one_serving_by_name_until_a_good_one_comes(changing_lane, tmp_path):
    lane = changing_lane()
    put(lane.store, stable_page("1"))
    bad = {
        "4": (one_byte, "ModelInvalid", "has the digest"),
        "5": (other_golden_rows, "ModelInvalid", "differs from golden row 3"),
        "6": (a_field_nobody_has, "SchemaIncompatible", "shoe_size"),
        "7": (another_schema, "SchemaIncompatible", "that changes with a restart only"),
        "8": (no_graph, "ModelInvalid", "model.onnx is missing"),
    }
    for number, (change, _, _) in bad.items():
        spoil(lane.store, number, change)

    with running_worker(settings_of(lane), tmp_path) as worker:
        worker.wait_until_ready()
        for revision, (number, (_, error, reason)) in enumerate(bad.items(), start=2):
            put(lane.store, stable_page(number, revision))
            worker.wait_until(lambda count=revision - 1: len(worker.said("rollout_refused")) == count, "a refusal")
            line = worker.said("rollout_refused")[-1]
            assert (line["error"], line["still_serving"]) == (error, 1)
            assert reason in line["reason"]
        (lane.store / "churn" / "rollout.json").write_text("{")
        worker.wait_until(lambda: worker.said("rollout_not_read"), "a broken page to be told")
        lane.produce(500)
        worker.wait_for_records(500)
        metrics = worker.metrics()
        assert revision_of(worker) == 1
        put(lane.store, stable_page("3", 20, previous="1"))
        until_serving(worker, 20)
        lane.produce(500)
        worker.wait_for_records(1_000)
        assert worker.stop() == 0

    assert metrics.total("inference_rollout_errors_total", error="SchemaIncompatible") >= 2
    assert metrics.total("inference_rollout_errors_total", error="ModelInvalid") >= 4
    versions = [answer["model_version"] for _, answer in answers(lane)]
    assert (versions.count("1"), versions.count("3")) == (500, 500)


def test_a_store_that_is_away_is_missed_by_nobody_and_asked_again(changing_lane, tmp_path):
    lane = changing_lane()
    put(lane.store, stable_page("1"))
    with running_worker(settings_of(lane), tmp_path) as worker:
        worker.wait_until_ready()
        away = lane.store.rename(lane.store.with_name("away"))
        worker.wait_until(lambda: worker.said("rollout_not_read"), "the outage to be told")
        lane.produce(500)
        worker.wait_for_records(500)
        put(away, stable_page("2", 2))
        away.rename(lane.store)
        until_serving(worker, 2)
        assert len(worker.said("rollout_not_read")) == 1
        assert worker.stop() == 0
    assert {answer["model_version"] for _, answer in answers(lane)} == {"1"}


def test_while_a_version_fails_the_one_before_answers(changing_lane, tmp_path):
    lane = changing_lane()
    put(lane.store, stable_page("2", 2, previous="1"))
    settings = settings_of(lane, pipeline={"fallback": {"previous": True}})
    odd = {"module": "tests.integration.odd_worker", "ODD_MODEL": "break:10:2"}
    with running_worker(settings, tmp_path, **odd) as worker:
        worker.wait_until_assigned()
        lane.produce(3_000, rate=1_000)  # in many batches
        verdict = lane.verified(sample=0)
        metrics = worker.metrics()
        assert len(worker.said("model_failed")) == 1
        assert worker.stop() == 0
    assert verdict.predictions == 3_000
    by = metrics.of("inference_answers_total", "version", "answered_by")
    assert by.keys() == {("2", "stable"), ("1", "fallback")}
    assert metrics.total("inference_model_failures_total", version="2") == 1
    found = {(answer["model_version"], answer["answered_by"]) for _, answer in answers(lane)}
    assert found == {("2", "stable"), ("1", "fallback")}


def test_two_processes_take_the_new_version(changing_lane, tmp_path):
    lane = changing_lane(partitions=2)
    put(lane.store, stable_page("1"))
    with running_worker(settings_of(lane, worker={"processes": 2}), tmp_path) as worker:
        worker.wait_until_ready()
        put(lane.store, stable_page("2", 2))
        worker.wait_until(lambda: len([line for line in worker.said("rollout") if line["revision"] == 2]) == 2, "both")
        lane.produce(1_000)
        wait_until(lambda: len(answers(lane)) == 1_000, "all answers")
        assert worker.stop() == 0
    assert {answer["model_version"] for _, answer in answers(lane)} == {"2"}
