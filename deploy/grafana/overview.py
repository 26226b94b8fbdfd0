"""The first look: is it working, how fast, how far behind, and what is wrong."""

from deploy.grafana.board import GROUP, INSTANCE, PIPELINE, Board, row
from deploy.grafana.panels import GROUP as OF_GROUP
from deploy.grafana.panels import PIPELINE as OF_PIPELINE
from deploy.grafana.panels import (
    WORKER,
    WORKERS_PIPELINE,
    Limits,
    Query,
    graph,
    growth,
    listing,
    mean,
    number,
    percentile,
    percentiles,
    rate,
    total,
    worst,
)

RECORDS = rate("inference_records_total", WORKERS_PIPELINE)
DEAD = f"({rate('inference_dead_letters_total', WORKERS_PIPELINE)} or vector(0))"

DRIFTED = worst("inference_feature_drifted", OF_PIPELINE, "pipeline, version, feature")

BOARD = Board(
    uid="inference",
    title="Inference: overview",
    description="One look at the workers, their lag and what they predict.",
    variables=(PIPELINE, INSTANCE, GROUP),
    rows=(
        row(
            "Now",
            number(
                "Throughput",
                "Records finished a second: predicted, dead-lettered, expired or skipped; counted once committed.",
                Query(RECORDS),
                unit="recps",
            ),
            number(
                "End-to-end p99",
                "From the record's own timestamp to its commit.",
                Query(percentile(0.99, "inference_end_to_end_latency_seconds", WORKERS_PIPELINE)),
                unit="s",
                limits=Limits(1, 10),
                runbook="InferenceSLOBurnFast",
            ),
            number(
                "Lag of the group",
                "Age of the oldest record that nobody finished, of the partition that is furthest behind.",
                Query(f"max(inference_group_lag_seconds{{{OF_GROUP}}})"),
                unit="s",
                limits=Limits(30, 300),
                runbook="InferenceLagHigh",
            ),
            number(
                "Dead letters",
                "Their share of the records.",
                Query(f"{DEAD} / {RECORDS}"),
                unit="percentunit",
                limits=Limits(0.01, 0.05),
                runbook="InferenceDeadLetterRate",
            ),
            number(
                "Workers",
                "That answer Prometheus.",
                Query('sum(up{job="worker"})'),
                unit="short",
                limits=Limits(1, 1, falling=True),
                runbook="InferenceWorkerDown",
            ),
            number(
                "Alerts",
                "That are firing.",
                Query('count(ALERTS{alertname=~"Inference.+",alertstate="firing"}) or vector(0)'),
                unit="short",
                limits=Limits(1, 3),
            ),
        ),
        row(
            "Work",
            graph(
                "Records",
                "A second, by what became of them; counted once committed.",
                Query(
                    rate("inference_records_total", WORKERS_PIPELINE, "pipeline, outcome"),
                    "{{pipeline}} {{outcome}}",
                ),
                unit="recps",
                stacked=True,
            ),
            graph(
                "End-to-end latency",
                "From the record's own timestamp to its commit. A backlog shows here as its age.",
                *percentiles("inference_end_to_end_latency_seconds", WORKERS_PIPELINE),
                unit="s",
                limits=Limits(1, 10),
                runbook="InferenceSLOBurnFast",
            ),
        ),
        row(
            "Backlog and replicas",
            graph(
                "Lag in seconds",
                "Age of the oldest unfinished record, from the lag exporter: with or without workers.",
                Query(worst("inference_group_lag_seconds", OF_GROUP, "group"), "{{group}}"),
                unit="s",
                limits=Limits(30, 300),
                width=8,
                runbook="InferenceLagHigh",
            ),
            graph(
                "Lag in records",
                "Records that nobody finished, of all partitions.",
                Query(total("inference_group_lag_records", OF_GROUP, "group"), "{{group}}"),
                unit="short",
                width=8,
                runbook="InferenceLagGrowing",
            ),
            graph(
                "Processes",
                "In the group, and wanted by the scaling signal.",
                Query(worst("inference_group_processes", OF_GROUP, "group"), "{{group}} has"),
                Query(worst("inference_desired_replicas", OF_GROUP, "group"), "{{group}} wants"),
                unit="short",
                width=8,
                runbook="InferenceReplicasAtCap",
            ),
        ),
        row(
            "Versions and trouble",
            graph(
                "Answers by version",
                "A second, by version and part of the rollout: stable, canary, an arm, fallback.",
                Query(
                    rate("inference_answers_total", WORKERS_PIPELINE, "model, version, answered_by"),
                    "{{model}} {{version}} {{answered_by}}",
                ),
                unit="recps",
                stacked=True,
                width=8,
            ),
            graph(
                "Dead letters by reason",
                "A second. The reasons are a closed list.",
                Query(rate("inference_dead_letters_total", WORKERS_PIPELINE, "reason"), "{{reason}}"),
                unit="recps",
                stacked=True,
                width=8,
                runbook="InferenceDeadLetterRate",
            ),
            graph(
                "Starts and rebalances",
                "Processes started, and changes of who owns partitions, in ten minutes.",
                Query(f"sum(changes(process_start_time_seconds{{{WORKER}}}[10m]))", "starts"),
                Query(growth("inference_rebalances_total", WORKER, "10m", "kind"), "{{kind}}"),
                unit="short",
                width=8,
                runbook="InferenceWorkerRestarts",
            ),
            graph(
                "Busy",
                "Share of the last second that a worker's loop did not wait for records; at 1 it can do no more.",
                Query(f"inference_busy_ratio{{{WORKER}}}", "{{instance}}"),
                unit="percentunit",
                limits=Limits(0.8, 0.95),
                most=1,
                width=8,
            ),
            graph(
                "Confidence",
                "Mean probability of the predicted class, by version.",
                Query(
                    mean("inference_prediction_confidence", WORKERS_PIPELINE, "pipeline, version"),
                    "{{pipeline}} {{version}}",
                ),
                unit="percentunit",
                most=1,
                width=8,
                runbook="InferenceConfidenceCollapse",
            ),
            listing(
                "Firing alerts",
                "Each has a page in the runbooks.",
                Query(
                    "count by (severity, alertname, pipeline, group, instance) "
                    '(ALERTS{alertname=~"Inference.+",alertstate="firing"})'
                ),
                columns=("severity", "alertname", "pipeline", "group", "instance"),
                value="alerts",
                width=8,
            ),
        ),
        row(
            "Watching",
            graph(
                "Features that drifted",
                "By version, of the monitor's last complete window.",
                Query(
                    f"sum by (pipeline, version) ({DRIFTED})",
                    "{{pipeline}} {{version}}",
                ),
                unit="short",
                runbook="InferenceFeatureDrift",
            ),
            graph(
                "Requests",
                "Answered online, a second, by surface.",
                Query("sum by (surface) (rate(inference_requests_total[$__rate_interval]))", "{{surface}}"),
                unit="reqps",
                runbook="InferenceServerErrors",
            ),
        ),
    ),
)
