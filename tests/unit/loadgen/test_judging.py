"""What the verifier reads and computes: junk, latency, scores, reports."""

import hashlib
import io
import json
from pathlib import Path

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from loadgen.decode import Decoder
from loadgen.errors import BadOption
from loadgen.features import model_inputs
from loadgen.input_log import Sampling
from loadgen.latency import summarize, timeline
from loadgen.model_store import ModelStore
from loadgen.prediction_log import PredictionLog, wanted_fields
from loadgen.producing import Produced
from loadgen.reading import Records
from loadgen.report import html_page, markdown, read_result
from loadgen.schema_source import SchemaOptions, SchemaSource
from loadgen.score_check import Sampled, check_scores
from loadgen.verdict import Accuracy, Verdict, result_page
from loadgen.violations import Place, Violation

SCHEMAS = Path(__file__).parents[3] / "schemas"
SOURCE = SchemaSource(SchemaOptions(SCHEMAS))
PREDICTION = SOURCE.directory.current("churn_prediction")
DIGIT_PREDICTION = SOURCE.directory.current("digit_prediction")

ANSWER = {
    "customer_id": "cust-00000001",
    "prediction": 1,
    "will_churn": True,
    "probability": 0.75,
    "confidence": 0.75,
    "model_name": "churn",
    "model_version": "1",
    "model_digest": "0123456789abcdef",
    "answered_by": "stable",
    "rollout_revision": 1,
    "source_topic": "in",
    "source_partition": 0,
    "source_offset": 5,
    "event_time": 1_760_000_000_000,
    "predicted_at": 1_760_000_000_005,
}


def encoded(schema=PREDICTION, **fields):
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema.parsed, {**ANSWER, **fields})
    return b"\xc3\x01" + schema.fingerprint + buffer.getvalue()


def decoder(pipeline="churn", id_field="customer_id"):
    return Decoder(SOURCE, wanted_fields(pipeline, id_field))


def records(values, keys=None):
    n = len(values)
    return Records(
        partition=np.zeros(n, dtype=np.int32),
        offset=np.arange(n),
        timestamp_ms=np.full(n, 1_760_000_000_010),
        received_ms=1_760_000_000_020.5,
        keys=keys or [b"cust-00000001"] * n,
        values=values,
        headers=[],
    )


def prediction_log(topic="out", **options):
    defaults = {"id_field": "customer_id", "hold": 10_000}
    return PredictionLog(topic, decoder(), {("in", 0): 0}, Sampling(1), **(defaults | options))


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=60), st.integers(0, 10**6)), max_size=40), st.data())
def test_junk_between_predictions_is_named_row_by_row_and_costs_no_prediction(items, data):
    header = encoded()[:10]
    values = []
    for item in items:
        if isinstance(item, int):
            values.append(encoded(source_offset=item))
        else:
            framed = item is not None and data.draw(st.booleans())
            values.append(header + item if framed else item)
    decoded = decoder().decode(values)
    good = [row for row, item in enumerate(items) if isinstance(item, int)]
    assert set(good) <= set(decoded.rows.tolist())
    assert sorted([*decoded.rows.tolist(), *(row for row, _ in decoded.unreadable)]) == list(range(len(items)))
    offsets = dict(zip(decoded.rows.tolist(), decoded.columns["source_offset"].to_pylist(), strict=True))
    assert all(offsets[row] == items[row] for row in good)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "no value"),
        (b"", "no value"),
        (b"\x00\x00\x00\x00\x01abc", "header"),
        (b"\xc3\x01" + b"unknown!" + b"x", "unknown schema"),
        (encoded()[:-1], "not a prediction"),
        (encoded() + b"\x00", "bytes after the datum"),
        (encoded().replace(b"cust-00000001", b"cust-\xff0000001"), "not a prediction"),
        (
            encoded(
                SOURCE.directory.current("churn_event"),
                age=1,
                income=1.0,
                tenure_months=1,
                monthly_charges=1.0,
                total_charges=None,
                plan="basic",
            ),
            "has no field",
        ),
    ],
)
def test_what_is_wrong_with_a_record_is_said(value, why):
    decoded = decoder().decode([encoded(), value, encoded()])
    ((row, said),) = decoded.unreadable
    assert row == 1
    assert why in said
    assert decoded.rows.tolist() == [0, 2]


