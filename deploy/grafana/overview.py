"""The first look: is it working, how fast, how far behind, and what is wrong.

A panel that is on a board of its own subject as well is made there.
"""

from deploy.grafana import lag, latency, resources
from deploy.grafana.board import GROUP, INSTANCE, PIPELINE, Board, row
from deploy.grafana.errors import DEAD_SHARE, RECORDS
from deploy.grafana.panels import (
    FIRING,
    OR_NONE,
    OUTCOMES,
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
    rate,
    worst,
)
from deploy.grafana.panels import GROUP as OF_GROUP
from deploy.grafana.panels import PIPELINE as OF_PIPELINE

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
                Query(RECORDS + OR_NONE),
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
            lag.seconds_now(width=4),
            number(
                "Dead letters",
                "Their share of the records.",
                Query(DEAD_SHARE),
                unit="percentunit",
                limits=Limits(0.01, 0.05),
                runbook="InferenceDeadLetterRate",
            ),
            number(
                "Workers",
                "That answer Prometheus.",
                Query('sum(up{job="worker"})' + OR_NONE),
                unit="short",
                limits=Limits(1, 1, falling=True),
                runbook="InferenceWorkerDown",
            ),
            number(
                "Alerts",
                "That are firing.",
                Query(f"count({FIRING}){OR_NONE}"),
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
                colours=OUTCOMES,
            ),
            latency.end_to_end(),
        ),
        row(
            "Backlog and replicas",
            lag.in_seconds(width=8),
            lag.in_records(width=8),
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
            resources.busy(),
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
                "Each leads to its page in the runbooks.",
                Query(f"count by (severity, alertname, pipeline, group, instance) ({FIRING})"),
                columns=("severity", "alertname", "pipeline", "group", "instance"),
                value="alerts",
                widest={"alertname": 230},
                runbook_of="alertname",
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
