"""On the real broker: the monitor counts each committed prediction once, whoever is killed, and judges by outcomes."""

import time
import uuid
from contextlib import ExitStack

import numpy as np
import pytest
from confluent_kafka import Producer
from rig import SCHEMAS, read_all
from worker_process import refused_start, running_worker, wait_until

from app.avro.framing import SingleObjectFraming
from app.avro.record_reader import WholeRecordReader
from app.observe.scrape import ScrapedWorkers
from app.rollouts.measurements import NAMES, Tally
from tests.made_summaries import SCHEMAS as KNOWN
from tests.made_summaries import framed, summary

PREDICTIONS = "inference_monitor_predictions"
WINDOW_S = 10
ROWS = 50
STALLED_S = 20
KEPT_WITHIN_S = 120.0  # several times that


@pytest.fixture
def watched(kafka, topics, models):
    """Settings of a monitor of churn, with fresh topics."""

    def make(partitions=3, **monitor):
        summaries = topics("churn.summaries", partitions)
        sampled = topics("churn.sampled", partitions)
        comparisons = topics("churn.comparisons", partitions)
        return {
            "kafka": {"bootstrap_servers": kafka, "session_timeout_s": 6},
            "schemas": {"directory": str(SCHEMAS)},
            "pipelines": [
                {
                    "name": "churn", "input_topics": ["e"], "output_topic": "p", "dead_letter_topic": "d",
                    "model": "churn", "shadow_topic": comparisons,
                    "monitoring": {"summary_topic": summaries, "sample_topic": sampled},
                }
            ],
            "monitor": {
                "group_id": f"monitor-{uuid.uuid4().hex[:12]}", "publish_topic": topics("inference.monitor"),
                "window_s": WINDOW_S, "grace_s": 0.5, "keep_s": 3600, "publish_s": 0.3,
                "stalled_s": STALLED_S, **monitor,
            },
            "models": {"store": f"file://{models}"},
            "http": {"port": 0},
            "log": {"format": "json"},
        }  # fmt: skip

    return make


def summary_topic(settings):
    return settings["pipelines"][0]["monitoring"]["summary_topic"]


def running_monitor(settings, folder, **how):
    return running_worker(settings, folder, command="monitor", TMPDIR=str(folder), **how)


def left_behind(folder):
    return list(folder.glob("inference-monitor-*"))


class Kept:
    """A monitor that is started again when it ends by itself, as whoever runs it has to do (docs/decisions/0007)."""

    def __init__(self, stack, settings, folder, **how):
        self._start = lambda: stack.enter_context(running_monitor(settings, folder, **how))
        self.process = self._start()

    def wait_until_ready(self):
        wait_until(self.ready, "the monitor to be ready", KEPT_WITHIN_S)
        return self

    def ready(self):
        self._keep_up()
        return bool(self.process.said("started")) and self._asked(lambda: self.process.get("/readyz")[0] == 200)

    def metrics(self):
        """What it exports now; None while it does not answer."""
        self._keep_up()
        return self._asked(self.process.metrics) if self.process.said("started") else None

    def _asked(self, ask):
        try:
            return ask()
        except OSError:  # it has ended, or was too busy to answer in time
            return None

    def _keep_up(self):
        if not self.process.lives:
            assert self.process.said("monitor_failed"), self.process.tail()
            self.process = self._start()


class Summaries:
    """Writes what a worker would, in transactions; `counted`: by version, of those that were committed."""

    def __init__(self, settings):
        servers = settings["kafka"]["bootstrap_servers"]
        self._topic, self.counted = summary_topic(settings), dict.fromkeys("123", 0)
        self._start_ms = (int(time.time() * 1000) - 30_000) // 10_000 * 10_000
        self._producer = Producer(
            {"bootstrap.servers": servers, "transactional.id": uuid.uuid4().hex, "partitioner": "murmur2_random"}
        )
        self._producer.init_transactions(60)

    def write(self, commit=True, score=0.8):
        self._producer.begin_transaction()
        for version in self.counted:
            value = framed(summary(np.full(ROWS, score), version=version, start_ms=self._start_ms))
            self._producer.produce(self._topic, value, key=f"churn/{version}")
        self._producer.flush(60)
        if commit:
            self._producer.commit_transaction(60)
            self.counted = {version: count + ROWS for version, count in self.counted.items()}
        else:
            self._producer.abort_transaction(60)


