"""What `inference-worker lag` says of a group equals a count by a plain consumer that reads every record."""

import json
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from rig import PARTITION_EOF, ROOT
from worker_process import clean_environment, running_worker, wait_until

from app.lag.report import as_json
from app.settings.reading import settings_of
from app.wiring.lag import look_now
from deploy.local.kafka import Cluster

WAIT_S = 60.0
VALUE = b"v" * 50


class Group:
    """A topic, a group on it and a settings file that names both; nobody is in the group."""

    def __init__(self, kafka, topic, folder, **sections):
        self.kafka, self.topic, self.group_id = kafka, topic, f"lag-{uuid.uuid4().hex[:12]}"
        pipeline = {
            "name": "any", "model": "any", "input_topics": [topic], "output_topic": f"{topic}.out",
            "dead_letter_topic": f"{topic}.dead",
        }  # fmt: skip
        self.settings = {
            "kafka": {"bootstrap_servers": kafka, "group_id": self.group_id} | sections.pop("kafka", {}),
            "pipelines": [pipeline],
            "http": {"port": 0},
            "log": {"format": "json"},
            **sections,
        }
        self._folder = folder

    def commit(self, **offsets):
        """p0=5: the group's offset of partition 0."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": self.group_id})
        places = [TopicPartition(self.topic, int(name[1:]), offset) for name, offset in offsets.items()]
        consumer.commit(offsets=places, asynchronous=False)
        consumer.close()

    def once(self, *, exact=False):
        """The figures of each partition, as `--once --json` prints them."""
        (group,) = as_json(look_now(settings_of(self.settings), exact=exact))
        assert (group["group"], group["unknown"]) == (self.group_id, {})
        return {one["partition"]: one for one in group["partitions"]}

    def command(self, *options):
        """`inference-worker lag` with these options, ended."""
        config = self._folder / "lag.yaml"
        config.write_text(yaml.safe_dump(self.settings))
        return subprocess.run(
            [sys.executable, "-m", "app", "lag", "--config", config, *options],
            cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def really_waiting(self, **begins):
        """Partition → (how many records a reader of committed ones gets from there on, timestamp of the first)."""
        found = records_of(self.kafka, self.topic)
        waiting = {}
        for name, begin in begins.items():
            partition = int(name[1:])
            stamps = [m.timestamp()[1] for m in found if m.partition() == partition and m.offset() >= begin]
            waiting[partition] = (len(stamps), stamps[0] if stamps else None)
        return waiting


@pytest.fixture
def group(kafka, topics, tmp_path):
    """A group on a new topic: group(partitions=2, config={...}, lag={...})."""

    def make(partitions=1, config=None, **sections):
        return Group(kafka, topics("lag.events", partitions, config), tmp_path, **sections)

    return make


def transactions(kafka, topic, plan):
    """plan: (partition, records, "commit" or "abort" or "open") in turn. Returns the producer, if one is open."""
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"t-{uuid.uuid4().hex[:8]}"})
    producer.init_transactions(WAIT_S)
    for partition, records, ending in plan:
        producer.begin_transaction()
        for _ in range(records):
            producer.produce(topic, VALUE, partition=partition)
        producer.flush(WAIT_S)
        if ending == "open":
            return producer
        (producer.commit_transaction if ending == "commit" else producer.abort_transaction)(WAIT_S)
    return None


def plain(kafka, topic, partition, records, **properties):
    producer = Producer({"bootstrap.servers": kafka, **properties})
    for number in range(records):
        producer.produce(topic, VALUE, key=str(number % 7), partition=partition)
    assert producer.flush(WAIT_S) == 0


def records_of(kafka, topic):
    """Every committed record that is kept, as a plain consumer gets them."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka, "group.id": "tests-lag", "isolation.level": "read_committed",
            "auto.offset.reset": "earliest", "enable.auto.commit": False, "enable.partition.eof": True,
        }
    )  # fmt: skip
    partitions = consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    found, ended, deadline = [], set(), time.monotonic() + WAIT_S
    while len(ended) < len(partitions):
        assert time.monotonic() < deadline, f"{topic} was not read to its end"
        for message in consumer.consume(1000, 0.2):
            if message.error() is None:
                found.append(message)
            else:
                assert message.error().code() == PARTITION_EOF
                ended.add(message.partition())
    consumer.close()
    return found


