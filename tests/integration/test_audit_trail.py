"""The audit trail on a real broker, in folders and in a real bucket: each record once, whoever is killed."""

import hmac
import random
import subprocess
import sys
import uuid
from io import BytesIO

import fastavro
import orjson
import pytest
from audit_process import (
    HEADER_BYTES,
    assert_equal_to_the_topic,
    count_in,
    files_in,
    rows_in,
    running_audit,
    settings_over,
)
from confluent_kafka import Producer
from rig import SCHEMAS, WAIT_S, answers, committed, ends, read_all
from worker_process import ROOT, clean_environment, running_worker, wait_until

from app.avro.framing import SingleObjectFraming
from app.avro.schemas import parse
from deploy.local.object_store import REGION, S3Server

SCHEMA = SCHEMAS / "churn_prediction.avsc"
PARTITIONS = 3
RECORDS = 6_000
BUCKET = "audit"
SECRET = "0123456789abcdef"


def datums(count):
    """Predictions in single-object encoding, and one in a hundred that is none."""
    schema = fastavro.schema.load_schema(SCHEMA)
    header = SingleObjectFraming.header(parse(SCHEMA.read_text()).fingerprint)
    for number in range(count):
        out = BytesIO()
        out.write(header)
        fastavro.schemaless_writer(
            out, schema,
            {"customer_id": f"c-{number % 500:04}", "prediction": number % 2, "will_churn": bool(number % 2),
             "probability": number / count, "confidence": 0.9, "model_name": "churn", "model_version": "1",
             "model_digest": "0123456789abcdef", "answered_by": "stable", "rollout_revision": 1,
             "source_topic": "churn.events", "source_partition": number % PARTITIONS, "source_offset": number,
             "event_time": 1_760_000_000_000 + number, "predicted_at": 1_760_000_000_100 + number},
        )  # fmt: skip
        yield f"c-{number % 500:04}".encode(), out.getvalue()[:40] if number % 100 == 7 else out.getvalue()


def publish(kafka, topic, count=RECORDS):
    """In transactions of 50, each third of which is aborted."""
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"audit-{uuid.uuid4().hex[:8]}"})
    producer.init_transactions(WAIT_S)
    pairs = list(datums(count))
    for start in range(0, count, 50):
        producer.begin_transaction()
        for number, (key, value) in enumerate(pairs[start : start + 50], start):
            producer.produce(topic, value, key, partition=number % PARTITIONS)
        if start // 50 % 3 == 2:
            producer.flush(WAIT_S)
            producer.abort_transaction(WAIT_S)
        else:
            producer.commit_transaction(WAIT_S)


@pytest.fixture(scope="module")
def published(kafka, topics):
    """A topic of predictions: (its name, how many of its records are committed)."""
    topic = topics("churn.predictions", PARTITIONS)
    publish(kafka, topic)
    return topic, len(read_all(kafka, topic))


def test_kill_9_at_any_moment_leaves_each_record_in_one_file(kafka, published, tmp_path):
    """Each writer is in a group of its own, the last two at once: no group keeps them from doing the same work."""
    topic, count = published
    folder, moments = tmp_path / "trail", random.Random(7)
    for _ in range(3):
        with running_audit(settings_over(kafka, topic, f"file://{folder}"), tmp_path) as audit:
            more = len(files_in(folder)) + moments.randint(0, 3)
            audit.wait_until(lambda more=more: len(files_in(folder)) >= more or count_in(folder) == count, "files")
            audit.kill()
    settings = [settings_over(kafka, topic, f"file://{folder}") for _ in range(2)]
    with running_audit(settings[0], tmp_path) as one, running_audit(settings[1], tmp_path) as other:
        one.wait_until(lambda: count_in(folder) >= count, lambda: f"{count} rows, now {count_in(folder)}")
        assert (one.stop(), other.stop()) == (0, 0)
    assert_equal_to_the_topic(folder, kafka, topic)


