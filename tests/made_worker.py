"""A worker's HTTP port without a worker: metrics that tests feed, and the live page over them."""

import time

import numpy as np

from app.clock import SystemClock
from app.errors import Reason, Stage
from app.facts import Asked, BatchScored, Committed, InUse, Lag, Outcomes, Pulse, Refused, Serving
from app.observe.http import Health, ProbeServer
from app.observe.live_page import LivePage
from app.observe.look import OneProcess
from app.observe.pipeline_observer import PipelineObserver
from app.observe.pipeline_snapshot import PipelineFacts
from app.observe.snapshot import WorkerFacts
from app.observe.worker_metrics import Metrics
from app.records import TopicPartition

TOPIC = "churn.events"
CHURN = PipelineFacts("churn", "churn", (TOPIC,), "churn.predictions", "churn.dead-letters", "churn-workers")
FACTS = WorkerFacts("worker-7f9c", "0.1.0", "exactly_once", 1, (CHURN,))


def refused(message="age is …, allowed 18 to 120", *, topic=TOPIC, offset=7, error="BadFeatures"):
    """One dead letter."""
    return Refused(topic, 0, offset, Stage.FEATURES.value, Reason.OUT_OF_RANGE.value, error, message, "1")


def outcomes(version="1", rows=100, letters=(), *, answered_by="stable", latency_ms=8.0, now_ms=None):
    """What `rows` predictions and these dead letters leave behind; latencies are spread about `latency_ms`."""
    at_ms = int(time.time() * 1000) if now_ms is None else now_ms
    spread = np.random.default_rng(rows).lognormal(np.log(latency_ms), 0.5, rows + len(letters))
    return Outcomes(
        "churn",
        version,
        rows,
        0,
        {"0": rows},
        {(Stage.FEATURES, Reason.OUT_OF_RANGE): len(letters)} if letters else {},
        (at_ms - spread).astype(np.int64),
        np.full(rows, 0.9),
        answered_by=answered_by,
        refused=tuple(letters),
    )


class MadeWorker:
    """Metrics to feed; `open` serves them."""

    def __init__(self, facts=FACTS):
        self.metrics, self.facts = Metrics(), facts
        self.observer = PipelineObserver(self.metrics, facts.pipelines[0].name)
        self.alive = self.ready = None

    def serve_versions(self, **parts):
        """part=version, …"""
        for version in parts.values():
            self.metrics.model_loaded("churn", version, 0.13)
        in_use = tuple(InUse(version, f"{version}bcdef0123456789", part) for part, version in parts.items())
        self.observer.serving(Serving("churn", len(parts), in_use))

    def work(self, *several, model_s=0.002, now_ms=None):
        """Batches of these outcomes, in one transaction. now_ms: when it was committed."""
        for one in several:
            rows = one.predicted + one.dead_lettered
            asked = Asked("churn", one.version, model_s, answered=rows)
            self.observer.batch_scored(BatchScored(rows, "age", 0.004, model_s, (asked,), (rows,)))
        self.observer.committed(Committed(several, int(time.time() * 1000) if now_ms is None else now_ms))
        self.observer.transaction("committed")

    def lag(self, *records, age_s=0.2, busy=0.4):
        """Records by which partitions 0, 1, … are behind."""
        lags = {TopicPartition(TOPIC, at): Lag(many, age_s if many else 0.0) for at, many in enumerate(records)}
        self.observer.pulse(Pulse(busy, 50_000.0, 4096, lags))

    def open(self, port=0, *, every_s=0.05, watched=None):
        """The port, served; `close` it."""
        health = Health(lambda: self.alive, lambda: self.ready)
        watched = watched or OneProcess(self.metrics)
        page = LivePage(watched, self.facts, SystemClock(), health.alive, health.ready, every_s=every_s)
        return ProbeServer("127.0.0.1", port, self.metrics, health, page)
