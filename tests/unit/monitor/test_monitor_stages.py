import numpy as np
import orjson
import pytest

from app.avro.framing import SingleObjectFraming
from app.avro.record_reader import WholeRecordReader
from app.errors import SchemaRegistryUnavailable
from app.monitor.judged import Judged, Part
from app.monitor.outcome_stage import AnswerFields, OutcomeFields, OutcomeReading, OutcomeStage
from app.monitor.outcomes import OutcomePolicy
from app.monitor.stage import JudgedRows, OutcomesTaken, Read, Rejected, Send, SummariesTaken
from app.monitor.window_stage import WindowStage
from app.monitor.windows import WindowPolicy
from app.pipeline.decode import Decoder
from tests.fakes import ManualClock
from tests.made_summaries import SCHEMAS, START_MS, framed, summary

NOW_MS = START_MS + 200_000
READER = WholeRecordReader(SingleObjectFraming(), SCHEMAS, SCHEMAS.named("ModelSummary"))


def window_stage(read=READER.read):
    return WindowStage("summaries", "parts", 2, WindowPolicy(), read, ["churn"])


def read_of(offset, value, topic="summaries", key=b"k", timestamp_ms=NOW_MS):
    return Read(topic, 0, offset, timestamp_ms, key, value)


def test_summaries_become_windows_that_are_kept_and_shown():
    stage = window_stage()
    taken = stage.take(0, [read_of(at, framed(summary([0.2, 0.8]))) for at in range(3)], NOW_MS)
    assert taken.facts == [SummariesTaken("summaries", 3, 0)]
    assert [view.last.records for view in stage.view(NOW_MS)] == [6]
    again = window_stage()
    again.restore({stage.name: [(0, key, value) for key, value in taken.steps[0].changes.items()]})
    assert again.view(NOW_MS) == stage.view(NOW_MS)


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        ("summaries", b""),
        ("summaries", b"\x00\x00\x00\x00\x01"),
        ("summaries", framed(summary([0.5]))[:-3]),
        ("summaries", framed(summary([0.5])) + b"x"),
        ("summaries", framed(summary([0.5]) | {"records": -4})),
        ("parts", b"not json"),
        ("parts", b"[]"),
        ("parts", b'{"pipeline": "churn"}'),
    ],
)
def test_a_record_that_cannot_be_used_is_told_and_its_neighbours_count(topic, value):
    stage = window_stage()
    good = framed(summary([0.2, 0.8]))
    taken = stage.take(0, [read_of(0, good), read_of(1, value, topic), read_of(2, None), read_of(3, good)], NOW_MS)
    assert [type(fact) for fact in taken.facts] == [Rejected, SummariesTaken]
    assert stage.view(NOW_MS)[0].records_total == 4


@pytest.mark.parametrize(
    "change",
    [
        {"window_start": 2**60},
        {"window_start": NOW_MS + 20 * 60_000},
        {"confidence_sum": float("nan")},
        {"latency": {"edges": [9.0], "counts": [1, 0]}},
    ],
)
def test_the_predictions_of_a_summary_that_is_refused_are_in_the_total_all_the_same(change):
    stage = window_stage()
    records = [read_of(0, framed(summary([0.2, 0.8]))), read_of(1, framed(summary([0.2, 0.8]) | change))]
    taken = stage.take(0, records, NOW_MS)
    assert [type(fact) for fact in taken.facts] == [Rejected, SummariesTaken]
    (view,) = stage.view(NOW_MS)
    assert (view.records_total, view.last.records) == (4, 2)
    assert stage.take(0, records, NOW_MS).steps == []  # read again, it counts no more


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        ("summaries", framed(summary([0.5], pipeline="other"))),
        ("parts", Part("other", "churn", "1", 0, START_MS, Judged(1, 1)).encoded()),
        ("parts", Part("churn", "churn", "1", 0, 2**62, Judged(1, 1)).encoded()),
        ("parts", Part("churn", "churn", "1", 0, NOW_MS + 3_600_000, Judged(1, 1)).encoded()),
        ("parts", Part("churn", "churn", "1", -1, START_MS, Judged(1, 1)).encoded()),
        (
            "parts",
            Part("churn", "churn", "1", 0, START_MS, Judged(1, 1)).encoded().replace(b'"rows":1', b'"rows":1e400'),
        ),
    ],
)
def test_what_tells_of_other_pipelines_or_of_the_future_makes_no_series(topic, value):
    stage = window_stage()
    mine = Part("churn", "churn", "1", 0, START_MS, Judged(5, 4))
    stage.take(0, [read_of(0, mine.encoded(), "parts")], NOW_MS)
    taken = stage.take(0, [read_of(1, value, topic)], NOW_MS)
    assert ([type(fact) for fact in taken.facts], list(taken.steps)) == ([Rejected], [])
    assert [view.parts for view in stage.view(NOW_MS)] == [(mine,)]


