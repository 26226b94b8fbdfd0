"""Which versions answer, how well, and what the next one would have said."""

from deploy.grafana.board import MODEL, PIPELINE, VERSION, Board, row
from deploy.grafana.panels import MODEL as OF_MODEL
from deploy.grafana.panels import OUTCOMES, RATE, Limits, Query, graph, growth, listing, mean, percentile, rate, worst
from deploy.grafana.panels import PIPELINE as OF_PIPELINE

BOTH = f"{OF_PIPELINE},{OF_MODEL}"
BY_VERSION = "{{model}} {{version}}"
OF_A_VERSION = "pipeline, model, version"
FAILED = rate("inference_model_rows_total", f'{OF_MODEL},outcome!="answered"', "model, version")
ASKED = rate("inference_model_rows_total", OF_MODEL, "model, version")

BOARD = Board(
    uid="inference-models",
    title="Inference: models and rollouts",
    description="Versions in use, canary beside stable, shadows, caches, loading.",
    variables=(PIPELINE, MODEL, VERSION),
    rows=(
        row(
            "In force",
            listing(
                "Versions loaded",
                "By part of the rollout, with the number of workers that have them.",
                Query(f"count by (pipeline, model, version, part, digest) (inference_model_info{{{BOTH}}})"),
                columns=("pipeline", "model", "version", "part", "digest"),
                value="workers",
            ),
            graph(
                "Rollout page in force",
                "Its revision, of the workers furthest ahead and furthest behind; they differ for two seconds, or "
                "longer if one cannot read the store.",
                Query(
                    f'max by (pipeline, model) (inference_rollout_revision{{{OF_PIPELINE},model=~"$model"}})',
                    "{{pipeline}} {{model}} newest",
                ),
                Query(
                    f'min by (pipeline, model) (inference_rollout_revision{{{OF_PIPELINE},model=~"$model"}})',
                    "{{pipeline}} {{model}} oldest",
                ),
                unit="short",
                width=6,
                runbook="InferenceModelUnusable",
            ),
            graph(
                "Looks at the store that failed",
                "A second. Without a version: the page itself could not be read. What was in force stays so.",
                Query(
                    f'sum by (model, version, error) (rate(inference_rollout_errors_total{{model=~"$model"}}[{RATE}]))',
                    "{{model}} {{version}} {{error}}",
                ),
                unit="cps",
                width=6,
                runbook="InferenceModelUnusable",
            ),
        ),
        row(
            "Answers",
            graph(
                "Share of the traffic",
                "By who answered: stable, canary, an arm, or a fallback.",
                Query(
                    f"{rate('inference_answers_total', BOTH, 'pipeline, version, answered_by')}"
                    f" / on (pipeline) group_left () {rate('inference_answers_total', BOTH, 'pipeline')}",
                    "{{pipeline}} {{version}} {{answered_by}}",
                ),
                unit="percentunit",
                stacked=True,
                most=1,
                width=8,
            ),
            graph(
                "Predictions by class",
                "Of each version, a second.",
                Query(
                    rate("inference_predictions_total", BOTH, "pipeline, version, result"),
                    "{{pipeline}} {{version}} → {{result}}",
                ),
                unit="recps",
                stacked=True,
                width=8,
                runbook="InferenceClassShareJump",
            ),
            graph(
                "Confidence",
                "Mean probability of the predicted class.",
                Query(
                    mean(
                        "inference_prediction_confidence",
                        f'{OF_PIPELINE},version=~"$version"',
                        "pipeline, version",
                    ),
                    "{{pipeline}} {{version}}",
                ),
                unit="percentunit",
                most=1,
                width=8,
                runbook="InferenceConfidenceCollapse",
            ),
        ),
        row(
            "Canary beside stable",
            graph(
                "Rows that got no usable answer",
                "Share of the rows that were a version's to answer: failed, or with outputs that no check passes.",
                Query(f"({FAILED} or 0 * {ASKED}) / {ASKED}", BY_VERSION),
                unit="percentunit",
                limits=Limits(0.001, 0.01),
                width=8,
                runbook="InferenceCanaryFails",
            ),
            graph(
                "Time in the model",
                "p95 of a batch.",
                Query(percentile(0.95, "inference_model_seconds", OF_MODEL, "model, version"), BY_VERSION),
                unit="s",
                width=8,
                runbook="InferenceCanarySlower",
            ),
            graph(
                "Right answers",
                "Of the sampled predictions whose outcome became known, by version; from the monitor.",
                Query(
                    growth("inference_judged_rows_total", f'{BOTH},result="right"', "30m", OF_A_VERSION)
                    + " / "
                    + growth("inference_judged_rows_total", BOTH, "30m", OF_A_VERSION),
                    "{{pipeline}} {{version}}",
                ),
                unit="percentunit",
                most=1,
                width=8,
                runbook="InferenceCanaryLessAccurate",
            ),
        ),
        row(
            "Shadow",
            graph(
                "Rows compared",
                "A second: agreed, disagreed, failed, or dropped for want of time or room.",
                Query(rate("inference_shadow_rows_total", BOTH, "version, result"), "{{version}} {{result}}"),
                unit="rowsps",
                stacked=True,
                width=6,
            ),
            graph(
                "Difference to stable",
                "Largest absolute difference of a row's numbers, p95.",
                Query(percentile(0.95, "inference_shadow_difference", BOTH, "version"), "{{version}}"),
                unit="short",
                width=6,
            ),
            graph(
                "Time in the shadow",
                "p95 of a batch, as it would be in the worker.",
                Query(percentile(0.95, "inference_shadow_seconds", BOTH, "version"), "{{version}}"),
                unit="s",
                width=6,
            ),
            graph(
                "Shadow processes lost",
                "A second, by what became of them.",
                Query(rate("inference_shadow_errors_total", BOTH, "version, error"), "{{version}} {{error}}"),
                unit="cps",
                width=6,
            ),
        ),
        row(
            "Loading, running, remembering",
            graph(
                "Time to load",
                "From the stored bytes to a verified and warm model.",
                Query(worst("inference_model_load_seconds", OF_MODEL, "model, version"), BY_VERSION),
                unit="s",
                width=8,
            ),
            listing(
                "Execution providers",
                "What a loaded version prefers to run on.",
                Query(f"count by (model, version, provider) (inference_model_provider_info{{{OF_MODEL}}})"),
                columns=("model", "version", "provider"),
                value="workers",
                width=8,
            ),
            graph(
                "Cache",
                "Share of the looked-up rows that were there; and those its shared store failed on.",
                Query(
                    rate("inference_cache_lookups_total", OF_MODEL, "result")
                    + " / on () group_left () "
                    + rate("inference_cache_lookups_total", OF_MODEL),
                    "{{result}}",
                ),
                unit="percentunit",
                stacked=True,
                colours=OUTCOMES,
                most=1,
                width=8,
            ),
            graph(
                "Batches that a version failed on",
                "By its own fault, its golden rows failed as well; a second.",
                Query(rate("inference_model_failures_total", BOTH, "pipeline, model, version"), BY_VERSION),
                unit="cps",
                width=24,
                runbook="InferenceModelFails",
            ),
        ),
    ),
)