def agree(shown, waiting):
    """Every figure is exact, and equals the count; ages are of the first record, within the time that passed."""
    now_ms = time.time() * 1000
    assert {partition: one["lag_records"] for partition, one in shown.items()} == {
        partition: records for partition, (records, _) in waiting.items()
    }
    assert all(one["uncounted_offsets"] == 0 for one in shown.values())
    for partition, (_, first_ms) in waiting.items():
        if first_ms is None:
            assert shown[partition]["lag_seconds"] == 0
        else:
            age_s = (now_ms - first_ms) / 1000
            assert age_s - 60 < shown[partition]["lag_seconds"] <= age_s


def test_markers_and_aborted_records_are_no_lag(group):
    one = group(partitions=4)
    committed_and_aborted = [(0, 5, "commit"), (0, 3, "abort"), (0, 7, "commit"), (0, 2, "abort")]
    only_aborted = [(1, 4, "abort"), (1, 4, "abort")]
    up_to_the_marker = [(2, 10, "commit")]
    transactions(one.kafka, one.topic, [*committed_and_aborted, *only_aborted, *up_to_the_marker])
    begins = {"p0": 2, "p1": 0, "p2": 10, "p3": 0}
    one.commit(**begins)

    shown = one.once()

    agree(shown, one.really_waiting(**begins))
    assert [shown[partition]["lag_records"] for partition in range(4)] == [10, 0, 0, 0]
    assert [shown[partition]["end_offset"] - begin for partition, begin in enumerate(begins.values())] == [19, 10, 1, 0]


def test_a_large_backlog_of_small_transactions_is_counted(group):
    one = group(partitions=2)
    endings = ["commit", "commit", "abort"]
    transactions(one.kafka, one.topic, [(n % 2, 1 + n % 5, endings[n % 3]) for n in range(300)])
    plain(one.kafka, one.topic, 1, 5_000)
    one.commit(p0=7, p1=11)
    agree(one.once(), one.really_waiting(p0=7, p1=11))


def test_a_group_that_never_committed_begins_where_the_setting_says(group):
    one = group()
    transactions(one.kafka, one.topic, [(0, 5, "commit"), (0, 3, "abort")])

    (from_the_start,) = one.once().values()
    one.settings["kafka"]["start_from"] = "latest"
    (from_the_end,) = one.once().values()

    assert (from_the_start["lag_records"], from_the_end["lag_records"]) == (5, 0)
    assert from_the_start["committed_offset"] is None
    assert from_the_start["note"] == from_the_end["note"] == "no_committed_offset"
    agree({0: from_the_start}, one.really_waiting(p0=0))


def test_an_empty_topic_has_no_lag(group):
    shown = group(partitions=3).once()
    assert [(one["lag_records"], one["lag_seconds"]) for one in shown.values()] == [(0, 0)] * 3


def test_retention_takes_lag_away_and_it_is_said_how_much_was_missed(group):
    one = group(partitions=2)
    transactions(one.kafka, one.topic, [(partition, 10, "commit") for partition in (0, 1)] * 3)
    one.commit(p0=4, p1=20)
    admin = AdminClient({"bootstrap.servers": one.kafka})
    for deleted in admin.delete_records([TopicPartition(one.topic, partition, 15) for partition in (0, 1)]).values():
        deleted.result(30)

    shown = one.once()

    agree(shown, one.really_waiting(p0=15, p1=20))
    assert [(shown[partition]["missed_offsets"], shown[partition]["note"]) for partition in (0, 1)] == [
        (11, "retention_overtook"), (0, None),
    ]  # fmt: skip


