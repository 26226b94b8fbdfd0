"""The candidate scores what stable has answered: each row is compared or failed, and each has its comparison."""

import json
import socket
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fakes import NOW_MS, ManualClock
from small_pipeline import COLUMNS, SICK, model_of, tenths

from app.avro.datum_reader import datum_reader
from app.avro.datum_writer import DatumWriter
from app.avro.framing import ConfluentFraming
from app.avro.schemas import parse
from app.errors import ModelFailed, ModelInvalid, SchemaIncompatible
from app.records import TopicPartition
from app.specs import InputSpec, NumberFeature
from app.worker.shadow_line import Frames, Kind, LineBroken, ShadowRows, compared_of, frame, refused_of, rows_bytes
from app.worker.shadow_scoring import ShadowScorer, check_writer, serve
from app.worker.side_by_side import Answer

SCHEMA = parse((Path(__file__).parents[3] / "schemas" / "shadow_comparison.avsc").read_text(encoding="utf-8"))
HEADER = ConfluentFraming.header(3)
WRITER = DatumWriter(ConfluentFraming(), HEADER, SCHEMA)


def rows_of_numbers(numbers, stable=None):
    """Events with these numbers; stable says x / 10, or these shares."""
    count = len(numbers)
    shares = np.array(numbers if stable is None else stable, np.float64) / (10 if stable is None else 1)
    events = pa.record_batch([pa.array(["e"] * count), pa.array(numbers, pa.float64())], schema=COLUMNS)
    answer = Answer(np.stack([1 - shares, shares], axis=1), ("0", "1"), (shares >= 0.5).astype(np.int64))
    keys = pa.array([None if i == 1 else str(i).encode() for i in range(count)], pa.binary())
    sources = (TopicPartition("events", 3), TopicPartition("more", 0))
    return ShadowRows(
        events, keys, sources, np.arange(count) % 2, np.arange(count) + 10, np.full(count, NOW_MS - 5), answer, "1", 6
    )


class World:
    def __init__(self, answer=tenths, inputs=None, lost=0, **rest):
        self.published, self.lost = [], lost
        self.model = model_of("2", answer) if inputs is None else model_of("2", answer, inputs)
        self.scorer = ShadowScorer(self.model, COLUMNS, WRITER, self.publish, ManualClock(), **rest)

    def publish(self, values, keys):
        self.published += zip(keys, values, strict=True)
        return self.lost

    def told(self):
        decoded = datum_reader(ConfluentFraming(), HEADER, SCHEMA, SCHEMA).read([value for _, value in self.published])
        assert not decoded.failed
        return decoded.table.to_pylist()


def test_each_row_has_a_comparison_with_its_key_place_and_both_answers():
    world = World(lambda tensors: {"P": tenths(tensors)["P"][:, ::-1]})
    compared = world.scorer.score(rows_of_numbers([2.0, 5.0, 9.5]))
    assert (compared.agreed, compared.disagreed, compared.failed) == (1, 2, 0)
    assert compared.differences.tolist() == pytest.approx([0.6, 0.0, 0.9], abs=1e-6)
    assert [key for key, _ in world.published] == [b"0", None, b"2"]
    told = world.told()
    assert [row["result"] for row in told] == ["disagreed", "agreed", "disagreed"]
    first = told[0]
    assert first["reason"] is None
    assert (first["stable_class"], first["candidate_class"]) == ("0", "1")
    assert first["stable_numbers"] == pytest.approx([0.8, 0.2])
    assert first["candidate_numbers"] == pytest.approx([0.2, 0.8])
    assert first["mean_difference"] == first["max_difference"] == pytest.approx(0.6)
    assert (first["model_name"], first["stable_version"], first["candidate_version"]) == ("churn", "1", "2")
    assert (first["candidate_digest"], first["rollout_revision"]) == (f"{2:016x}", 6)
    assert [(row["source_topic"], row["source_partition"], row["source_offset"]) for row in told] == [
        ("events", 3, 10), ("more", 0, 11), ("events", 3, 12),
    ]  # fmt: skip
    assert first["event_time"].timestamp() * 1000 == NOW_MS - 5
    assert first["compared_at"].timestamp() * 1000 == NOW_MS


def fail(_tensors):
    raise ModelFailed("broken")


def nothing_but_nan(tensors):
    return {"P": np.full((len(tensors["X"]), 2), np.nan, np.float32)}


@pytest.mark.parametrize(("answer", "reason"), [(fail, "model_error"), (nothing_but_nan, "bad_output")])
@pytest.mark.parametrize("at_fault", [False, True])
def test_a_candidate_that_fails_or_answers_nonsense_fails_its_rows_and_no_more(answer, reason, at_fault):
    world = World(answer)
    world.model.at_fault = at_fault
    compared = world.scorer.score(rows_of_numbers([1.0, 2.0]))
    assert (compared.agreed, compared.disagreed, compared.failed) == (0, 0, 2)
    assert not len(compared.differences)
    for row in world.told():
        assert row["result"] == "failed"
        assert row["reason"] == ("model_error" if at_fault else reason)
        assert row["candidate_class"] is None
        assert row["candidate_numbers"] == []
        assert row["max_difference"] is None
        assert row["stable_class"] == "0"


