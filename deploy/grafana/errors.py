"""What went wrong: dead letters, transactions, rebalances, restarts, and what was passed over."""

from deploy.grafana.board import INSTANCE, PIPELINE, Board, row
from deploy.grafana.panels import (
    OR_NONE,
    OUTCOMES,
    WORKER,
    WORKERS_PIPELINE,
    Limits,
    Query,
    graph,
    growth,
    number,
    rate,
    total,
)

RECORDS = rate("inference_records_total", WORKERS_PIPELINE)
BOTH = 'job=~"worker|server"'
DEAD_SHARE = f"({rate('inference_dead_letters_total', WORKERS_PIPELINE)}{OR_NONE}) / {RECORDS}"

BOARD = Board(
    uid="inference-errors",
    title="Inference: errors and dead letters",
    description="Records that got no prediction, and work that had to be done again.",
    variables=(PIPELINE, INSTANCE),
    rows=(
        row(
            "In the last hour",
            number(
                "Dead letters",
                "Records in the dead-letter topics.",
                Query(growth("inference_dead_letters_total", WORKERS_PIPELINE, "1h") + OR_NONE),
                unit="short",
                width=6,
                runbook="InferenceDeadLetterRate",
            ),
            number(
                "Never read",
                "Records that a start without a usable committed offset passed over.",
                Query(growth("inference_records_missed_total", WORKERS_PIPELINE, "1h") + OR_NONE),
                unit="short",
                limits=Limits(1, 1),
                width=6,
                runbook="InferenceRecordsMissed",
            ),
            number(
                "Starts",
                "Processes that were started again.",
                Query(f"sum(changes(process_start_time_seconds{{{WORKER}}}[1h]))"),
                unit="short",
                limits=Limits(1, 3),
                width=6,
                runbook="InferenceWorkerRestarts",
            ),
            number(
                "Transactions aborted",
                "Share of all that ended.",
                Query(
                    f'(sum(increase(inference_transactions_total{{{WORKER},result!="committed"}}[1h])) or vector(0))'
                    f" / sum(increase(inference_transactions_total{{{WORKER}}}[1h]))"
                ),
                unit="percentunit",
                limits=Limits(0.01, 0.1),
                width=6,
                runbook="InferenceTransactionsAborting",
            ),
        ),
        row(
            "Dead letters",
            graph(
                "By stage and reason",
                "A second.",
                Query(
                    rate("inference_dead_letters_total", WORKERS_PIPELINE, "pipeline, stage, reason"),
                    "{{pipeline}} {{stage}} {{reason}}",
                ),
                unit="recps",
                stacked=True,
                runbook="InferenceDeadLetterRate",
            ),
            graph(
                "Share of the records",
                "A flood beyond `dead_letter_limit` stops the worker.",
                Query(DEAD_SHARE, "dead letters"),
                unit="percentunit",
                limits=Limits(0.01, 0.05),
                runbook="InferenceDeadLetterRate",
            ),
        ),
        row(
            "Transactions and rebalances",
            graph(
                "Transactions",
                "A second, by how they ended; dropped: only the broker knows.",
                Query(rate("inference_transactions_total", WORKER, "result"), "{{result}}"),
                unit="cps",
                colours=OUTCOMES,
                width=8,
                runbook="InferenceTransactionsAborting",
            ),
            graph(
                "Rebalances",
                "In ten minutes, by worker and kind. Each costs the moved partitions a pause.",
                Query(
                    growth("inference_rebalances_total", WORKER, "10m", "instance, kind"),
                    "{{instance}} {{kind}}",
                ),
                unit="short",
                width=8,
                runbook="InferenceRebalanceStorm",
            ),
            graph(
                "Starts",
                "Of each worker, in ten minutes; and slots that a supervisor started again.",
                Query(f"changes(process_start_time_seconds{{{WORKER}}}[10m])", "{{instance}}"),
                Query(growth("inference_process_restarts_total", WORKER, "10m", "slot"), "slot {{slot}}"),
                unit="short",
                width=8,
                runbook="InferenceWorkerRestarts",
            ),
        ),
        row(
            "What waits, and what was passed over",
            graph(
                "Partitions that wait for a schema",
                "Held back until the schema registry tells a writer schema.",
                Query(total("inference_waiting_partitions", WORKERS_PIPELINE, "pipeline"), "{{pipeline}}"),
                unit="short",
                limits=Limits(1, 1),
                width=6,
                runbook="InferenceSchemaRegistryUnavailable",
            ),
            graph(
                "Starts without an offset",
                "Partitions in an hour: a new group, or retention overtook the committed one.",
                Query(
                    growth("inference_offset_resets_total", WORKERS_PIPELINE, "1h", "pipeline, reason"),
                    "{{pipeline}} {{reason}}",
                ),
                unit="short",
                width=6,
                runbook="InferenceRecordsMissed",
            ),
            graph(
                "Records never read",
                "Passed over by such a start, a second.",
                Query(rate("inference_records_missed_total", WORKERS_PIPELINE, "pipeline"), "{{pipeline}}"),
                unit="recps",
                width=6,
                runbook="InferenceRecordsMissed",
            ),
            graph(
                "Partition counts changed",
                "Of a topic since the workers' start; where outputs go did not follow.",
                Query(f"max by (topic) (increase(inference_partition_changes_total{{{WORKER}}}[1h]))", "{{topic}}"),
                unit="short",
                width=6,
                runbook="InferencePartitionsChanged",
            ),
        ),
        row(
            "Models",
            graph(
                "Rows without a usable answer",
                "A second: failed, or with outputs that no check passes.",
                Query(
                    rate("inference_model_rows_total", f'{WORKER},outcome!="answered"', "model, version, outcome"),
                    "{{model}} {{version}} {{outcome}}",
                ),
                unit="rowsps",
                runbook="InferenceModelFails",
            ),
            graph(
                "Looks at the model store that failed",
                "A second. What was in force stays so.",
                Query(
                    rate("inference_rollout_errors_total", WORKER, "model, version, error"),
                    "{{model}} {{version}} {{error}}",
                ),
                unit="cps",
                runbook="InferenceModelUnusable",
            ),
        ),
        row(
            "Traces (only with a collector)",
            graph(
                "Traced batches",
                "A second, of workers and servers, by why: its sender sampled it, or chance did.",
                Query(rate("inference_traced_batches_total", BOTH, "job, why"), "{{job}} {{why}}"),
                unit="cps",
            ),
            graph(
                "Spans",
                "A second, by what became of them: failed at the collector or on the way, or dropped for want of room.",
                Query(rate("inference_spans_total", BOTH, "job, result"), "{{job}} {{result}}"),
                unit="cps",
            ),
        ),
    ),
)