@pytest.mark.timeout(900)  # the server is built on first use
def test_in_a_bucket_whose_server_dies_likewise(kafka, published, tmp_path):
    topic, count = published
    with S3Server(tmp_path / "s3") as server:
        server.make_bucket(BUCKET)
        options = {"endpoint": server.endpoint, "region": REGION, "allow_http": True,
                   "access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key}  # fmt: skip
        folder = tmp_path / "s3" / "buckets" / BUCKET

        def settings():
            return settings_over(kafka, topic, f"s3://{BUCKET}/trail", store_options=options)

        with running_audit(settings(), tmp_path) as audit:
            audit.wait_until(lambda: files_in(folder), "a file")
            audit.kill()
        with running_audit(settings(), tmp_path) as audit:
            audit.wait_until(lambda: audit.said("trail_goes_on"), "the trail to be found")
            server.kill()
            audit.wait_until(lambda: audit.said("backing_off") or count_in(folder) >= count, "the outage to be noticed")
            wait_until(lambda: _starts(server), "the server to come back")
            audit.wait_until(lambda: count_in(folder) >= count, lambda: f"{count} rows, now {count_in(folder)}")
            assert audit.stop() == 0
        assert_equal_to_the_topic(folder, kafka, topic)
        asked = tmp_path / "worker.yaml"
        asked.write_bytes(orjson.dumps(settings()))
        found = query(asked, "c-0042", "--limit", "5")
        assert [row["audit_key"] for row in found] == ["c-0042"] * 5


def _starts(server):
    try:
        server.start()
    except OSError:  # its port is not free yet
        return False
    return True


def query(config, key, *more):
    """As people ask: in a process of its own, which has to end well too."""
    command = [sys.executable, "-m", "app", "audit", "query", "--config", config, "--key", key, "--json", *more]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=clean_environment())
    return orjson.loads(done.stdout)


def test_instances_share_the_partitions_and_the_group_knows_where_they_are(kafka, published, tmp_path):
    topic, count = published
    folder = tmp_path / "trail"
    settings = settings_over(kafka, topic, f"file://{folder}")
    with running_audit(settings, tmp_path) as one, running_audit(settings, tmp_path) as other:
        one.wait_until(lambda: count_in(folder) >= count, lambda: f"{count} rows, now {count_in(folder)}")
        group = f"{settings['kafka']['group_id']}-audit"
        wait_until(lambda: committed(kafka, group, topic) == ends(kafka, topic), "the group to know that all is kept")
        assert (one.stop(), other.stop()) == (0, 0)
    assert_equal_to_the_topic(folder, kafka, topic)


def test_what_a_worker_predicted_is_answered_for_a_key_with_model_record_and_features(lane, tmp_path):
    one, folder = lane(partitions=2), tmp_path / "trail"
    audit = {"store": f"file://{folder}", "file_age_s": 0.4, "features": ["age", "plan", "income"],
             "mask": {"audit_key": "keep", "income": "hash"}, "mask_secret": SECRET}  # fmt: skip
    settings = one.settings(audit=audit)
    one.produce(500)
    with running_worker({k: v for k, v in settings.items() if k != "audit"}, tmp_path) as worker:
        worker.wait_for_records(500)
        assert worker.stop() == 0
    with running_audit(settings, tmp_path) as audit:
        audit.wait_until(lambda: count_in(folder) >= 1_000, "all predictions and events to be kept")
        assert audit.metrics().total("process_resident_memory_bytes") > 0
        assert audit.stop() == 0
        config = audit.config
    message, answer = answers(one)[123]
    (row,) = query(config, message.key().decode())
    assert {name: row[name] for name in answer if not name.endswith(("_time", "_at"))} == {
        name: value for name, value in answer.items() if not name.endswith(("_time", "_at"))
    }
    assert (row["topic"], row["audit_partition"], row["audit_offset"]) == (
        one.output, message.partition(), message.offset(),
    )  # fmt: skip
    assert len(rows_in(folder / "pipeline=churn")) == 500
    event = event_at(one, row["source_partition"], row["source_offset"])
    hashed = hmac.new(SECRET.encode(), repr(event["income"]).encode(), "sha256").hexdigest()[:32]
    assert row["features"] == {"age": event["age"], "income": hashed, "plan": event["plan"]}


def event_at(lane, partition, offset):
    """As the input topic has it."""
    schema = fastavro.schema.load_schema(SCHEMAS / "churn_event.avsc")
    (value,) = [
        message.value()
        for message in read_all(lane.kafka, lane.inputs[0])
        if (message.partition(), message.offset()) == (partition, offset)
    ]
    return fastavro.schemaless_reader(BytesIO(value[HEADER_BYTES:]), schema, None)


def test_a_start_that_cannot_succeed_says_why_and_ends_with_2(kafka, published, tmp_path):
    topic, _ = published
    for change, why in (
        ({"mask": {"audit_key": "keep", "nonsense": "drop"}}, "audit.mask: nonsense: no such field"),
        ({"features": ["nonsense"]}, "audit.features: nonsense: no such field"),
        ({"store": "s3://nowhere/at-all"}, "StoreRefused"),
    ):
        with running_audit(
            settings_over(kafka, topic, **({"store": f"file://{tmp_path}/trail"} | change)), tmp_path
        ) as it:
            assert it.wait() == 2
            assert why in it.log
            assert "Traceback" not in it.log
    with running_audit(settings_over(kafka, "no.such.topic", f"file://{tmp_path}/trail"), tmp_path) as audit:
        assert audit.wait() == 2
        assert "BrokerRefused: topic no.such.topic" in audit.log