def totals_of(*monitors):
    found = dict.fromkeys("123", 0)
    for shown in filter(None, [monitor.metrics() for monitor in monitors]):
        for (version,), count in shown.of(PREDICTIONS, "version").items():
            found[version] += int(count)
    return found


def until_all_are_counted(written, *monitors):
    wait_until(
        lambda: totals_of(*monitors) == written.counted,
        lambda: f"{totals_of(*monitors)} of {written.counted}",
        KEPT_WITHIN_S,
    )


def test_what_was_aborted_does_not_count_and_figures_are_published(kafka, watched, tmp_path):
    settings = watched()
    written = Summaries(settings)
    for number in range(6):
        written.write(commit=number % 2 == 0, score=0.8 if number % 2 == 0 else 0.2)
    with running_monitor(settings, tmp_path) as monitor:
        monitor.wait_until_ready()
        until_all_are_counted(written, monitor)
        shares = monitor.metrics().of("inference_class_share", "version", "class")
        assert shares == {(version, label): float(label) for version in "123" for label in "01"}
        published = monitor.wait_until(
            lambda: read_all(kafka, settings["monitor"]["publish_topic"]), "figures in the topic"
        )
        assert left_behind(tmp_path)  # its directory, while it runs
        assert monitor.stop() == 0
    assert not left_behind(tmp_path)
    reader = WholeRecordReader(SingleObjectFraming(), KNOWN, KNOWN.named("MonitorSummary"))
    newest = {message.key(): reader.read(message.value()) for message in published}
    assert sorted(newest) == [b"churn/1", b"churn/2", b"churn/3"]
    assert newest[b"churn/2"]["records"] == written.counted["2"]
    assert newest[b"churn/2"]["mean_confidence"] == pytest.approx(0.8)


def test_totals_are_exact_when_one_of_two_monitors_is_killed_and_after_a_restart(watched, tmp_path):
    settings = watched()
    written = Summaries(settings)
    with ExitStack() as stack:

        def started():
            return Kept(stack, settings, tmp_path, module="tests.integration.slow_monitor")

        victim, heir = started(), started()
        for monitor in (victim, heir):
            monitor.wait_until_ready()
        for _ in range(15):
            written.write()
        victim.process.kill()
        written.write(commit=False)
        for _ in range(10):
            written.write()
        until_all_are_counted(written, heir)
        assert heir.process.stop() == 0
        until_all_are_counted(written, started().wait_until_ready())


@pytest.mark.parametrize(
    ("broken", "why"),
    [("reading", "has not moved"), ("rebalance", "a rebalance, or the consumer's answer, is not there")],
)
def test_a_library_that_stops_and_says_nothing_ends_the_process_by_name(broken, why, watched, tmp_path):
    settings = watched(partitions=1, stalled_s=10)
    Summaries(settings).write()
    with running_monitor(settings, tmp_path, module="tests.integration.broken_monitor", BROKEN=broken) as monitor:
        assert monitor.wait() == 1
        (failed,) = monitor.said("monitor_failed")
    assert not left_behind(tmp_path)
    assert why in failed["error"]


