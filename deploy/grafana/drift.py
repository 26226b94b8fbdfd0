"""What the monitor makes of the predictions: drift of the features, shape of the answers, accuracy by outcomes."""

from deploy.grafana.board import MODEL, PIPELINE, VERSION, Board, row
from deploy.grafana.panels import MODEL as OF_MODEL
from deploy.grafana.panels import PIPELINE as OF_PIPELINE
from deploy.grafana.panels import RATE, Limits, Query, graph, listing, rate, worst

BOTH = f"{OF_PIPELINE},{OF_MODEL}"
VERSIONS = "{{pipeline}} {{version}}"
FEATURES = "{{version}} {{feature}}"


def _features(metric: str) -> Query:
    """The monitor instance that has a partition shows its versions; while it moves two may, and the larger counts."""
    return Query(f"max by (pipeline, version, feature) ({metric}{{{BOTH}}})", FEATURES)


def _versions(metric: str, legend: str = VERSIONS, by: str = "") -> Query:
    return Query(f"max by (pipeline, version{by}) ({metric}{{{BOTH}}})", legend)


def _seen(kind: str) -> Query:
    """Without the features that have none: three lines each are more than a legend holds."""
    share = worst(f"inference_feature_{kind}_share", BOTH, "version, feature")
    return Query(f"{share} > 0", f"{FEATURES} {kind}")


BOARD = Board(
    uid="inference-drift",
    title="Inference: drift and accuracy",
    description="Of the last complete window of each version, and of the predictions whose outcome is known.",
    variables=(PIPELINE, MODEL, VERSION),
    rows=(
        row(
            "Features beside training",
            listing(
                "Drifted",
                "Chance did not do it, and it is large enough to matter.",
                Query(worst("inference_feature_drifted", BOTH, "pipeline, model, version, feature") + " == 1"),
                columns=("pipeline", "model", "version", "feature"),
                value="drifted",
                width=8,
                runbook="InferenceFeatureDrift",
            ),
            graph(
                "Population stability index",
                "Against training; a category is looked at from 0.02 on, 0.25 is commonly called large.",
                _features("inference_feature_psi"),
                unit="short",
                limits=Limits(0.1, 0.25),
                width=8,
                runbook="InferenceFeatureDrift",
            ),
            graph(
                "Kolmogorov-Smirnov distance",
                "Largest distance between the distribution functions, binned.",
                _features("inference_feature_ks"),
                unit="percentunit",
                width=8,
            ),
            graph(
                "Shift of the mean",
                "In standard deviations of the training data, without its sign.",
                Query(f"max by (pipeline, version, feature) (abs(inference_feature_mean_shift{{{BOTH}}}))", FEATURES),
                unit="short",
                width=8,
            ),
            graph(
                "Standard deviation",
                "In the feature's unit.",
                _features("inference_feature_std"),
                unit="short",
                width=8,
            ),
            graph(
                "Missing, unknown, outside",
                "Rows without a value, with a category not in training, with a value beyond all of training's.",
                _seen("missing"),
                _seen("unknown"),
                _seen("outside"),
                unit="percentunit",
                width=8,
            ),
        ),
        row(
            "Predictions of the window",
            graph(
                "Class shares",
                "Of the window's predictions.",
                _versions("inference_class_share", "{{pipeline}} {{version}} → {{class}}", ", class"),
                unit="percentunit",
                most=1,
                width=8,
                runbook="InferenceClassShareJump",
            ),
            graph(
                "Confidence",
                "Mean, and the share of predictions below `monitoring.low_confidence`.",
                _versions("inference_mean_confidence", f"{VERSIONS} mean"),
                _versions("inference_low_confidence_share", f"{VERSIONS} low"),
                unit="percentunit",
                most=1,
                width=8,
                runbook="InferenceConfidenceCollapse",
            ),
            graph(
                "Latency, event to prediction",
                "As the monitor sums it up.",
                _versions("inference_window_latency_seconds", f"{VERSIONS} {{{{quantile}}}}", ", quantile"),
                unit="s",
                width=8,
            ),
            graph(
                "Predictions in the window",
                "Below `monitor.drift.min_rows` a window is not judged.",
                _versions("inference_window_predictions"),
                unit="short",
                width=8,
            ),
            graph(
                "Predictions since the beginning",
                "Each counted once, as far as summaries told of them.",
                _versions("inference_monitor_predictions"),
                unit="short",
                width=8,
            ),
            graph(
                "Age of the newest window",
                "Seconds since its end. It grows while nothing is predicted, or if the monitor stands still.",
                Query(f"time() - max by (pipeline, version) (inference_window_end_seconds{{{BOTH}}})", VERSIONS),
                unit="s",
                width=8,
                runbook="InferenceMonitorSilent",
            ),
        ),
        row(
            "Outcomes",
            graph(
                "Accuracy",
                "Right answers of those judged, with the 95 % interval.",
                _versions("inference_accuracy", f"{VERSIONS} {{{{bound}}}}", ", bound"),
                unit="percentunit",
                most=1,
                width=8,
                runbook="InferenceAccuracyDrop",
            ),
            graph(
                "AUC and calibration error",
                "Of those judged, two classes.",
                _versions("inference_auc", f"{VERSIONS} AUC"),
                _versions("inference_calibration_error", f"{VERSIONS} calibration error"),
                unit="percentunit",
                most=1,
                width=8,
            ),
            graph("Log loss", "Of those judged.", _versions("inference_log_loss"), unit="short", width=8),
            graph(
                "Judged",
                "Predictions in the outcome window.",
                _versions("inference_outcomes"),
                unit="short",
                width=8,
            ),
            graph(
                "Becoming known",
                "Right and wrong, a second.",
                Query(
                    rate("inference_judged_rows_total", BOTH, "pipeline, version, result"),
                    f"{VERSIONS} {{{{result}}}}",
                ),
                unit="rowsps",
                stacked=True,
                width=8,
            ),
            graph(
                "Joining",
                "Sampled predictions and outcomes, a second: paired, waiting, doubled, too late.",
                Query(
                    rate("inference_monitor_outcomes_total", OF_PIPELINE, "pipeline, result"),
                    "{{pipeline}} {{result}}",
                ),
                unit="recps",
                width=8,
            ),
        ),
        row(
            "The monitor itself",
            graph(
                "Behind",
                "Records of its topics that it has not taken in.",
                Query("sum by (topic) (inference_monitor_lag_records)", "{{topic}}"),
                unit="short",
                width=6,
                runbook="InferenceMonitorBehind",
            ),
            graph(
                "Summaries",
                "Read a second: taken, or late.",
                Query(
                    f"sum by (topic, result) (rate(inference_monitor_summaries_total[{RATE}]))",
                    "{{topic}} {{result}}",
                ),
                unit="cps",
                width=6,
            ),
            graph(
                "Not usable",
                "Records a second, by reason.",
                Query(
                    f"sum by (topic, reason) (rate(inference_monitor_rejected_total[{RATE}]))",
                    "{{topic}} {{reason}}",
                ),
                unit="recps",
                width=6,
            ),
            graph(
                "Sample",
                "Share of the keys that outcomes are joined with.",
                Query(worst("inference_outcome_sample_share", OF_PIPELINE, "pipeline"), "{{pipeline}}"),
                unit="percentunit",
                most=1,
                width=6,
            ),
        ),
    ),
)
