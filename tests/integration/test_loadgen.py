"""The load generator against a real broker, judging a worker that is honest until a test makes it lie."""

import hashlib
import io
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import fastavro
import numpy as np
import onnx
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from onnx import TensorProto, helper

from loadgen.errors import BadOption, BrokerFailed
from loadgen.kafka_client import KafkaOptions
from loadgen.pacing import Pace
from loadgen.poison import POISON_HEADER, REASONS, PoisonShare
from loadgen.produce_plan import ProducePlan
from loadgen.producing import Extent
from loadgen.sampled_events import read_event
from loadgen.schema_source import SchemaOptions, SchemaSource
from loadgen.verify_plan import VerifyPlan
from loadgen.verifying import verify

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
WAIT_S = 60
PARTITION_EOF = -191

NUMBERS = ("age", "income", "tenure_months", "monthly_charges", "total_charges")
PLANS = ("basic", "standard", "premium")
IMPUTE = 1397.5
# The true log-odds without its interaction, unfolded to raw features: accurate, and easy to score by hand.
WEIGHTS = np.array([-0.4 / 21, -0.3 / 20000, -2.0 / 21, 1.6 / 25, 0.0, 0.0, -0.3, -0.6], dtype=np.float32)
BIAS = np.float32(-1.2 + 0.4 * 54 / 21 + 0.3 * 45000 / 20000 + 2.0 * 36 / 21 - 1.6 * 60 / 25)


def loadgen(*arguments):
    """Run the command line; returns (exit status, its JSON or None, standard error)."""
    done = subprocess.run(
        [sys.executable, "-m", "loadgen", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=WAIT_S * 2,
        cwd=ROOT,
        check=False,
    )
    page = json.loads(done.stdout) if done.stdout.startswith("{") else None
    return done.returncode, page, done.stderr


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A model store with version 1 of a logistic churn model."""
    folder = tmp_path_factory.mktemp("models") / "churn" / "1"
    folder.mkdir(parents=True)
    weights = np.stack([-WEIGHTS, WEIGHTS], axis=1)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["X", "W", "B"], ["z"]),
            helper.make_node("Sigmoid", ["z"], ["probabilities"]),
        ],
        "churn",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [
            helper.make_tensor("W", TensorProto.FLOAT, [8, 2], weights.ravel().tolist()),
            helper.make_tensor("B", TensorProto.FLOAT, [2], [-float(BIAS), float(BIAS)]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(onnx.save_model(model, io.BytesIO()) or model.SerializeToString())
    features = [{"field": name, "kind": "number", "missing": {"impute": IMPUTE}} for name in NUMBERS]
    features.append({"field": "plan", "kind": "one_hot", "categories": list(PLANS)})
    manifest = {
        "inputs": [{"name": "X", "dtype": "float32", "features": features}],
        "outputs": [{"name": "probabilities", "kind": "probabilities", "classes": [0, 1], "threshold": 0.5}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder.parents[1]


@dataclass(frozen=True)
class Out:
    """A record the stub worker is about to write."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple = ()


class StubWorker:
    """Answers every event once, in order; `tamper` gets the list of its records and may spoil it."""

    def __init__(self, kafka, store, topics, registry_url=None):
        self.kafka, self.topics = kafka, topics
        self.digest = hashlib.sha256((store / "churn/1/model.onnx").read_bytes()).hexdigest()[:16]
        self.schemas = SchemaSource(SchemaOptions(SCHEMAS, registry_url))
        self.reader = self.schemas.directory.current("churn_event")
        self.writer = self.schemas.directory.current("churn_prediction")
        identity = self.schemas.identity(topics[1], self.writer)
        self.header = self.schemas.wire_format.header(identity)

    def answer_all(self, tamper=lambda outs: outs):
        consumer = self._consumer()
        ended, outs = set(), []
        deadline = time.monotonic() + WAIT_S
        while len(ended) < len(self.partitions) and time.monotonic() < deadline:
            for message in consumer.consume(500, 0.2):
                if message.error():
                    assert message.error().code() == PARTITION_EOF
                    ended.add(message.partition())
                elif message.value() is not None:
                    outs.append(self.answer(message))
        consumer.close()
        assert len(ended) == len(self.partitions)
        self.write(tamper(outs))

    def answer_while(self, stop):
        consumer, producer = self._consumer(), Producer({"bootstrap.servers": self.kafka, "linger.ms": 0})
        while not stop.is_set():
            for message in consumer.consume(1, 0.05) + consumer.consume(500, 0):
                if not message.error():
                    self._send(producer, self.answer(message))
            producer.poll(0)
        assert producer.flush(WAIT_S) == 0
        consumer.close()

    def _consumer(self):
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka,
                "group.id": "stub",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        topic = self.topics[0]
        self.partitions = sorted(consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in self.partitions])
        return consumer

    def answer(self, message):
        events, predictions, dead_letters = self.topics
        headers = dict(message.headers() or [])
        if POISON_HEADER in headers:
            about = {
                "__connect.errors.topic": events,
                "__connect.errors.partition": str(message.partition()),
                "__connect.errors.offset": str(message.offset()),
                "inference.reason": REASONS[headers[POISON_HEADER].decode()],
            }
            added = tuple((name, value.encode()) for name, value in about.items())
            kept = tuple(message.headers())
            return Out(dead_letters, message.partition(), message.key(), message.value(), kept + added)
        event = read_event(message.value(), self.schemas, self.reader)
        row = [IMPUTE if event[name] is None else event[name] for name in NUMBERS]
        row += [float(event["plan"] == plan) for plan in PLANS]
        z = np.dot(np.array(row, dtype=np.float32).astype(np.float64), WEIGHTS.astype(np.float64)) + BIAS
        churn = float(1 / (1 + np.exp(-z)))
        answer = {
            "customer_id": event["customer_id"],
            "prediction": int(churn >= 0.5),
            "will_churn": churn >= 0.5,
            "probability": churn,
            "confidence": max(churn, 1 - churn),
            "model_name": "churn",
            "model_version": "1",
            "model_digest": self.digest,
            "answered_by": "stable",
            "rollout_revision": 1,
            "source_topic": events,
            "source_partition": message.partition(),
            "source_offset": message.offset(),
            "event_time": event["event_time"],
            "predicted_at": int(time.time() * 1000),
        }
        return Out(predictions, message.partition(), message.key(), self.encode(answer))

    def encode(self, answer):
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self.writer.parsed, answer)
        return self.header + buffer.getvalue()

    def decode(self, out):
        datum = io.BytesIO(out.value[len(self.header) :])
        return fastavro.schemaless_reader(datum, self.writer.parsed, None)

    def write(self, outs):
        producer = Producer({"bootstrap.servers": self.kafka})
        for out in outs:
            self._send(producer, out)
        assert producer.flush(WAIT_S) == 0

    @staticmethod
    def _send(producer, out):
        producer.produce(out.topic, partition=out.partition, key=out.key, value=out.value, headers=list(out.headers))


