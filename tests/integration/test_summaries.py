"""What summaries add up to is what was committed, computed again from the topics with NumPy and nothing of the app."""

import json
import uuid
from collections import defaultdict
from io import BytesIO

import fastavro
import numpy as np
import pytest
from rig import SCHEMAS, answers, read_all
from worker_process import refused_start, running_worker
from xxhash import xxh3_64_intdigest

from loadgen.wire import CONFLUENT, SINGLE_OBJECT

EVENTS, POISON = 12_000, 60
BUCKET_MS = 2_000
SUMS_AGREE = 1e-9  # relative: sums are of the same doubles in another order
# Calls of the client whose result is an error, or that end the worker, at moments that come in every run.
ABORTED = "before_commit_transaction@3=raise:UNKNOWN_MEMBER_ID:txn_requires_abort"
UNHEARD = "after_commit_transaction@6=raise:_TIMED_OUT"
UNKNOWN = "before_commit_transaction@9=raise:_TIMED_OUT"
KILLED_HAVING_SENT = "before_send_offsets_to_transaction@12=kill"


def watched(lane, topics, **more):
    """(settings, summary topic, sample topic) of a worker that is watched."""
    summaries, sample = topics("churn.summaries", 2), topics("churn.sample", 3)
    monitoring = {"summary_topic": summaries, "sample_topic": sample, "bucket_s": BUCKET_MS // 1000, **more}
    return lane.settings(pipeline={"monitoring": monitoring, "batch": {"max_records": 64}}), summaries, sample


def summaries_in(kafka, topic, header_size=SINGLE_OBJECT.header_size):
    """Every committed summary."""
    schema = fastavro.parse_schema(json.loads((SCHEMAS / "model_summary.avsc").read_text()))
    found = []
    for message in read_all(kafka, topic):
        summary = fastavro.schemaless_reader(BytesIO(message.value()[header_size:]), schema, None)
        assert message.key().decode() == f"churn/{summary['version']}"
        found.append(summary)
    return found


def milliseconds(time):
    return round(time.timestamp() * 1000)


def added_up(summaries, *path):
    """The sum of one field, a number or an array, over summaries."""
    values = []
    for summary in summaries:
        value = summary
        for step in path:
            value = value[step]
        values.append(value)
    return np.sum(values, axis=0)


def histogram(values, edges):
    """As numpy has it, with what is below and above."""
    values = np.asarray(values)
    inside = np.histogram(values, edges)[0]
    return [int((values < edges[0]).sum()), *inside.tolist(), int((values > edges[-1]).sum())]


def events_of(lane):
    """(partition, offset) → (event, the record's time) of everything in the input topic that is one."""
    schema = fastavro.schema.load_schema(SCHEMAS / "churn_event.avsc")
    found = {}
    for message in read_all(lane.kafka, lane.inputs[0]):
        try:
            datum = BytesIO(message.value()[SINGLE_OBJECT.header_size :])
            event = fastavro.schemaless_reader(datum, schema, None)
        except Exception:  # noqa: BLE001 - poison
            continue
        found[message.partition(), message.offset()] = event, message.timestamp()[1]
    return found


def assert_they_add_up(summaries, predictions):
    """Each bucket of each version has what its predictions have."""
    buckets = defaultdict(list)
    for prediction in predictions:
        at_ms = milliseconds(prediction["predicted_at"])
        buckets[prediction["model_version"], at_ms - at_ms % BUCKET_MS].append(prediction)
    told = defaultdict(list)
    for summary in summaries:
        told[summary["version"], milliseconds(summary["window_start"])].append(summary)
        assert summary["model"] == summary["pipeline"] == "churn"
    assert {bucket: int(added_up(of_it, "records")) for bucket, of_it in told.items()} == {
        bucket: len(of_it) for bucket, of_it in buckets.items()
    }
    for bucket, of_it in told.items():
        its = buckets[bucket]
        probability = np.array([prediction["probability"] for prediction in its])
        confidence = np.array([prediction["confidence"] for prediction in its])
        assert {prediction["model_digest"] for prediction in its} == {summary["digest"] for summary in of_it}
        classes = added_up(of_it, "classes", 0, "count"), added_up(of_it, "classes", 1, "count")
        assert classes == tuple(sum(prediction["prediction"] == label for prediction in its) for label in (0, 1))
        for name, values in (("score", probability), ("confidence", confidence)):
            assert added_up(of_it, name, "counts").tolist() == histogram(values, of_it[0][name]["edges"])
            assert added_up(of_it, f"{name}_sum") == pytest.approx(values.sum(), rel=SUMS_AGREE)
        assert added_up(of_it, "score_sum_squares") == pytest.approx((probability**2).sum(), rel=SUMS_AGREE)
        assert added_up(of_it, "low_confidence") == (confidence < 0.6).sum()
        times = [milliseconds(prediction["predicted_at"]) for prediction in its]
        assert min(milliseconds(summary["from_ms"]) for summary in of_it) == min(times)
        assert max(milliseconds(summary["to_ms"]) for summary in of_it) == max(times)


def assert_features_add_up(lane, summaries, predictions):
    """The features and latencies of all summaries are those of the events that were predicted."""
    events = events_of(lane)
    reference = json.loads((lane.store / "churn" / "1" / "manifest.json").read_text())["reference"]
    predicted = [events[p["source_partition"], p["source_offset"]] for p in predictions]
    late_s = [
        max(milliseconds(prediction["predicted_at"]) - at_ms, 0) / 1000
        for prediction, (_, at_ms) in zip(predictions, predicted, strict=True)
    ]
    assert added_up(summaries, "latency", "counts").tolist() == histogram(late_s, summaries[0]["latency"]["edges"])
    names = [feature["name"] for feature in summaries[0]["features"]]
    assert sorted(names) == sorted(reference)
    for at, name in enumerate(names):
        values = [event[name] for event, _ in predicted if event[name] is not None]
        counts = added_up(summaries, "features", at, "counts").tolist()
        assert added_up(summaries, "features", at, "count") >= len(predictions)
        assert added_up(summaries, "features", at, "unknown") == 0
        if reference[name]["kind"] == "category":
            manifest_order = ("basic", "standard", "premium")
            assert counts == [values.count(category) for category in manifest_order]
            continue
        narrow = np.array(values, np.float32)  # what the model was given
        edges = np.array(reference[name]["bins"], np.float32)
        assert counts == histogram(narrow, edges)
        exact = narrow.astype(np.float64)
        assert added_up(summaries, "features", at, "sum") == pytest.approx(exact.sum(), rel=SUMS_AGREE)
        assert added_up(summaries, "features", at, "sum_squares") == pytest.approx((exact**2).sum(), rel=SUMS_AGREE)
        assert min(summary["features"][at]["min"] for summary in summaries) == exact.min()
        assert max(summary["features"][at]["max"] for summary in summaries) == exact.max()
        missing = sum(event[name] is None for event, _ in events.values())
        assert 0 <= missing - added_up(summaries, "features", at, "missing") <= POISON


def in_sample(key, share):
    return xxh3_64_intdigest(key, xxh3_64_intdigest(b"inference.sample")) < int(share * 2**64)


def test_through_aborts_lost_answers_and_kill_9_summaries_are_exactly_what_was_committed(lane, topics, tmp_path):
    busy = lane()
    settings, summary_topic, sample_topic = watched(busy, topics, sample_share=0.25)
    settings["kafka"]["session_timeout_s"] = 3
    busy.produce(EVENTS, poison=POISON / EVENTS)

    failing = " ".join([ABORTED, UNHEARD, UNKNOWN, KILLED_HAVING_SENT])
    settings["delivery"] = {"commit_interval_s": 0}  # a transaction for each few batches
    with running_worker(settings, tmp_path, module="tests.chaos.failing_worker", FAILPOINTS=failing) as worker:
        worker.wait()
        assert len(worker.said("failpoint")) == 4
    with running_worker(settings, tmp_path) as worker:
        verdict = busy.verified()
        assert worker.stop() == 0

    committed = answers(busy)
    predictions = [prediction for _, prediction in committed]
    assert verdict.predictions == len(predictions) == EVENTS - POISON
    summaries = summaries_in(busy.kafka, summary_topic)
    assert_they_add_up(summaries, predictions)
    assert_features_add_up(busy, summaries, predictions)

    sampled = sorted((message.key(), message.value()) for message in read_all(busy.kafka, sample_topic))
    chosen = sorted((message.key(), message.value()) for message, _ in committed if in_sample(message.key(), 0.25))
    assert sampled == chosen
    assert 0.2 < len(sampled) / len(committed) < 0.3


def test_at_least_once_and_with_a_registry_a_kind_end_leaves_nothing_untold(lane, topics, schema_registry, tmp_path):
    plain = lane(registry_url=schema_registry)
    settings, summary_topic, sample_topic = watched(plain, topics, interval_s=0.2)
    settings["delivery"], settings["schemas"] = {"mode": "at_least_once"}, settings["schemas"] | {"auto_register": True}
    plain.produce(2_000)
    with running_worker(settings, tmp_path) as worker:
        plain.verified(at_least_once=True)
        assert worker.stop() == 0

    schema = fastavro.schema.load_schema(SCHEMAS / "churn_prediction.avsc")
    committed = read_all(plain.kafka, plain.output)
    data = [BytesIO(message.value()[CONFLUENT.header_size :]) for message in committed]
    predictions = [fastavro.schemaless_reader(datum, schema, None) for datum in data]
    summaries = summaries_in(plain.kafka, summary_topic, CONFLUENT.header_size)
    assert_they_add_up(summaries, predictions)
    assert sorted(message.value() for message in read_all(plain.kafka, sample_topic)) == sorted(
        message.value() for message in committed
    )


def test_a_topic_that_is_not_there_is_named_at_the_start(lane, tmp_path):
    nowhere, neither = f"sums.{uuid.uuid4().hex}", f"sample.{uuid.uuid4().hex}"
    monitoring = {"summary_topic": nowhere, "sample_topic": neither}
    said, _ = refused_start(lane().settings(pipeline={"monitoring": monitoring}), tmp_path)
    assert f"topic {nowhere} does not exist" in said
    assert f"topic {neither} does not exist" in said
