"""A batch leaves behind what its predictions add up to, whatever became of its other rows and whoever answered."""

from dataclasses import replace

import pytest
from fakes import NOW_MS, FakeRecord
from made_pages import canary_page, stable_page
from small_pipeline import EVENT_HEADER, SICK, SmallPipeline, event, model_of, read, tenths

from app.answering.asking import FallbackPolicy
from app.errors import ModelFailed
from app.pipeline.infer import OutputPolicy
from app.pipeline.summary.plan import SummaryPlan
from app.specs import InputSpec, NumberFeature
from app.worker.chain import ChainPolicy


def failing(_tensors):
    raise ModelFailed("out of order")


class SummedPipeline(SmallPipeline):
    """Every lane has a plan; `summaries` gives what a batch adds up to, by version."""

    def __init__(self, *models, page=None, **more):
        super().__init__(*models, page=page, **more)
        self.lanes = {
            version: replace(lane, summary=SummaryPlan("small", lane.answerer.model, {"x": (0.0, 5.0, 10.0)}, 0.6))
            for version, lane in self.lanes.items()
        }
        self.use(page or stable_page(self.model.version))

    def summaries(self, records):
        scored = self.score(records)
        told = [rows.plan.record(rows.plan.fold([rows]), 0) for rows in scored.summed]
        assert sum(record["records"] for record in told) == len(scored.predictions.values)
        return {record["version"]: record for record in told}, read(scored.predictions.values)


def test_a_batch_adds_up_to_its_predictions():
    pipeline = SummedPipeline(model_of("1"))
    told, predictions = pipeline.summaries([event(x, x) for x in range(5)])
    [record] = told.values()
    assert (record["pipeline"], record["model"], record["digest"]) == ("small", "churn", f"{1:016x}")
    assert record["records"] == 5
    assert record["from_ms"] == record["to_ms"] == predictions[0]["predicted_at"]
    assert record["score_sum"] == pytest.approx(sum(prediction["p"] for prediction in predictions))
    assert record["features"][0]["counts"] == [0, 5, 0, 0]
    assert record["features"][0]["sum"] == 10


def test_rows_that_are_refused_anywhere_are_seen_but_not_predicted():
    records = [
        event(1.0, 0),
        event(None, 1),  # missing: refused by the features
        event(11.0, 2),  # out of range
        event(SICK, 3),  # a bad output
        FakeRecord(None, offset=4),  # a tombstone
        FakeRecord(EVENT_HEADER + b"\xff", offset=5),  # no event
        event(2.0, 6),
    ]
    told, predictions = SummedPipeline(model_of("1")).summaries(records)
    [record] = told.values()
    assert record["records"] == len(predictions) == 2
    [feature] = record["features"]
    assert (feature["count"], feature["missing"]) == (5, 1)
    assert (feature["min"], feature["max"], sum(feature["counts"])) == (1.0, 2.0, 2)


def test_a_batch_that_is_refused_as_a_whole_still_says_what_was_missing():
    told, predictions = SummedPipeline(model_of("1")).summaries([event(None, 0), event(None, 1)])
    [record] = told.values()
    assert predictions == []
    assert record["records"] == sum(record["latency"]["counts"]) == 0
    assert record["features"][0]["missing"] == record["features"][0]["count"] == 2


def test_a_prediction_that_is_too_large_is_not_counted():
    pipeline = SummedPipeline(model_of("1"), policy=ChainPolicy(max_output_bytes=100))
    told, predictions = pipeline.summaries([event(1.0, 0), event(2.0, 1, key=b"k" * 100)])
    assert told["1"]["records"] == len(predictions) == 1
    assert told["1"]["features"][0]["sum"] == 1


def test_latency_is_from_the_events_own_time():
    pipeline = SummedPipeline(model_of("1"))
    pipeline.clock.advance(2.5)
    told, _ = pipeline.summaries([event(1.0, 0)])
    assert told["1"]["latency_sum"] == 2.5


def test_each_version_of_a_rollout_is_summed_by_itself():
    pipeline = SummedPipeline(model_of("1"), model_of("2"), page=canary_page("1", "2", 50))
    told, predictions = pipeline.summaries([event(x % 8, x) for x in range(100)])
    by_version = [prediction["model_version"] for prediction in predictions]
    assert {version: record["records"] for version, record in told.items()} == {
        version: by_version.count(version) for version in ("1", "2")
    }
    assert min(record["records"] for record in told.values()) > 10
    for version, record in told.items():
        of_this = [prediction["p"] for prediction in predictions if prediction["model_version"] == version]
        assert record["score_sum"] == pytest.approx(sum(of_this))


def test_what_stable_answers_for_a_canary_counts_as_stables_without_the_canarys_features():
    model = model_of("2", failing)
    model.at_fault = True
    pipeline = SummedPipeline(model_of("1"), model, page=canary_page("1", "2", 50))
    scored = pipeline.score([event(x % 8, x) for x in range(100)])
    told = [rows.plan.record(rows.plan.fold([rows]), 0) for rows in scored.summed]
    assert [record["version"] for record in told] == ["1", "1"]
    assert sum(record["records"] for record in told) == 100
    own, in_place = told if told[0]["features"][0]["count"] else told[::-1]
    assert own["features"][0]["count"] == own["records"]
    assert in_place["features"][0]["count"] == 0
    assert in_place["records"] > 10


def test_the_manifests_constant_counts_for_the_version_it_is_of():
    model = model_of("1", failing)
    model.at_fault = True
    policy = ChainPolicy(fallback=FallbackPolicy(constant=True))
    pipeline = SummedPipeline(model, policy=policy, constant={"label": 0, "p": 0.25})
    told, predictions = pipeline.summaries([event(1.0, 0), event(2.0, 1)])
    assert [prediction["answered_by"] for prediction in predictions] == ["fallback"] * 2
    assert told["1"]["classes"] == [{"label": "0", "count": 2}, {"label": "1", "count": 0}]
    assert told["1"]["score_sum"] == 0.5
    assert sum(told["1"]["confidence"]["counts"]) == 0


def test_rows_that_nobody_answers_are_seen():
    model = model_of("1", failing)
    model.at_fault = True
    pipeline = SummedPipeline(model, policy=ChainPolicy(OutputPolicy(), fallback=FallbackPolicy(then="dead_letter")))
    told, predictions = pipeline.summaries([event(1.0, 0)])
    assert predictions == []
    assert told["1"]["features"][0]["count"] == 1


def test_without_a_plan_nothing_is_kept():
    assert SmallPipeline(model_of("1")).score([event(1.0, 0)]).summed == ()


def test_stamps_are_those_of_the_rows_that_are_left():
    records = [FakeRecord(None, offset=0, timestamp=(1, NOW_MS - 9_000)), event(1.0, 1)]
    [rows] = SummedPipeline(model_of("1")).score(records).summed
    assert rows.timestamps_ms.tolist() == [NOW_MS]
    assert rows.rows.tolist() == [1]


def test_a_field_that_is_taken_twice_is_told_of_once():
    inputs = (InputSpec(name="X", features=(NumberFeature(field="x"), NumberFeature(field="x"))),)
    told, _ = SummedPipeline(model_of("1", tenths, inputs)).summaries([event(3.0, 0)])
    assert [feature["name"] for feature in told["1"]["features"]] == ["x"]
    assert told["1"]["features"][0]["sum"] == 3.0