def test_while_a_schema_is_not_known_nothing_is_taken_in_so_that_all_of_it_can_come_again():
    def unknown_at_first(value):
        if waiting:
            raise SchemaRegistryUnavailable("away")
        return READER.read(value)

    waiting, stage = [], window_stage(unknown_at_first)
    records = [read_of(0, framed(summary([0.2]))), read_of(1, framed(summary([0.8])))]
    waiting.append(True)
    with pytest.raises(SchemaRegistryUnavailable):
        stage.take(0, records, NOW_MS)
    waiting.clear()
    assert len(stage.take(0, records, NOW_MS).steps) == 1
    assert stage.view(NOW_MS)[0].records_total == 2


def decoder(name):
    return Decoder(SingleObjectFraming(), SCHEMAS, SCHEMAS.named(name), ManualClock())


def outcome_stage(sampled=lambda keys: np.arange(len(keys))):
    reading = OutcomeReading(
        pipeline="churn", model="churn", classes=["0", "1"],
        sample_topic="sample", sample=decoder("ChurnPrediction"),
        sample_fields=AnswerFields("prediction", "probability", None),
        outcome_topic="outcomes", outcome=decoder("ChurnOutcome"),
        outcome_fields=OutcomeFields("churned", "event_time"), parts_topic="parts", partitions=2, sampled=sampled,
        shadow_topic="shadow", shadow=decoder("ShadowComparison"),
    )  # fmt: skip
    return OutcomeStage(reading, OutcomePolicy(), 60)


def prediction(**fields):
    return framed(
        {
            "customer_id": "c", "prediction": 1, "will_churn": True, "probability": 0.9, "confidence": 0.9,
            "model_name": "churn", "model_version": "1", "model_digest": "d", "answered_by": "stable",
            "rollout_revision": 1, "source_topic": "e", "source_partition": 0, "source_offset": 7,
            "event_time": START_MS, "predicted_at": START_MS,
        }
        | fields,
        "ChurnPrediction",
    )  # fmt: skip


def outcome(**fields):
    record = {"customer_id": "c", "event_time": START_MS, "churned": True, "observed_at": START_MS} | fields
    return framed(record, "ChurnOutcome")


def comparison(**fields):
    return framed(
        {
            "model_name": "churn", "rollout_revision": 1, "stable_version": "1", "candidate_version": "2",
            "candidate_digest": "d", "result": "disagreed", "reason": None, "stable_class": "1",
            "candidate_class": "0", "stable_numbers": [0.1, 0.9], "candidate_numbers": [0.8, 0.2],
            "mean_difference": 0.7, "max_difference": 0.7, "source_topic": "e", "source_partition": 0,
            "source_offset": 7, "event_time": START_MS + 3, "compared_at": START_MS,
        }
        | fields,
        "ShadowComparison",
    )  # fmt: skip


def test_stable_and_its_shadow_are_judged_by_one_outcome():
    taken = outcome_stage().take(
        0, [read_of(0, prediction(), "sample"), read_of(0, comparison(), "shadow"), read_of(0, outcome(), "outcomes")],
        NOW_MS,
    )  # fmt: skip
    judged = {fact.version: (fact.right, fact.wrong) for fact in taken.facts if isinstance(fact, JudgedRows)}
    assert judged == {"1": (1, 0), "2": (0, 1)}
    assert [getattr(step, "table", "sent") for step in taken.steps] == ["waiting-churn", "judged-churn", "sent"]
    assert [orjson.loads(value)["version"] for _, value in taken.steps[-1].records] == ["1", "2"]


