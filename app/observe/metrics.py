"""Every metric of a worker and of a server: one table, and the page of it. Nothing here counts.

It is long because it is one table: what dashboards, alerts and docs/METRICS.md say is held against it. Labels are
bounded: never a key, an offset or a message. Counters count what is committed (acknowledged, in
at-least-once), never what an aborted transaction produced; `inference_batches_total`, `inference_model_seconds`
and the batch histograms count work done, committed or not.
"""

from dataclasses import dataclass
from typing import Literal

_FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_LATENCY_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10,
              30, 60, 300, 3600)  # fmt: skip
_ROWS = tuple(float(2**power) for power in range(15))
_DIFFERENCE = (1e-6, 1e-5, 1e-4, 1e-3, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_SHARE = tuple(step / 20 for step in range(1, 21))


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One row of the table.

    bounds: a histogram's upper bounds, in its unit. merge: how several worker processes' gauges become one;
    counters and histograms are always added up.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()
    merge: Literal["max", "min", "mean", "sum"] = "max"


TABLE = (
    MetricSpec(
        "inference_records_total", "counter", "records", ("pipeline", "outcome"),
        "Input records finished: predicted, dead_lettered, expired or skipped (tombstones).",
    ),
    MetricSpec(
        "inference_predictions_total", "counter", "predictions", ("pipeline", "model", "version", "result"),
        "Predictions by predicted class, or `value` for a regression.",
    ),
    MetricSpec(
        "inference_end_to_end_latency_seconds", "histogram", "seconds", ("pipeline",),
        "Record timestamp to commit returned (exactly_once) or acknowledged (at_least_once); a future timestamp is 0.",
        _LATENCY_S,
    ),
    MetricSpec("inference_batch_records", "histogram", "records", ("pipeline",), "Records in a micro-batch.", _ROWS),
    MetricSpec(
        "inference_batch_wait_seconds", "histogram", "seconds", ("pipeline",),
        "How long the oldest record of a batch waited in the batcher.", _FAST_S,
    ),
    MetricSpec(
        "inference_batches_total", "counter", "batches", ("pipeline", "cause"),
        "Batches by what made them due: records, bytes, age or drain.",
    ),
    MetricSpec(
        "inference_model_seconds", "histogram", "seconds", ("model", "version"),
        "Time in the model and its output checks, per batch; those that were taken together share it evenly.", _FAST_S,
    ),
    MetricSpec(
        "inference_cache_lookups_total", "counter", "rows", ("model", "version", "result"),
        "Rows looked up in the result cache: hit; miss; error if the shared store gave nothing usable in time; skipped "
        "if it was not asked, having failed before. The hit ratio is hit over all.",
    ),
    MetricSpec(
        "inference_prediction_confidence", "histogram", "share", ("pipeline", "version"),
        "Probability of the predicted class.", _SHARE,
    ),
    MetricSpec(
        "inference_model_load_seconds", "gauge", "seconds", ("model", "version"),
        "From the stored bytes to a verified and warm model.",
    ),
    MetricSpec(
        "inference_model_provider_info", "gauge", "1", ("model", "version", "provider"),
        "1 for the execution provider of ONNX Runtime that a loaded version prefers; operators that it has no kernel "
        "for run on the CPU all the same.",
    ),
    MetricSpec(
        "inference_answers_total", "counter", "records", ("pipeline", "model", "version", "answered_by", "outcome"),
        "Records by who answered (stable, canary, an arm's name, fallback), predicted or dead_lettered.",
    ),
    MetricSpec(
        "inference_model_failures_total", "counter", "batches", ("pipeline", "model", "version"),
        "Batches that a version failed on by its own fault: its golden rows failed as well.",
    ),
    MetricSpec(
        "inference_model_rows_total", "counter", "rows", ("model", "version", "outcome"),
        "Rows that were a version's to answer, committed or not: answered; failed, also if it was not asked because "
        "it had failed before; or bad_output.",
    ),
    MetricSpec(
        "inference_shadow_rows_total", "counter", "rows", ("pipeline", "model", "version", "result"),
        "Rows that stable answered and a shadow was to answer as well: agreed; disagreed; failed, for want of a usable "
        "answer; or dropped, never asked about for want of time, room or a process.",
    ),
    MetricSpec(
        "inference_shadow_seconds", "histogram", "seconds", ("pipeline", "model", "version"),
        "Time in a shadow's model and its output checks, per batch, as it would be in the worker at least: without "
        "what it waited for a processor, and divided by the threads of the worker's session, as it has one.",
        _FAST_S,
    ),
    MetricSpec(
        "inference_shadow_difference", "histogram", "1", ("pipeline", "model", "version"),
        "Largest absolute difference between a shadow's and stable's probabilities, or values, of a row.", _DIFFERENCE,
    ),
    MetricSpec(
        "inference_shadow_errors_total", "counter", "errors", ("pipeline", "model", "version", "error"),
        "What became of shadow processes, by error: ShadowCrashed, ShadowHung, ShadowGivenUp, what kept one from its "
        "work, or NotPublished for batches with comparisons that are not in the topic.",
    ),
    MetricSpec(
        "inference_model_info", "gauge", "1", ("pipeline", "model", "version", "digest", "part"),
        "1 for each loaded version, by its part: stable, canary, an arm's name, standby, or previous.",
    ),
    MetricSpec(
        "inference_rollout_revision", "gauge", "revision", ("pipeline", "model"),
        "The rollout page in force; of several processes, the oldest that one still serves by.",
        merge="min",
    ),
    MetricSpec(
        "inference_rollout_errors_total", "counter", "looks", ("model", "version", "error"),
        "Looks at the model store that found no usable page (no version), or a version that could not be used, by "
        "error; what was in force stays so.",
    ),
    MetricSpec(
        "inference_dead_letters_total", "counter", "records", ("pipeline", "stage", "reason"),
        "Dead letters by stage (decode, features, model, output) and reason.",
    ),
    MetricSpec(
        "inference_lag_records", "gauge", "records", ("topic", "partition"),
        "From the first unfinished record of an owned partition to its end; gone when the partition is revoked.",
    ),
    MetricSpec(
        "inference_lag_seconds", "gauge", "seconds", ("topic", "partition"),
        "Age of the oldest unfinished record, by its own timestamp; 0 when there is none, absent while unknown.",
    ),
    MetricSpec(
        "inference_transactions_total", "counter", "transactions", ("result",),
        "committed, aborted, or dropped when only the broker knows how it ended.",
    ),
    MetricSpec(
        "inference_offset_resets_total", "counter", "partitions", ("pipeline", "reason"),
        "Starts without a usable committed offset: no_committed_offset (a new group), or out_of_range "
        "(retention overtook the group, or the topic was made anew).",
    ),
    MetricSpec(
        "inference_records_missed_total", "counter", "records", ("pipeline",),
        "Offsets passed over by such a start: those records were never read.",
    ),
    MetricSpec(
        "inference_partition_changes_total", "counter", "changes", ("topic",),
        "A topic's number of partitions changed since the start; where outputs go did not follow.",
    ),
    MetricSpec(
        "inference_traced_batches_total", "counter", "batches", ("why",),
        "Batches that are traced: a record in it or a request was sampled by its sender, or by chance.",
    ),
    MetricSpec(
        "inference_spans_total", "counter", "spans", ("result",),
        "Spans that have ended: exported; failed, by the collector or on the way to it; or dropped, for want of room.",
    ),
    MetricSpec(
        "inference_waiting_partitions", "gauge", "partitions", ("pipeline",),
        "Owned partitions held back until the schema registry tells a writer schema.",
        merge="sum",
    ),
    MetricSpec("inference_rebalances_total", "counter", "rebalances", ("kind",), "assigned, revoked or lost."),
    MetricSpec(
        "inference_busy_ratio", "gauge", "share", (),
        "Share of the last second that the busiest pipeline's loop did not wait for records.",
        merge="mean",
    ),
    MetricSpec(
        "inference_capacity_records_per_second", "gauge", "records per second", (),
        "Records finished per busy second, smoothed, all pipelines together.",
        merge="sum",
    ),
    MetricSpec(
        "inference_buffered_bytes", "gauge", "bytes", ("pipeline",),
        "Record values read and not yet in a batch, the client's own queue not counted.",
        merge="sum",
    ),
    MetricSpec(
        "inference_slo_seconds", "gauge", "seconds", ("pipeline",),
        "The latency objective, `batch.slo_s`; this and the next three are absent without one.",
    ),
    MetricSpec(
        "inference_batch_cost_seconds", "gauge", "seconds", ("pipeline", "part"),
        "What a batch costs, as fitted: `fixed` of each batch, `per_record` of each record in it.",
    ),
    MetricSpec(
        "inference_delivery_seconds", "gauge", "seconds", ("pipeline",),
        "From a batch taken to durable, less what its steps took; a fading peak, which the objective sets aside.",
    ),
    MetricSpec(
        "inference_records_past_slo_total", "counter", "records", ("pipeline",),
        "Records finished later than the objective allows.",
    ),
    MetricSpec(
        "inference_requests_total", "counter", "requests", ("surface", "method", "code"),
        "Requests answered online, by route or method and by status; 499 hung up before the answer.",
    ),
    MetricSpec(
        "inference_request_seconds", "histogram", "seconds", ("surface", "method"),
        "From a request's head to its answer.", _LATENCY_S,
    ),
    MetricSpec(
        "inference_worker_processes", "gauge", "processes", ("state",),
        "Of `worker.processes`: ready, not_ready, or waiting to be started again; absent with a single one.",
    ),
    MetricSpec(
        "inference_process_restarts_total", "counter", "restarts", ("slot",),
        "Worker processes that were started again; a slot is the number in their transactional ids.",
    ),
)  # fmt: skip

# Of the process itself, by prometheus_client's own collector; where there is no /proc there are none.
PROCESS_TABLE = (
    MetricSpec(
        "process_cpu_seconds_total", "counter", "seconds", (), "CPU time, of the program and of the system for it."
    ),
    MetricSpec("process_resident_memory_bytes", "gauge", "bytes", (), "Memory in use.", merge="sum"),
    MetricSpec("process_virtual_memory_bytes", "gauge", "bytes", (), "Addresses in use.", merge="sum"),
    MetricSpec("process_start_time_seconds", "gauge", "seconds", (), "Since the epoch: when it was started."),
    MetricSpec("process_open_fds", "gauge", "files", (), "Open files and connections.", merge="sum"),
    MetricSpec("process_max_fds", "gauge", "files", (), "How many of these it may have.", merge="sum"),
)  # fmt: skip


def metrics_page() -> str:
    """docs/METRICS.md, generated from the table."""
    lines = [
        "# Metrics",
        "",
        "Generated from `app/observe/metrics.py` by `make docs`; `make check` compares. Served at `/metrics`.",
        "",
        "With several `worker.processes`, one page is served for all: counters and histograms are added up, with what",
        "ended processes had counted (up to a second of it is lost with one that is killed); gauges are merged as the",
        "table says.",
        "",
        "| name | type | unit | labels | meaning | merged |",
        "|---|---|---|---|---|---|",
    ]
    for spec in (*TABLE, *PROCESS_TABLE):
        labels = ", ".join(f"`{label}`" for label in spec.labels) or "none"
        merged = spec.merge if spec.kind == "gauge" else "sum"
        lines.append(f"| `{spec.name}` | {spec.kind} | {spec.unit} | {labels} | {spec.meaning} | {merged} |")
    lines += [
        "",
        "Group-wide figures (`inference_group_lag_records`, `inference_group_lag_seconds`,",
        "`inference_desired_replicas`) come from the lag exporter, which lives when no worker does: see below.",
        "",
    ]
    return "\n".join(lines)