def test_implausible_predictions_are_counted():
    log = prediction_log()
    log.add(
        records(
            [
                encoded(),
                encoded(probability=1.5, confidence=1.5),
                encoded(probability=float("nan"), confidence=0.5),
                encoded(confidence=0.25),
                encoded(prediction=4),
            ]
        )
    )
    assert len(log.outcomes()) == 5
    assert {violation.kind: violation.count for violation in log.violations()} == {"implausible_prediction": 4}


def test_digit_predictions_need_probabilities_that_fit():
    log = PredictionLog("out", decoder("digits", "digit_id"), {("in", 0): 0}, Sampling(1), id_field="digit_id", hold=1)
    sound = [0.05] * 8 + [0.5, 0.1]
    answers = [
        {"probabilities": sound, "prediction": 8, "confidence": 0.5},
        {"probabilities": sound, "prediction": 9, "confidence": 0.5},
        {"probabilities": [], "prediction": 0, "confidence": 0.5},
        {"probabilities": [1.5, -0.5], "prediction": 0, "confidence": 1.5},
        {"probabilities": [0.5] * 10, "prediction": 3, "confidence": 0.5},
        {"probabilities": sound, "prediction": -1, "confidence": 0.5},
    ]
    log.add(records([encoded(DIGIT_PREDICTION, digit_id="digit-1-1", **answer) for answer in answers]))
    (violation,) = log.violations()
    assert (violation.kind, violation.count) == ("implausible_prediction", 5)


@settings(deadline=None)
@given(st.lists(st.floats(-5, 1e6), min_size=1, max_size=300))
def test_percentiles_are_those_of_the_sorted_values_to_three_digits(values):
    summary = summarize(np.array(values), "appended")
    clamped = np.sort(np.maximum(values, 0))
    assert summary.count == len(values)
    assert summary.negative == sum(value < 0 for value in values)
    assert summary.max == pytest.approx(clamped[-1], abs=1e-3)
    for percentile, said in ((50, summary.p50), (90, summary.p90), (99, summary.p99), (99.9, summary.p99_9)):
        rank = max(int(percentile / 100 * len(clamped) + 0.5), 1)  # as HDR histograms count
        assert said == pytest.approx(clamped[rank - 1], rel=3e-3, abs=2e-3)
    assert list(summary.curve) == sorted(summary.curve)


def test_the_timeline_shows_each_second():
    available = np.repeat(np.arange(10) * 1000.0, 100)
    points = timeline(available, np.full(1000, 7.0))
    assert [point.at_s for point in points] == list(range(10))
    assert {point.predictions_per_s for point in points} == {100.0}
    assert {(point.p50, point.p99, point.max) for point in points} == {(7.0, 7.0, 7.0)}
    assert timeline(np.array([]), np.array([])) == []
    assert summarize(np.array([]), "appended") is None


FEATURES = [
    {"field": "x", "kind": "number", "missing": {"impute": 2.0}},
    {"field": "plan", "kind": "one_hot", "categories": ["a", "b"]},
]
MANIFEST = {
    "inputs": [{"name": "X", "dtype": "float32", "features": FEATURES}],
    "outputs": [{"name": "p", "kind": "probabilities", "classes": [0, 1], "threshold": 0.5}],
}