class Rig:
    """Topics of one test, and the commands with the options that name them."""

    def __init__(self, kafka, topics, store, registry_url=None):
        self.events, self.predictions, self.dead_letters = (
            topics(name, 3) for name in ("churn.events", "churn.predictions", "churn.dead-letters")
        )
        self.store = store
        self.kafka, self.schemas = KafkaOptions(kafka), SchemaOptions(SCHEMAS, registry_url)
        self.common = ["--bootstrap", kafka, "--schemas", SCHEMAS, "--json"]
        self.outputs = ["--predictions", self.predictions, "--dead-letters", self.dead_letters]
        self.worker = StubWorker(kafka, store, (self.events, self.predictions, self.dead_letters), registry_url)

    def produce(self, events, poison=0.0, writer_versions="current"):
        plan = ProducePlan(
            pipeline="churn",
            topic=self.events,
            kafka=self.kafka,
            schemas=self.schemas,
            pace=Pace(),
            extent=Extent(events=events),
            poison=PoisonShare(poison),
            writer_versions=writer_versions,
        )
        return plan.run(lambda sent: None)

    def verify(self, **options):
        plan = VerifyPlan(
            pipeline="churn",
            input_topics=(self.events,),
            prediction_topic=self.predictions,
            dead_letter_topic=self.dead_letters,
            kafka=self.kafka,
            schemas=self.schemas,
            store=str(self.store),
            timeout_s=WAIT_S,
            quiet_s=0.5,
            settle_s=0.2,
            **options,
        )
        return verify(plan, lambda *counts: None)

    def broken(self, **options):
        return {violation.kind: violation.count for violation in self.verify(**options).violations}


