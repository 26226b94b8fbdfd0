"""Where the time goes, and what batches look like."""

from deploy.grafana.board import INSTANCE, PIPELINE, Board, row
from deploy.grafana.panels import PIPELINE as PIPELINES
from deploy.grafana.panels import (
    WORKER,
    WORKERS_PIPELINE,
    Built,
    Limits,
    Query,
    graph,
    mean,
    number,
    percentile,
    percentiles,
    rate,
    worst,
)
from deploy.grafana.resources import buffered

ALLOWED = 0.01  # late, of all records: 99 % in time, as in deploy/prometheus/slo.rules.yaml


def spent(window: str) -> str:
    """The share of late records, recorded by the rules."""
    return worst(f"pipeline:inference_late_records:ratio_rate{window}", PIPELINES, "pipeline")


LATE = rate("inference_records_past_slo_total", WORKERS_PIPELINE, "pipeline")


def end_to_end() -> Built:
    """The latency that is promised."""
    return graph(
        "End-to-end latency",
        "From the record's own timestamp to its commit (exactly once), or acknowledged (at least once). A backlog "
        "shows here as its age.",
        *percentiles("inference_end_to_end_latency_seconds", WORKERS_PIPELINE),
        unit="s",
        limits=Limits(1, 10),
        runbook="InferenceSLOBurnFast",
    )


BOARD = Board(
    uid="inference-latency",
    title="Inference: latency and batches",
    description="End-to-end latency, its objective and its stages, and the batches that trade it for throughput.",
    variables=(PIPELINE, INSTANCE),
    rows=(
        row(
            "End to end",
            end_to_end(),
            graph(
                "p99 by worker",
                "One worker far above the others has a slow machine, or a partition with a backlog.",
                Query(
                    percentile(0.99, "inference_end_to_end_latency_seconds", WORKERS_PIPELINE, "instance"),
                    "{{instance}}",
                ),
                unit="s",
            ),
        ),
        row(
            "Objective",
            number(
                "Within it, last hour",
                "Share of the records that were durable in time: in `batch.slo_s`, or 1 s where there is none.",
                Query(f"1 - max({spent('1h')})"),
                unit="percentunit",
                limits=Limits(0.99, 0.995, falling=True),
                height=8,
                runbook="InferenceSLOBurnFast",
            ),
            number(
                "Error budget spent an hour",
                "As a multiple of what lasts for 30 days; above 14.4 somebody is woken.",
                Query(f"max({spent('1h')}) / {ALLOWED}"),
                unit="short",
                limits=Limits(1, 14.4),
                height=8,
                runbook="InferenceSLOBurnFast",
            ),
            graph(
                "Burn rate",
                "Late records as a multiple of what the objective allows. Two windows agree before an alert.",
                *(Query(f"{spent(window)} / {ALLOWED}", f"{{{{pipeline}}}} {window}") for window in ("5m", "1h", "6h")),
                unit="short",
                limits=Limits(6, 14.4),
                width=8,
                runbook="InferenceSLOBurnFast",
            ),
            graph(
                "Late records",
                "Finished later than `batch.slo_s`, a second; absent without an objective.",
                Query(LATE, "{{pipeline}}"),
                unit="recps",
                width=8,
            ),
        ),
        row(
            "Stages",
            graph(
                "Waiting for a batch",
                "How long the oldest record of a batch waited in the batcher.",
                *percentiles("inference_batch_wait_seconds", WORKERS_PIPELINE),
                unit="s",
                width=8,
            ),
            graph(
                "In the model",
                "Per batch, with the checks of its outputs.",
                *percentiles("inference_model_seconds", WORKER),
                unit="s",
                width=8,
            ),
            graph(
                "Until durable",
                "From a batch taken to its outcome durable, less what its steps took; a fading peak, set aside by the "
                "objective. Absent without one.",
                Query(worst("inference_delivery_seconds", WORKERS_PIPELINE, "pipeline"), "{{pipeline}}"),
                unit="s",
                width=8,
            ),
        ),
        row(
            "Batches",
            graph(
                "Size",
                "Records in a batch.",
                Query(mean("inference_batch_records", WORKERS_PIPELINE, "pipeline"), "{{pipeline}} mean"),
                Query(percentile(0.95, "inference_batch_records", WORKERS_PIPELINE, "pipeline"), "{{pipeline}} p95"),
                unit="short",
                width=8,
            ),
            graph(
                "Cause",
                "Batches a second by what made them due: full by records or bytes, old, or draining. Mostly `age`: "
                "there is room; mostly `records`: a backlog is worked off.",
                Query(rate("inference_batches_total", WORKERS_PIPELINE, "cause"), "{{cause}}"),
                unit="cps",
                stacked=True,
                width=8,
            ),
            buffered(),
        ),
        row(
            "The objective's controller (only with batch.slo_s)",
            graph(
                "Objective and where it goes",
                "The objective, what delivery takes of it, and what a batch of the mean size costs as fitted.",
                Query(worst("inference_slo_seconds", WORKERS_PIPELINE, "pipeline"), "{{pipeline}} objective"),
                Query(worst("inference_delivery_seconds", WORKERS_PIPELINE, "pipeline"), "{{pipeline}} delivery"),
                Query(
                    f'max by (pipeline) (inference_batch_cost_seconds{{{WORKERS_PIPELINE},part="fixed"}})'
                    f' + max by (pipeline) (inference_batch_cost_seconds{{{WORKERS_PIPELINE},part="per_record"}})'
                    f" * {mean('inference_batch_records', WORKERS_PIPELINE, 'pipeline')}",
                    "{{pipeline}} batch",
                ),
                unit="s",
            ),
            graph(
                "Cost of a batch, as fitted",
                "Fixed, of each batch, and of each record in it.",
                Query(
                    worst("inference_batch_cost_seconds", WORKERS_PIPELINE, "pipeline, part"),
                    "{{pipeline}} {{part}}",
                ),
                unit="s",
            ),
        ),
        row(
            "Throughput",
            graph(
                "Records by worker",
                "Finished a second.",
                Query(rate("inference_records_total", WORKERS_PIPELINE, "instance"), "{{instance}}"),
                unit="recps",
                stacked=True,
            ),
            graph(
                "What they could do",
                "Records finished per busy second, smoothed: what each worker could do, once there is a backlog.",
                Query(f"inference_capacity_records_per_second{{{WORKER}}}", "{{instance}}"),
                Query(f"avg({rate('inference_records_total', WORKERS_PIPELINE, 'instance')})", "done by one, mean"),
                unit="recps",
            ),
        ),
    ),
)
