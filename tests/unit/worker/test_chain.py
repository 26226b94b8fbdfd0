"""Every record of a batch is predicted, dead-lettered or skipped: exactly one of them, with its own key and place."""

import pytest
from fakes import NOW_MS, FakeRecord
from hypothesis import given
from hypothesis import strategies as st
from small_pipeline import (
    BYTES_HEADER,
    EVENT_HEADER,
    SICK,
    SmallPipeline,
    body,
    model_of,
    read,
    tenths,
)

from app.avro.framing import ConfluentFraming
from app.errors import ModelFailed, Reason, SchemasPending, Stage
from app.worker.chain import ChainPolicy


def rig_of(answer=tenths, policy=None):
    return SmallPipeline(model_of("4", answer), policy=policy)


def record_of(kind, offset, topic="events", partition=0):
    """One record of a named kind; its key is its offset."""
    name = f"e{offset % 10}"
    value = {
        "good": EVENT_HEADER + body(name, 7.0),
        "other_schema": BYTES_HEADER + b"\x02z" + body(name, 7.0),
        "tombstone": None,
        "empty": b"",
        "bad_frame": b"\x07" + bytes(10),
        "unknown_schema": ConfluentFraming.header(77) + body(name, 7.0),
        "truncated": EVENT_HEADER + body(name, 7.0)[:-1],
        "trailing": EVENT_HEADER + body(name, 7.0) + b"!",
        "out_of_range": EVENT_HEADER + body(name, 11.0),
        "not_finite": EVENT_HEADER + body(name, float("nan")),
        "missing": EVENT_HEADER + body(name, None),
        "sick": EVENT_HEADER + body(name, SICK),
    }[kind]
    return FakeRecord(value, offset=offset, key=str(offset).encode(), topic=topic, partition=partition)


REJECTED = {
    "empty": (Stage.DECODE, Reason.BAD_FRAME),
    "bad_frame": (Stage.DECODE, Reason.BAD_FRAME),
    "unknown_schema": (Stage.DECODE, Reason.UNKNOWN_SCHEMA),
    "truncated": (Stage.DECODE, Reason.TRUNCATED),
    "trailing": (Stage.DECODE, Reason.TRAILING_BYTES),
    "out_of_range": (Stage.FEATURES, Reason.OUT_OF_RANGE),
    "not_finite": (Stage.FEATURES, Reason.NOT_FINITE),
    "missing": (Stage.FEATURES, Reason.MISSING_VALUE),
    "sick": (Stage.OUTPUT, Reason.BAD_OUTPUT),
}
PREDICTED = ("good", "other_schema")
KINDS = st.sampled_from([*PREDICTED, "tombstone", *REJECTED])


def check(kinds, scored, records):
    """One outcome per record, in order, each with its own key, place and reason."""
    predicted = [record for kind, record in zip(kinds, records, strict=True) if kind in PREDICTED]
    rejected = [(REJECTED[kind], record) for kind, record in zip(kinds, records, strict=True) if kind in REJECTED]
    assert scored.predictions.keys == [record.key() for record in predicted]
    assert scored.predictions.partitions.tolist() == [record.partition() for record in predicted]
    assert read(scored.predictions.values) == [
        {
            "id": f"e{record.offset() % 10}", "label": 1, "p": pytest.approx(0.7), "model_version": "4",
            "answered_by": "stable", "rollout_revision": 1, "source_topic": record.topic(),
            "source_partition": record.partition(), "source_offset": record.offset(), "predicted_at": NOW_MS,
        }
        for record in predicted
    ]  # fmt: skip
    assert [(letter.stage, letter.reason) for letter in scored.dead_letters] == [why for why, _ in rejected]
    assert [(letter.key, letter.value) for letter in scored.dead_letters] == [
        (record.key(), record.value()) for _, record in rejected
    ]
    (outcomes,) = scored.outcomes
    assert (outcomes.predicted, outcomes.dead_lettered) == (len(predicted), len(rejected))
    assert outcomes.skipped == kinds.count("tombstone")
    assert outcomes.records == len(kinds) == len(outcomes.timestamps_ms)
    assert sum(outcomes.results.values()) == len(predicted)
    assert len(outcomes.confidence if outcomes.confidence is not None else []) == len(predicted)
    assert (outcomes.model, outcomes.version) == ("churn", "4")