@pytest.fixture
def rig(kafka, topics, store, monkeypatch):
    monkeypatch.delenv("SCHEMA_REGISTRY_URL", raising=False)
    return Rig(kafka, topics, store)


@pytest.mark.parametrize("versions", ["current", "all"])
def test_an_honest_worker_passes_with_poison_and_every_writer_version(rig, versions):
    produced = rig.produce(2000, 0.01, versions)
    assert sum(produced.poison.values()) == 20
    assert set(produced.poison.values()) == {2}
    rig.worker.answer_all()
    verdict = rig.verify(min_accuracy=0.78, sample=0)
    assert verdict.violations == ()
    assert (verdict.inputs, verdict.predictions) == (2000, 1980)
    assert sum(verdict.dead_letters.values()) == 20
    assert verdict.score.checked == 1980
    assert verdict.accuracy.known == 1980
    assert verdict.latency.count == 1980


def test_the_same_holds_in_confluent_framing_with_a_registry(kafka, topics, store, schema_registry):
    rig = Rig(kafka, topics, store, schema_registry)
    rig.produce(1000, 0.05, "all")
    rig.worker.answer_all()
    verdict = rig.verify()
    assert verdict.violations == ()
    assert (verdict.predictions, sum(verdict.dead_letters.values())) == (950, 50)
    rig.worker.schemas.close()


def _predictions(rig, outs):
    return [at for at, out in enumerate(outs) if out.topic == rig.predictions]


def _drop(rig, outs):
    outs.pop(_predictions(rig, outs)[5])


def _double(rig, outs):
    outs.append(outs[_predictions(rig, outs)[-1]])


def _swap(rig, outs):
    first = _predictions(rig, outs)[5]
    partition = outs[first].partition
    second = next(at for at in _predictions(rig, outs) if at > first and outs[at].partition == partition)
    outs[first], outs[second] = outs[second], outs[first]


def _rename(rig, outs):
    at = _predictions(rig, outs)[5]
    outs[at] = replace(outs[at], key=b"cust-99999999")


def _change(rig, outs, **fields):
    at = _predictions(rig, outs)[5]
    outs[at] = replace(outs[at], value=rig.worker.encode({**rig.worker.decode(outs[at]), **fields}))


def _header(rig, outs, name, value):
    at = next(at for at, out in enumerate(outs) if out.topic == rig.dead_letters)
    headers = dict(outs[at].headers) | {name: value}
    outs[at] = replace(outs[at], headers=tuple(headers.items()))