@pytest.mark.parametrize(
    ("topic", "value", "key"),
    [
        ("sample", prediction(prediction=7), b"k"),
        ("sample", prediction(probability=float("nan")), b"k"),
        ("sample", prediction(probability=1.5), b"k"),
        ("sample", prediction(event_time=-1), b"k"),
        ("sample", prediction(event_time=2**62), b"k"),
        ("sample", prediction(model_version="v" * 50), b"k"),
        ("sample", prediction(), None),
        ("sample", prediction()[:-1], b"k"),
        ("outcomes", outcome(event_time=2**62), b"k"),
        ("outcomes", b"\xc3\x01 and nothing that is known", b"k"),
        ("shadow", comparison(candidate_numbers=[0.5]), b"k"),
        ("shadow", comparison(candidate_class="yes"), b"k"),
    ],
)
def test_a_hostile_record_is_told_by_name_and_its_neighbours_are_joined(topic, value, key):
    records = [
        read_of(0, prediction(source_offset=1), "sample"),
        read_of(1, value, topic, key),
        read_of(2, outcome(), "outcomes"),
    ]
    taken = outcome_stage().take(0, records, NOW_MS)
    assert [fact.topic for fact in taken.facts if isinstance(fact, Rejected)] == [topic]
    assert [fact.right for fact in taken.facts if isinstance(fact, JudgedRows)] == [1]


def test_a_comparison_that_failed_is_nothing_to_judge():
    failed = comparison(result="failed", reason="model_error", candidate_class=None, candidate_numbers=[])
    assert outcome_stage().take(0, [read_of(0, failed, "shadow")], NOW_MS).steps == []


def test_outcomes_of_keys_outside_the_sample_wait_for_nothing():
    stage = outcome_stage(sampled=lambda keys: np.array([], np.int64))
    taken = stage.take(0, [read_of(0, outcome(), "outcomes")], NOW_MS)
    assert (list(taken.steps), list(taken.facts), stage.waiting) == ([], [], 0)


def test_what_was_judged_is_sent_again_after_a_restart():
    stage = outcome_stage()
    taken = stage.take(0, [read_of(0, prediction(), "sample"), read_of(0, outcome(), "outcomes")], NOW_MS)
    tables = {step.table: [(0, key, value) for key, value in step.changes.items()] for step in taken.steps[:2]}
    (sent,) = outcome_stage().restore(tables)
    assert isinstance(sent, Send)
    assert sent.records == taken.steps[-1].records


def test_a_pair_that_is_older_than_all_windows_is_counted_as_such():
    stage = outcome_stage()
    old = NOW_MS - 5 * 3_600_000
    now = [read_of(0, prediction(), "sample"), read_of(0, outcome(), "outcomes")]
    stage.take(0, now, NOW_MS)
    long_ago = [
        read_of(1, prediction(source_offset=8, event_time=START_MS - 9), "sample", timestamp_ms=old),
        read_of(1, outcome(event_time=START_MS - 9), "outcomes", timestamp_ms=old),
    ]
    taken = stage.take(0, long_ago, NOW_MS)
    assert OutcomesTaken("churn", "too_old", 1) in taken.facts


def test_kept_values_that_cannot_be_read_are_dropped_and_the_others_are_there():
    stage, outcomes = window_stage(), outcome_stage()
    taken = stage.take(0, [read_of(0, framed(summary([0.2, 0.8])))], NOW_MS)
    kept = [(0, key, value) for key, value in taken.steps[0].changes.items()]
    bad = [(0, orjson.dumps([0, kind, "churn/2", 0, 0]), value)
           for kind in ("window", "part", "total") for value in (b"", b"[]", b"null", b'{"next":null}')]  # fmt: skip
    again = window_stage()
    again.restore({stage.name: [*bad, (0, b"not json", b"{}"), *kept]})
    assert [view for view in again.view(NOW_MS) if view.key == "churn/1"] == stage.view(NOW_MS)
    outcomes.restore({"waiting-churn": [(0, b"k", b"{}"), (0, b"l", b"[")], "judged-churn": [(0, b"k", b"{}")]})
    assert outcomes.waiting == 0