def test_an_idle_topic_that_retention_empties_is_nothing_missed(group, tmp_path):
    """A group that was done with every record: only markers and an aborted transaction were behind it."""
    one = group(lag={"poll_s": 0.5})
    transactions(one.kafka, one.topic, [(0, 5, "commit"), (0, 3, "abort")])
    one.commit(p0=5)

    with running_exporter(one.settings, tmp_path) as exporter:

        def looks():
            return exporter.metrics().total("inference_lag_looks_total")

        exporter.wait_until(
            lambda: exporter.metrics().of("inference_group_lag_uncounted_offsets", "partition") == {("0",): 0},
            "everything to be looked at",
        )
        admin = AdminClient({"bootstrap.servers": one.kafka})
        (deleted,) = admin.delete_records([TopicPartition(one.topic, 0, 10)]).values()
        assert deleted.result(30).low_watermark == 10
        seen = looks()
        exporter.wait_until(lambda: looks() >= seen + 2, "a look at what is left")
        after = exporter.metrics()
        assert exporter.stop() == 0

    assert after.of("inference_group_missed_offsets", "partition") == {("0",): 0}
    assert after.of("inference_group_lag_records", "partition") == {("0",): 0}


def test_what_compaction_removed_is_no_lag(group):
    one = group(
        config={
            "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "100",
            "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "100", "delete.retention.ms": "0",
        }
    )  # fmt: skip
    plain(one.kafka, one.topic, 0, 500)
    deadline = time.monotonic() + 45
    while len(records_of(one.kafka, one.topic)) >= 500 and time.monotonic() < deadline:
        time.sleep(0.5)
        plain(one.kafka, one.topic, 0, 1)  # a segment is closed by what comes after it
    one.commit(p0=0)

    waiting = one.really_waiting(p0=0)

    assert waiting[0][0] < 500, "nothing was compacted"
    agree(one.once(), waiting)


def test_a_hung_transaction_is_named_and_is_no_lag(group):
    one = group()
    plain(one.kafka, one.topic, 0, 4)
    hung = transactions(one.kafka, one.topic, [(0, 6, "open")])
    plain(one.kafka, one.topic, 0, 5)
    one.commit(p0=1)

    (shown,) = one.once().values()
    hung.abort_transaction(WAIT_S)  # its marker follows the answer
    wait_until(lambda: one.once()[0]["last_stable_offset_lag"] == 0, "the marker")
    (ended,) = one.once().values()

    assert (shown["lag_records"], shown["last_stable_offset"], shown["last_stable_offset_lag"]) == (3, 4, 11)
    assert (ended["lag_records"], ended["last_stable_offset_lag"]) == (8, 0)


def test_a_topic_that_was_made_anew_is_read_from_its_start(group):
    one = group()
    plain(one.kafka, one.topic, 0, 5)
    one.commit(p0=1_000)
    (shown,) = one.once().values()
    assert (shown["lag_records"], shown["note"]) == (5, "beyond_the_end")


def test_the_command_prints_a_table_or_json(group):
    one = group()
    transactions(one.kafka, one.topic, [(0, 5, "commit"), (0, 3, "abort")])
    one.commit(p0=2)

    table, figures = one.command("--once"), one.command("--once", "--exact", "--json")

    assert table.returncode == figures.returncode == 0
    assert f"group {one.group_id}: 3 records" in table.stdout
    assert one.topic in table.stdout
    (shown,) = json.loads(figures.stdout)
    agree({part["partition"]: part for part in shown["partitions"]}, one.really_waiting(p0=2))
    assert (shown["lag_records"], shown["members"], shown["unknown"]) == (3, 0, {})