class Outcomes:
    """A stream of predictions, comparisons and outcomes, and what comes of them offline."""

    def __init__(self, settings, rows, accuracy):
        """accuracy: by version; the last one is a shadow's."""
        random = np.random.default_rng(3)
        self.rows, self.accuracy = rows, accuracy
        self._pipeline, self._outcome_topic = (
            settings["pipelines"][0],
            settings["monitor"]["outcomes"]["churn"]["topic"],
        )
        self._producer = Producer({"bootstrap.servers": settings["kafka"]["bootstrap_servers"]})
        self.truth = random.integers(0, 2, rows)
        self.right = {version: random.random(rows) < share for version, share in accuracy.items()}
        self.answered_by = random.choice(list(accuracy)[:-1], rows)
        self._now_ms = int(time.time() * 1000)

    def predicted(self, version):
        return np.where(self.right[version], self.truth, 1 - self.truth)

    def expected(self):
        """version → (judged, right)."""
        *answering, shadow = self.accuracy
        found = {
            version: (
                int((self.answered_by == version).sum()),
                int(self.right[version][self.answered_by == version].sum()),
            )
            for version in answering
        }
        return found | {shadow: (self.rows, int(self.right[shadow].sum()))}

    def write_predictions(self, rows):
        shadow = list(self.accuracy)[-1]
        for row in rows:
            version = str(self.answered_by[row])
            answer, second = int(self.predicted(version)[row]), int(self.predicted(shadow)[row])
            source = {"source_topic": "e", "source_partition": 0, "source_offset": int(row)}
            times = {"event_time": self._now_ms + int(row), "predicted_at": self._now_ms}
            prediction = {
                "customer_id": f"c{row}", "prediction": answer, "will_churn": bool(answer),
                "probability": 0.9 if answer else 0.1, "confidence": 0.9, "model_name": "churn",
                "model_version": version, "model_digest": "d", "answered_by": "stable", "rollout_revision": 1,
                **source, **times,
            }  # fmt: skip
            comparison = {
                "model_name": "churn", "rollout_revision": 1, "stable_version": version, "candidate_version": shadow,
                "candidate_digest": "d", "result": "agreed", "reason": None, "stable_class": str(answer),
                "candidate_class": str(second), "stable_numbers": [0.1, 0.9], "candidate_numbers": [0.2, 0.8],
                "mean_difference": 0.0, "max_difference": 0.0, **source, "event_time": self._now_ms + 5,
                "compared_at": self._now_ms,
            }  # fmt: skip
            self._write(self._pipeline["monitoring"]["sample_topic"], row, framed(prediction, "ChurnPrediction"))
            self._write(self._pipeline["shadow_topic"], row, framed(comparison, "ShadowComparison"))
        self._producer.flush(60)

    def write_outcomes(self, rows):
        for row in rows:
            record = {
                "customer_id": f"c{row}", "event_time": self._now_ms + int(row), "churned": bool(self.truth[row]),
                "observed_at": self._now_ms,
            }  # fmt: skip
            self._write(self._outcome_topic, row, framed(record, "ChurnOutcome"))
        self._producer.flush(60)

    def _write(self, topic, row, value):
        self._producer.produce(topic, value, key=f"c{row}", partition=int(row) % 3)


def judged_by(url):
    """version → (judged, right), as `rollout watch` reads it; from the first look on."""
    tally = Tally()
    scraped = ScrapedWorkers("churn", NAMES, [url])
    tally.add(scraped.now())
    found = tally.earlier()
    return {version: (counts.judged, counts.right) for version, counts in found.items() if counts.judged}


def accuracies(monitor):
    shown = monitor.metrics()
    if shown is None:
        return {}
    rows = shown.of("inference_outcomes", "version")
    share = shown.of("inference_accuracy", "version", "bound")
    return {version: (int(count), round(count * share[version, "value"])) for (version,), count in rows.items()}


def test_outcomes_are_joined_by_what_a_killed_monitor_and_the_next_one_read(topics, watched, tmp_path):
    outcome_topic = topics("churn.outcomes", 3)
    outcome = {"topic": outcome_topic, "record": "ChurnOutcome", "label": "churned"}
    settings = watched(outcomes={"churn": outcome})
    stream = Outcomes(settings, 600, {"1": 0.89, "2": 0.91, "3": 0.75})
    stream.write_predictions(range(400))
    stream.write_outcomes(range(300))
    with running_monitor(settings, tmp_path) as monitor:
        monitor.wait_until_ready()
        monitor.wait_until(lambda: accuracies(monitor), "the first outcomes to be judged")
        stream.write_outcomes(range(290, 600))
        monitor.kill()
    stream.write_predictions(range(390, 600))
    with ExitStack() as stack:
        monitor = Kept(stack, settings, tmp_path).wait_until_ready()
        wait_until(
            lambda: accuracies(monitor) == stream.expected(),
            lambda: f"{accuracies(monitor)}, expected {stream.expected()}",
            KEPT_WITHIN_S,
        )
        seen_by_watch = judged_by(f"http://127.0.0.1:{monitor.process.port}/metrics")
        # a counter is of one process: the rest was counted by the one that was killed
        assert 0 < seen_by_watch["3"][0] <= stream.expected()["3"][0]
        assert monitor.metrics().of("inference_log_loss", "version").keys() == {("1",), ("2",), ("3",)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pipelines": None}, "no pipeline has a monitoring.summary_topic"),
        ({"monitor": {"outcomes": {"other": {"topic": "t", "record": "R", "label": "l"}}}}, "monitor.outcomes: other"),
        ({"monitor": {"window_s": 4000}}, "keep_s"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused_by_name(change, said, watched, tmp_path):
    settings = watched(partitions=1)
    if change.get("monitor"):
        settings["monitor"] |= change["monitor"]
    else:
        settings["pipelines"][0]["monitoring"] = {}
    log, _ = refused_start(settings, tmp_path, command="monitor")
    assert said in log