@pytest.fixture
def store(tmp_path):
    """Model m version 1: p = softmax of (0, x) for x, whatever the plan."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "W"], ["z"]), helper.make_node("Softmax", ["z"], ["p"], axis=1)],
        "m",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor("W", TensorProto.FLOAT, [3, 2], [0, 1, 0, 0, 0, 0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    return tmp_path


def sample(store, x, **fields):
    onnx_bytes = (store / "m/1/model.onnx").read_bytes()
    churn = float(1 / (1 + np.exp(-(2.0 if x is None else x))))
    sound = {
        "place": Place("out", 0, 0),
        "event": {"x": x, "plan": "a", "event_time": 9},
        "event_time_ms": 9,
        "prediction": int(churn >= 0.5),
        "probabilities": [churn],
        "model": "m",
        "version": "1",
        "digest": hashlib.sha256(onnx_bytes).hexdigest()[:16],
    }
    return Sampled(**(sound | fields))


def test_scores_that_the_model_gives_pass(store):
    rows = [sample(store, x) for x in (-3.0, 0.0, 0.5, None)]
    check, violations = check_scores(rows, ModelStore.at(f"file://{store}"), 1e-5)
    assert violations == []
    assert check.checked == 4
    assert check.worst < 1e-6


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"probabilities": [0.1]}, "wrong_score"),
        ({"probabilities": [float("nan")]}, "wrong_score"),
        ({"probabilities": [0.1, 0.2, 0.7]}, "wrong_score"),
        ({"prediction": 0}, "wrong_score"),
        ({"digest": "0" * 16}, "wrong_digest"),
        ({"version": "2"}, "model_not_found"),
        ({"version": "../1"}, "model_not_found"),
        ({"model": "."}, "model_not_found"),
        ({"event_time_ms": 8}, "event_time_changed"),
    ],
)
def test_any_other_answer_is_named(store, fields, kind):
    _, violations = check_scores([sample(store, 1.0, **fields)], ModelStore.at(str(store)), 1e-5)
    assert [violation.kind for violation in violations] == [kind]


def test_features_are_built_in_manifest_order():
    manifest = {
        "inputs": [
            {
                "name": "A",
                "dtype": "float64",
                "features": [
                    *FEATURES,
                    {"field": "plan", "kind": "ordinal", "categories": ["b", "a"]},
                    {"field": "t", "kind": "tensor", "length": 2},
                ],
            },
            {"name": "B", "features": [{"field": "t", "kind": "tensor", "length": 2}], "shape": [2, 1]},
        ]
    }
    made = model_inputs(manifest, [{"x": None, "plan": "a", "t": [5.0, 6.0]}])
    assert made["A"].tolist() == [[2.0, 1.0, 0.0, 1.0, 5.0, 6.0]]
    assert made["B"].shape == (1, 2, 1)
    with pytest.raises(BadOption, match="telepathy"):
        model_inputs({"inputs": [{"name": "A", "features": [{"field": "x", "kind": "telepathy"}]}]}, [{}])


def test_a_store_must_be_a_directory(tmp_path):
    for location in (str(tmp_path / "none"), "s3://bucket/models"):
        with pytest.raises(BadOption):
            ModelStore.at(location)


def result(violations=()):
    latency = np.linspace(1, 50, 500)
    verdict = Verdict(
        pipeline="churn",
        delivery="exactly_once",
        inputs=500,
        tombstones=0,
        poison={"truncated": 1},
        predictions=499,
        dead_letters={"truncated": 1},
        before_window=0,
        violations=tuple(violations),
        answers=(),
        latency=summarize(latency, "received"),
        timeline=tuple(timeline(np.arange(500) * 10.0, latency)),
        predictions_per_s=100.0,
        accuracy=Accuracy(known=499, correct=400),
        score=None,
        timed_out=False,
        seconds=1.0,
    )
    produced = Produced("churn.events", 500, 0.0, 5.0, 0.1, 1000, {"truncated": 1})
    return result_page(command="run", started_at="2026-01-01T00:00:00+00:00", produced=produced, verdict=verdict)


def test_a_result_survives_its_file_and_renders_with_plots(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result()))
    page = read_result(path)
    assert page == json.loads(json.dumps(result()))
    assert html_page(page).count("data:image/png;base64,") == 3
    assert "passed" in html_page(page)
    assert "| p99.9 |" in markdown(page)


def test_what_records_said_is_escaped_in_the_page():
    evil = Violation("phantom", 1, (Place("<script>alert(1)</script>", 0, 0, "a|b"),))
    text = html_page(json.loads(json.dumps(result([evil]))))
    assert "<script>" not in text
    assert "FAILED: 1 phantom" in text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2, "verified": null}'])
def test_a_file_that_is_no_result_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(BadOption):
        read_result(path)


def test_a_sample_is_known_from_the_place_alone():
    sampling = Sampling.of(10_000, 100)
    offsets = np.arange(10_000)
    picked = sampling.picks(np.zeros(10_000, dtype=np.int32), offsets)
    assert picked.sum() == 100
    assert Sampling.of(50, 100) == Sampling.of(10**6, 0) == Sampling(1)


def test_the_generator_knows_nothing_of_the_worker():
    sources = Path(__file__).parents[3].joinpath("loadgen").rglob("*.py")
    text = "".join(source.read_text() for source in sources)
    assert "from app" not in text
    assert "import app" not in text