def test_looking_leaves_no_trace_in_the_group(group):
    one = group(partitions=2)
    plain(one.kafka, one.topic, 0, 50)
    one.commit(p0=10)
    admin = AdminClient({"bootstrap.servers": one.kafka})

    for _ in range(2):
        one.once()

    described = admin.describe_consumer_groups([one.group_id])[one.group_id].result(30)
    assert (described.state.name, len(described.members)) == ("EMPTY", 0)
    consumer = Consumer({"bootstrap.servers": one.kafka, "group.id": one.group_id})
    places = [TopicPartition(one.topic, partition) for partition in (0, 1)]
    assert [place.offset for place in consumer.committed(places, 30)] == [10, -1001]
    consumer.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_members_are_counted_under_both_protocols(group, protocol):
    one = group(partitions=3)
    members = [
        Consumer({"bootstrap.servers": one.kafka, "group.id": one.group_id, "group.protocol": protocol})
        for _ in range(2)
    ]
    for member in members:
        member.subscribe([one.topic])
    deadline = time.monotonic() + WAIT_S
    while not all(member.assignment() for member in members) and time.monotonic() < deadline:
        for member in members:
            member.poll(0.1)

    (lag,) = look_now(settings_of(one.settings))

    assert (lag.members, lag.processes, lag.most_processes) == (2, 2, 3)
    for member in members:
        member.close()
    (lag,) = look_now(settings_of(one.settings))
    assert (lag.members, lag.unknown) == (0, {})


def test_a_worker_that_hangs_in_its_transaction_hides_nothing(group):
    """Its offsets are neither committed nor gone; whoever insists on stable ones waits for it."""
    one = group()
    plain(one.kafka, one.topic, 0, 10)
    one.commit(p0=3)
    worker = Consumer({"bootstrap.servers": one.kafka, "group.id": one.group_id})
    worker.assign([TopicPartition(one.topic, 0, 3)])
    producer = Producer({"bootstrap.servers": one.kafka, "transactional.id": f"t-{one.group_id}"})
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    offsets = [TopicPartition(one.topic, 0, 9)]
    producer.send_offsets_to_transaction(offsets, worker.consumer_group_metadata(), WAIT_S)

    pending = one.once()
    producer.commit_transaction(WAIT_S)  # its marker follows the answer
    wait_until(lambda: one.once()[0]["committed_offset"] == 9, "the marker")
    done = one.once()

    worker.close()
    assert [found[0]["lag_records"] for found in (pending, done)] == [7, 1]
    agree(done, one.really_waiting(p0=9))


def test_a_backlog_that_is_counted_in_several_looks_is_never_shown_too_small(group, tmp_path):
    one = group(partitions=2, lag={"poll_s": 0.5, "count_records": 100})
    for partition in (0, 1):
        transactions(one.kafka, one.topic, [(partition, 3, "commit")] * 200)
    one.commit(p0=1, p1=0)
    really = {("0",): 599, ("1",): 600}

    with running_exporter(one.settings, tmp_path) as exporter:
        seen = []

        def exact():
            metrics = exporter.metrics()
            seen.append(metrics.of("inference_group_lag_records", "partition"))
            uncounted = metrics.of("inference_group_lag_uncounted_offsets", "partition")
            return uncounted and not any(uncounted.values())

        exporter.wait_until(exact, "everything to be counted")
        assert exporter.metrics().of("inference_group_lag_records", "partition") == really
        assert exporter.stop() == 0
    assert all(shown[partition] >= really[partition] for shown in seen for partition in shown)
    assert any(shown[("0",)] > 599 for shown in seen if shown)