@given(
    st.lists(st.tuples(KINDS, st.sampled_from([("events", 0), ("events", 3), ("more", 0)])), min_size=1, max_size=40)
)
def test_every_record_has_exactly_one_outcome(rows):
    rig = rig_of()
    for first in (0, 1000):  # the second batch finds the schemas known
        records = [record_of(kind, first + i, *source) for i, (kind, source) in enumerate(rows)]
        scored = rig.score(records)
        check([kind for kind, _ in rows], scored, records)


def test_a_row_rejected_at_each_stage_leaves_its_neighbours_predicted():
    kinds = ["good", "truncated", "good", "out_of_range", "good", "sick", "good", "tombstone", "good"]
    records = [record_of(kind, i) for i, kind in enumerate(kinds)]
    rig = rig_of()
    scored = rig.score(records)
    check(kinds, scored, records)
    assert rig.model.seen[0]["X"].shape == (6, 1)
    headers = dict(scored.dead_letters[1].headers)
    assert headers["__connect.errors.exception.message"] == b"x is 11, allowed 0 to 10"
    assert (headers["inference.model"], headers["inference.model_version"]) == (b"churn", b"4")


@pytest.mark.parametrize("kind", ["good", "tombstone", *REJECTED])
@pytest.mark.parametrize("count", [1, 5])
def test_a_batch_of_one_kind_has_one_kind_of_outcome(kind, count):
    records = [record_of(kind, i) for i in range(count)]
    check([kind] * count, rig_of().score(records), records)


def test_the_model_is_not_asked_about_nothing():
    rig = rig_of()
    rig.score([record_of("tombstone", 0), record_of("missing", 1)])
    assert rig.model.seen == []


def test_the_batch_says_what_made_it_due_and_how_long_it_took():
    scored = rig_of().score([record_of("good", 0)] * 3).scored
    assert (scored.rows, scored.cause, scored.waited_s) == (3, "age", 0.25)
    (asked,) = scored.asked
    assert (asked.model, asked.version, asked.failed) == ("churn", "4", False)
    assert 0 <= asked.seconds <= scored.scored_s


def test_a_registry_that_is_down_leaves_the_batch_to_be_scored_again():
    rig = rig_of()
    rig.schemas.down = True
    records = [record_of("good", 0), record_of("bad_frame", 1)]
    with pytest.raises(SchemasPending):
        rig.score(records)
    rig.schemas.down = False
    check(["good", "bad_frame"], rig.score(records), records)


def fail(_tensors):
    raise ModelFailed("broken")


def test_a_model_at_fault_dead_letters_nothing():
    rig = rig_of(answer=fail)
    rig.model.at_fault = True
    for _ in range(3):
        with pytest.raises(ModelFailed, match="at fault"):
            rig.score([record_of("good", 0), record_of("bad_frame", 1)])


def test_rows_that_the_model_fails_on_are_dead_lettered_alone():
    def allergic(tensors):
        if (tensors["X"] == 3.0).any():
            raise ModelFailed("cannot do 3")
        return tenths(tensors)

    rig = rig_of(answer=allergic)
    records = [
        record_of("good", 0),
        FakeRecord(EVENT_HEADER + body("x", 3.0), offset=1, key=b"1"),
        record_of("good", 2),
    ]
    scored = rig.score(records)
    assert scored.predictions.keys == [b"0", b"2"]
    (letter,) = scored.dead_letters
    assert (letter.key, letter.stage, letter.reason) == (b"1", Stage.MODEL, Reason.MODEL_ERROR)
    assert dict(letter.headers)["__connect.errors.exception.message"] == b"cannot do 3"


def test_a_prediction_too_large_for_its_topic_is_dead_lettered_and_its_neighbours_are_not():
    rig = rig_of(policy=ChainPolicy(max_output_bytes=100))
    records = [record_of("good", 0), record_of("good", 1), record_of("sick", 2)]
    records[1] = FakeRecord(records[1].value(), offset=1, key=b"k" * 90)
    scored = rig.score(records)
    assert scored.predictions.keys == [b"0"]
    assert [(letter.stage, letter.reason) for letter in scored.dead_letters] == [
        (Stage.OUTPUT, Reason.OVERSIZED),
        (Stage.OUTPUT, Reason.BAD_OUTPUT),
    ]
    (outcomes,) = scored.outcomes
    assert outcomes.predicted == sum(outcomes.results.values()) == 1