def test_a_row_that_fails_leaves_its_neighbours_compared():
    world = World()
    compared = world.scorer.score(rows_of_numbers([1.0, SICK, 2.0, 7.0]))
    assert (compared.agreed, compared.failed) == (3, 1)
    assert [row["result"] for row in world.told()] == ["agreed", "failed", "agreed", "agreed"]


def test_a_candidate_makes_its_own_features_and_refuses_by_its_own_bounds():
    narrow = (InputSpec(name="X", features=(NumberFeature(field="x", min=0, max=5),)),)
    world = World(inputs=narrow)
    compared = world.scorer.score(rows_of_numbers([1.0, 6.0]))
    assert (compared.agreed, compared.failed) == (1, 1)
    assert world.told()[1]["reason"] == "out_of_range"


def waits(*seconds):
    """What the process had waited for a processor, each time it is asked."""
    left = iter(seconds)
    return lambda: next(left)


def slowly(tensors):
    until = time.perf_counter() + 0.02
    while time.perf_counter() < until:
        pass
    return tenths(tensors)


@pytest.mark.parametrize("threads", [1, 4])
def test_its_time_in_the_model_is_what_the_worker_would_take_at_least(threads):
    world = World(slowly, waited_s=waits(1.0, 1.005), threads=threads)
    compared = world.scorer.score(rows_of_numbers([1.0, 2.0]))
    assert 0.015 <= compared.model_seconds * threads <= compared.seconds - 0.005


def test_a_candidate_at_fault_took_its_time_and_one_that_was_not_asked_none():
    broken = World(fail, waited_s=waits(0.0, 0.0))
    broken.model.at_fault = True
    assert broken.scorer.score(rows_of_numbers([1.0])).model_seconds > 0
    narrow = (InputSpec(name="X", features=(NumberFeature(field="x", min=0, max=5),)),)
    assert World(inputs=narrow).scorer.score(rows_of_numbers([6.0])).model_seconds == 0


def test_more_waiting_than_time_is_no_time():
    compared = World(waited_s=waits(0.0, 60.0)).scorer.score(rows_of_numbers([1.0]))
    assert compared.model_seconds == 0


def test_rows_that_it_can_all_not_be_asked_about_are_failed():
    narrow = (InputSpec(name="X", features=(NumberFeature(field="x", min=0, max=5),)),)
    compared = World(inputs=narrow).scorer.score(rows_of_numbers([6.0, 7.0]))
    assert compared.failed == 2


def test_a_candidate_that_needs_what_events_lack_is_refused_by_name():
    shoes = (InputSpec(name="X", features=(NumberFeature(field="shoe_size"),)),)
    with pytest.raises(SchemaIncompatible, match="shoe_size"):
        World(inputs=shoes)


def test_another_comparison_schema_is_refused_by_name():
    check_writer(WRITER)
    fields = [*SCHEMA.fields, {"name": "mood", "type": "string"}]
    other = parse(json.dumps({"type": "record", "name": "ShadowComparison", "fields": fields}))
    with pytest.raises(SchemaIncompatible, match="mood"):
        check_writer(DatumWriter(ConfluentFraming(), HEADER, other))


def served(scorer, *frames):
    """(kind, content) of everything said on the line, and what was raised."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for one in frames:
            ours.sendall(one)
        ours.shutdown(socket.SHUT_WR)
        raised = None
        try:
            serve(theirs, scorer, 1 << 20)
        except (ModelInvalid, LookupError, LineBroken) as exc:
            raised = exc
        theirs.shutdown(socket.SHUT_WR)
        said = b""
        while came := ours.recv(1 << 20):
            said += came
    return list(Frames(1 << 20).feed(said)), raised


def test_the_line_brings_rows_and_takes_reports_until_it_ends():
    world = World(lost=2)
    rows = frame(Kind.ROWS, rows_bytes(rows_of_numbers([1.0, 2.0])))
    said, raised = served(lambda: world.scorer, rows, rows)
    assert raised is None
    assert [kind for kind, _ in said] == [Kind.READY, Kind.COMPARED, Kind.COMPARED]
    report = compared_of(said[1][1], 2)
    assert (report.agreed, report.unpublished) == (2, 2)
    assert report.seconds > 0


def refuse():
    raise ModelInvalid("its digest differs")


def explode():
    raise LookupError("nobody foresaw this")


@pytest.mark.parametrize(
    ("scorer", "error", "words"),
    [(refuse, "ModelInvalid", "its digest differs"), (explode, "ShadowFailed", "LookupError: nobody foresaw this")],
)
def test_what_keeps_it_from_its_work_is_told_by_name(scorer, error, words):
    ((kind, content),), raised = served(scorer)
    assert kind is Kind.REFUSED
    assert (refused_of(content).error, refused_of(content).message) == (error, words)
    assert raised is not None


def test_rows_that_are_none_are_told_by_name():
    said, raised = served(lambda: World().scorer, frame(Kind.ROWS, b"nonsense"))
    assert [kind for kind, _ in said] == [Kind.READY, Kind.REFUSED]
    assert refused_of(said[1][1]).error == "ShadowFailed"
    assert raised is not None