def _junk(rig, outs):
    whole = outs[_predictions(rig, outs)[0]].value
    header = rig.worker.header
    junk = [None, b"", b"\x00", b"hello, world, this is no avro", whole[:-1], whole + b"\x00"]
    junk += [header, header + b"\xff" * 40, header[:2] + b"\x01" * 30]
    outs.extend(Out(rig.predictions, 0, b"junk", value) for value in junk)


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (_drop, {"lost": 1}),
        (_double, {"doubled": 1, "out_of_order": 1}),
        (_swap, {"out_of_order": 1}),
        (_rename, {"key_changed": 1, "id_changed": 1}),
        (_junk, {"unreadable_prediction": 9}),
        (lambda rig, outs: _change(rig, outs, source_offset=10**12), {"lost": 1, "phantom": 1}),
        (lambda rig, outs: _change(rig, outs, source_topic="elsewhere"), {"lost": 1, "phantom": 1}),
        (lambda rig, outs: _change(rig, outs, source_partition=-3), {"lost": 1, "phantom": 1}),
        (lambda rig, outs: _change(rig, outs, model_digest="0" * 16), {"wrong_digest": 1}),
        (lambda rig, outs: _change(rig, outs, model_name="../../etc"), {"model_not_found": 1}),
        (lambda rig, outs: _change(rig, outs, event_time=1), {"event_time_changed": 1}),
        (
            lambda rig, outs: _change(rig, outs, prediction=1, probability=0.9876, confidence=0.9876),
            {"wrong_score": 1},
        ),
        (lambda rig, outs: _change(rig, outs, confidence=7.0), {"implausible_prediction": 1}),
        (lambda rig, outs: _header(rig, outs, "inference.reason", b"oversized"), {"wrong_reason": 1}),
        (
            lambda rig, outs: _header(rig, outs, "inference.reason", b"because"),
            {"unreadable_dead_letter": 1, "lost": 1},
        ),
        (lambda rig, outs: _header(rig, outs, "loadgen.poison", b"x"), {"dead_letter_altered": 1}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_single_fault_is_named(rig, tamper, expected):
    rig.produce(300, 0.1)

    def spoil(outs):
        tamper(rig, outs)
        return outs

    rig.worker.answer_all(spoil)
    assert rig.broken(sample=0) == expected


def test_at_least_once_allows_doubles_but_no_loss(rig):
    rig.produce(300)
    rig.worker.answer_all(lambda outs: outs + outs[100:])
    assert rig.broken(at_least_once=True) == {}
    assert rig.broken().keys() == {"doubled", "out_of_order"}


def test_tombstones_need_no_outcome(rig, kafka):
    rig.produce(100)
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(rig.events, key=b"cust-00000001", value=None)
    assert producer.flush(WAIT_S) == 0
    rig.worker.answer_all()
    verdict = rig.verify()
    assert verdict.passed
    assert verdict.tombstones == 1


def test_a_live_run_reports_latency_from_the_intended_send_time(rig, tmp_path):
    stop = threading.Event()
    worker = threading.Thread(target=rig.worker.answer_while, args=(stop,))
    worker.start()
    try:
        status, page, errors = loadgen(
            *("run", "--topic", rig.events, *rig.outputs, *rig.common, "--store", rig.store),
            *("--rate", 500, "--duration", 3, "--poison", 0.01, "--out", tmp_path, "--timeout", WAIT_S, "--warmup", 1),
        )
    finally:
        stop.set()
        worker.join(WAIT_S)
    assert status == 0, errors
    assert page["produced"]["events"] == 1500
    assert (page["verified"]["inputs"], page["verified"]["predictions"]) == (1500, 1485)
    assert page["verified"]["latency"]["basis"] == "received"
    assert page["verified"]["latency"]["count"] == 990  # the first second is left out
    latency = page["verified"]["latency"]
    # No bound in ms: the stub decodes record by record, on a machine that may be busy.
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert json.loads((tmp_path / "result.json").read_text()) == page
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 3


def test_the_digits_are_sent_with_their_truth(kafka, topics):
    topic = topics("digits.events", 2)
    status, page, errors = loadgen(
        *("produce", "--bootstrap", kafka, "--pipeline", "digits", "--topic", topic, "--events", 1797),
        *("--writer-versions", "all", "--poison", 0.01, "--schemas", SCHEMAS, "--json"),
    )
    assert status == 0, errors
    assert sum(page["produced"]["poison"].values()) == 17


def test_the_command_exits_with_1_and_names_the_first_offending_places(rig):
    status, page, errors = loadgen("produce", "--topic", rig.events, "--events", 20, *rig.common)
    assert (status, page["produced"]["events"]) == (0, 20)
    rig.worker.answer_all(lambda outs: outs[1:])
    status, page, errors = loadgen("verify", "--input", rig.events, *rig.outputs, *rig.common, "--quiet", 0.5)
    assert status == 1
    (violation,) = page["verified"]["violations"]
    assert (violation["kind"], violation["count"]) == ("lost", 1)
    place = violation["examples"][0]
    assert f"({place['topic']}, {place['partition']}, {place['offset']})" in errors


def test_events_that_the_broker_refuses_fail_the_run(kafka, topics):
    small = topics("digits.events", 1, {"max.message.bytes": "200"})  # a digit takes about 280
    plan = ProducePlan(
        pipeline="digits",
        topic=small,
        kafka=KafkaOptions(kafka, {"batch.num.messages": "1"}),
        schemas=SchemaOptions(SCHEMAS),
        pace=Pace(),
        extent=Extent(events=20),
    )
    with pytest.raises(BrokerFailed, match=r"not delivered.*too large"):
        plan.run(lambda sent: None)


def test_a_verification_of_nothing_does_not_pass(rig):
    with pytest.raises(BadOption, match="nothing to verify"):
        rig.verify()


def test_a_topic_that_is_not_there_is_named_with_exit_status_2(kafka):
    status, _, errors = loadgen("produce", "--bootstrap", kafka, "--topic", "no.such.topic", "--events", 1)
    assert status == 2
    assert "no.such.topic does not exist" in errors
