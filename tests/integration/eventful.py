"""Metrics of a worker, a monitor and a lag exporter to whom everything happens, the rarest too, at every scrape.

They are the product's own objects, told by its own facts: what a metric is called is said nowhere here. The monitor's
and the exporter's are told by name, and those names come from their tables.
"""

import time
from contextlib import ExitStack

import numpy as np

from app.errors import Reason, Stage
from app.facts import (
    Asked,
    BatchScored,
    CacheLookups,
    Committed,
    InUse,
    Lag,
    Outcomes,
    PaceState,
    Pulse,
    Serving,
    ShadowCounted,
)
from app.observe.http import Health, ProbeServer
from app.observe.lag_metrics import LAG_TABLE, LagMetrics
from app.observe.merged import ProcessMetrics
from app.observe.monitor_metrics import MONITOR_TABLE, MonitorMetrics, Shown
from app.observe.pipeline_observer import PipelineObserver, ShadowMetrics
from app.observe.worker_metrics import Metrics, RequestMetrics
from app.records import TopicPartition

WELL = Health(alive=lambda: None, ready=lambda: None)
LABELS = {"pipeline": "churn", "model": "churn", "version": "1", "group": "churn-workers", "topic": "churn.events",
          "partition": "0", "feature": "age", "class": "1", "bound": "value", "quantile": "0.99", "result": "right",
          "reason": "partitions"}  # fmt: skip


class EventfulWorker:
    """A supervisor with one process."""

    def __init__(self):
        self._metrics, self._page = Metrics(), ProcessMetrics()
        self._observer = PipelineObserver(self._metrics, "churn", slo_s=0.1)
        self._shadow = ShadowMetrics(self._metrics, "churn", "churn")
        self._grpc = RequestMetrics(self._metrics, "grpc")
        self._page.started(0, again=False)

    def exposition(self):
        self._happens()
        self._page.reported(0, self._metrics.samples())
        return self._page.exposition()

    def _happens(self):
        metrics, observer, now_ms = self._metrics, self._observer, int(time.time() * 1000)
        for version, part in (("1", "stable"), ("2", "canary")):
            metrics.model_loaded("churn", version, 0.2)
            metrics.model_runs_on("churn", version, "CPUExecutionProvider")
            metrics.cache_looked_up(CacheLookups("churn", version, hits=5, misses=3, errors=1, skipped=1))
            asked = Asked("churn", version, 0.002, failed=True, answered=90, rows_failed=9, bad_output=1)
            observer.batch_scored(BatchScored(100, "age", 0.004, 0.003, (asked,), [100]))
            outcomes = Outcomes(
                "churn", version, 90, 1, {"0": 60, "1": 30}, {(Stage.MODEL, Reason.MODEL_ERROR): 9},
                np.full(100, now_ms - 200), np.full(90, 0.8), part,
            )  # fmt: skip
            observer.committed(Committed((outcomes,), now_ms))
        observer.serving(Serving("churn", 7, (InUse("1", "d1", "stable"), InUse("2", "d2", "canary"))))
        observer.rollout_failed("churn", "ModelInvalid", "3")
        for result in ("committed", "aborted", "dropped"):
            observer.transaction(result)
        for kind in ("assigned", "revoked", "lost"):
            observer.rebalanced(kind)
        observer.offset_reset("out_of_range", 70)
        metrics.partitions_changed("churn.events")
        metrics.batch_traced("record")
        metrics.spans_ended("exported", 5)
        self._shadow.shadow_counted(ShadowCounted("3", 5, 1, 1, 1, 0.003, np.array([0.1, 0.2])))
        self._shadow.shadow_failed("3", "ShadowHung")
        self._grpc.call_ended("inference.Prediction/Predict", "INTERNAL", 0.2)
        lag = {TopicPartition("churn.events", 0): Lag(70, 1.5)}
        observer.pulse(Pulse(0.5, 9_000.0, 1_000, lag, waiting_partitions=1, pace=PaceState(0.1, 0.001, 1e-6, 0.02)))
        self._page.started(0, again=True)
        self._page.counted({"ready": 1, "not_ready": 0, "waiting": 0})


class EventfulMonitor:
    """Every gauge and every counter of the table."""

    def __init__(self):
        self._metrics = MonitorMetrics()

    def exposition(self):
        gauges = [spec for spec in MONITOR_TABLE if spec.kind == "gauge"]
        self._metrics.show("all", [Shown(spec.name, tuple(map(LABELS.get, spec.labels)), 1.0) for spec in gauges])
        for spec in MONITOR_TABLE:
            if spec.kind == "counter":
                self._metrics.count(spec.name, {label: LABELS[label] for label in spec.labels}, 10)
        return self._metrics.exposition()


class EventfulLag:
    """Every gauge of the table, and looks of every kind."""

    def __init__(self):
        self._metrics = LagMetrics()

    def exposition(self):
        gauges = [spec for spec in LAG_TABLE if spec.kind == "gauge"]
        shown = [(spec.name, tuple(map(LABELS.get, spec.labels)), 1.0) for spec in gauges]
        self._metrics.show("churn-workers", "all", shown)
        for result in ("complete", "partial", "failed"):
            self._metrics.looked("churn-workers", result, 0.1)
        return self._metrics.exposition()


class Eventful:
    """All of them behind the product's own endpoint. addresses: job → host:port."""

    def __init__(self):
        self._stack = ExitStack()
        self.addresses = {}
        for job, exposed in (("worker", EventfulWorker()), ("monitor", EventfulMonitor()), ("lag", EventfulLag())):
            server = ProbeServer("127.0.0.1", 0, exposed, WELL)
            self._stack.callback(server.close)
            self.addresses[job] = f"127.0.0.1:{server.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()