def test_the_exporter_follows_a_group_that_works_and_then_ends(lane, tmp_path):
    one = lane(partitions=2)
    settings = one.settings(lag={"poll_s": 0.5})
    group_id = settings["kafka"]["group_id"]
    one.produce(2_000)
    with running_exporter(settings, tmp_path / "lag") as exporter:
        exporter.wait_until_ready()
        before = exporter.metrics()
        with running_worker(settings, tmp_path / "worker") as worker, ThreadPoolExecutor(1) as background:
            sent = background.submit(one.produce, 2_000, rate=1_000, seed=8)
            exporter.wait_until(lambda: exporter.metrics().total("inference_group_members") == 1, "a member")
            sent.result()
            worker.wait_for_records(4_000)
            exporter.wait_until(lambda: exporter.metrics().total("inference_group_lag_records") == 0, "no lag")
            worked = exporter.metrics()
            assert worker.stop() == 0
        exporter.wait_until(lambda: exporter.metrics().total("inference_group_members") == 0, "nobody")
        one.produce(500, seed=9)
        exporter.wait_until(lambda: exporter.metrics().total("inference_group_lag_records") == 500, "what came since")
        after = exporter.metrics()
        assert exporter.stop() == 0

    assert before.total("inference_group_lag_records") == 2_000
    assert before.total("inference_group_lag_seconds") > 0
    assert worked.total("inference_group_lag_seconds") == 0
    assert worked.of("inference_group_capacity_records_per_second", "group").keys() <= {(group_id,)}
    assert after.of("inference_desired_replicas", "group").keys() == {(group_id,)}
    assert after.of("inference_lag_up", "group") == {(group_id,): 1}


def running_exporter(settings, folder):
    """`inference-worker lag` for the length of a block."""
    return running_worker(settings, folder, command="lag")


@pytest.fixture
def silent(strict_stack):
    """The process of `strict_lane`'s broker; it goes on after the test."""
    cluster = Cluster(strict_stack.directory / "kafka")
    (broker,) = cluster.brokers
    yield broker.process
    broker.process.resume()
    cluster.wait_until_ready(timeout_s=60)


@pytest.mark.broker
def test_figures_go_with_the_broker_and_come_back_with_it(strict_lane, silent, tmp_path):
    settings = strict_lane.settings(lag={"poll_s": 0.5, "keep_s": 4.0})
    plain(strict_lane.kafka, strict_lane.inputs[0], 0, 30)
    with running_exporter(settings, tmp_path) as exporter:
        exporter.wait_until_ready()
        assert exporter.metrics().total("inference_group_lag_records") == 30

        silent.suspend()
        exporter.wait_until(
            lambda: (
                not exporter.metrics().of("inference_group_lag_records", "partition")
                and exporter.get("/readyz")[0] == 503
            ),
            "old figures to go",
        )
        away = exporter.metrics()
        livez, readyz = exporter.get("/livez"), exporter.get("/readyz")
        silent.resume()
        exporter.wait_until(lambda: exporter.get("/readyz")[0] == 200, "the broker to be seen again")
        back = exporter.metrics()
        assert exporter.said("group_not_seen")
        assert exporter.said("group_seen_again")

        silent.suspend()
        exporter.wait_until(lambda: exporter.get("/readyz")[0] == 503, "the next look")
        assert exporter.stop() == 0

    assert livez == (200, "ok")
    assert readyz[0] == 503
    assert settings["kafka"]["group_id"] in readyz[1]
    assert away.total("inference_lag_up") == 0
    assert away.total("inference_lag_last_success_timestamp_seconds") > 0
    assert not away.of("inference_desired_replicas", "group")
    assert back.total("inference_group_lag_records") == 30


def test_a_topic_that_does_not_exist_is_refused_by_name(kafka, tmp_path):
    one = Group(kafka, "lag.nowhere", tmp_path)
    told = one.command("--once")
    assert (told.returncode, "Traceback" in told.stderr) == (2, False)
    assert "topic lag.nowhere does not exist" in " ".join(told.stderr.split())


def test_a_setting_that_makes_no_sense_is_refused_by_name(tmp_path):
    told = Group("127.0.0.1:1", "any", tmp_path, lag={"poll_s": 60}).command("--once")
    assert told.returncode == 2
    assert "lag: keep_s 20 is less than two looks of poll_s 60" in " ".join(told.stderr.split())


def test_a_broker_that_nobody_runs_is_refused_by_name(tmp_path):
    told = Group("127.0.0.1:1", "any", tmp_path).command()
    assert told.returncode == 2
    assert "Connection refused" in told.stderr
