"""How far behind the groups are, who works on it, and how many should."""

from deploy.grafana.board import GROUP, INSTANCE, PIPELINE, Board, row
from deploy.grafana.panels import GROUP as OF_GROUP
from deploy.grafana.panels import (
    WORKER,
    WORKERS_PIPELINE,
    Built,
    Limits,
    Query,
    graph,
    listing,
    number,
    rate,
    total,
    worst,
)


def seconds_now(width: int) -> Built:
    """The lag that people ask about first."""
    return number(
        "Lag, seconds",
        "Age of the oldest record that nobody finished, of the partition that is furthest behind.",
        Query(f"max(inference_group_lag_seconds{{{OF_GROUP}}})"),
        unit="s",
        limits=Limits(30, 300),
        width=width,
        runbook="InferenceLagHigh",
    )


def in_seconds(width: int) -> Built:
    """By group, with or without workers: it comes from the lag exporter."""
    return graph(
        "Lag in seconds",
        "Age of the oldest unfinished record, of the partition furthest behind, from the lag exporter.",
        Query(worst("inference_group_lag_seconds", OF_GROUP, "group"), "{{group}}"),
        unit="s",
        limits=Limits(30, 300),
        width=width,
        runbook="InferenceLagHigh",
    )


def in_records(width: int) -> Built:
    """By group, as well."""
    return graph(
        "Lag in records",
        "Of all partitions; transaction markers and what retention took are not counted.",
        Query(total("inference_group_lag_records", OF_GROUP, "group"), "{{group}}"),
        unit="short",
        width=width,
        runbook="InferenceLagGrowing",
    )


BOARD = Board(
    uid="inference-lag",
    title="Inference: lag and scaling",
    description="Group-wide lag from the lag exporter, lag as the workers see it, and the scaling signal.",
    variables=(GROUP, PIPELINE, INSTANCE),
    rows=(
        row(
            "Now",
            seconds_now(width=6),
            number(
                "Lag, records",
                "Of all groups and partitions.",
                Query(f"sum(inference_group_lag_records{{{OF_GROUP}}})"),
                unit="short",
                width=6,
                runbook="InferenceLagGrowing",
            ),
            number(
                "Processes",
                "Of the groups, now.",
                Query(f"sum(inference_group_processes{{{OF_GROUP}}})"),
                unit="short",
                limits=Limits(1, 1, falling=True),
                width=6,
                runbook="InferenceGroupEmpty",
            ),
            number(
                "Wanted",
                "Processes that the scaling signal asks for.",
                Query(f"sum(inference_desired_replicas{{{OF_GROUP}}})"),
                unit="short",
                width=6,
                runbook="InferenceReplicasAtCap",
            ),
        ),
        row(
            "Groups",
            in_seconds(width=12),
            in_records(width=12),
            graph(
                "Seconds by partition",
                "One line above the others: a hot key, or a stuck owner.",
                Query(
                    worst("inference_group_lag_seconds", OF_GROUP, "group, topic, partition"),
                    "{{topic}} {{partition}}",
                ),
                unit="s",
                runbook="InferenceLagHigh",
            ),
            graph(
                "Records by partition",
                "That nobody finished.",
                Query(
                    worst("inference_group_lag_records", OF_GROUP, "group, topic, partition"),
                    "{{topic}} {{partition}}",
                ),
                unit="short",
            ),
        ),
        row(
            "Scaling",
            graph(
                "Processes",
                "Consumers in the group, processes that they are of, processes wanted, and partitions.",
                Query(worst("inference_group_members", OF_GROUP, "group"), "{{group}} consumers"),
                Query(worst("inference_group_processes", OF_GROUP, "group"), "{{group}} has"),
                Query(worst("inference_desired_replicas", OF_GROUP, "group"), "{{group}} wants"),
                Query(worst("inference_group_partitions", OF_GROUP, "group"), "{{group}} partitions"),
                unit="short",
                width=8,
                runbook="InferenceReplicasAtCap",
            ),
            graph(
                "Arriving and finished",
                "Records a second: what comes in, averaged for scaling, and what the workers do.",
                Query(worst("inference_group_arrival_rate", OF_GROUP, "group"), "{{group}} arriving"),
                Query(rate("inference_records_total", WORKERS_PIPELINE), "finished"),
                unit="recps",
                width=8,
                runbook="InferenceLagGrowing",
            ),
            graph(
                "Capacity of a process",
                "Records a second, as the exporter measures it from outside, and as each worker does from inside.",
                Query(worst("inference_group_capacity_records_per_second", OF_GROUP, "group"), "{{group}}"),
                Query(f"inference_capacity_records_per_second{{{WORKER}}}", "{{instance}}"),
                unit="recps",
                width=8,
            ),
            listing(
                "Why that many",
                "partitions and max_replicas: more are wanted than may be.",
                Query(f"max by (group, reason) (inference_desired_replicas_reason{{{OF_GROUP}}}) == 1"),
                columns=("group", "reason"),
                value="is so",
                width=8,
                runbook="InferenceReplicasAtCap",
            ),
            graph(
                "Looks at the groups",
                "A second, by how much they saw.",
                Query(rate("inference_lag_looks_total", OF_GROUP, "group, result"), "{{group}} {{result}}"),
                unit="cps",
                width=8,
                runbook="InferenceLagUnknown",
            ),
            graph(
                "Age of these figures",
                "Since the last look that saw all of the group, and how long a look takes.",
                Query(
                    f"time() - {worst('inference_lag_last_success_timestamp_seconds', OF_GROUP, 'group')}",
                    "{{group}} age",
                ),
                Query(worst("inference_lag_look_seconds", OF_GROUP, "group"), "{{group}} look"),
                unit="s",
                width=8,
                runbook="InferenceLagUnknown",
            ),
        ),
        row(
            "Held back",
            graph(
                "Beyond the last stable offset",
                "Offsets that nobody may read before a transaction of their producer ends.",
                Query(
                    worst("inference_group_last_stable_offset_lag_records", OF_GROUP, "group, topic, partition"),
                    "{{topic}} {{partition}}",
                ),
                unit="short",
                width=6,
                runbook="InferenceTransactionHangs",
            ),
            graph(
                "Last stable offset unmoved",
                "For how long it stood still with something behind it. A line that only rises: the transaction hangs.",
                Query(
                    worst("inference_group_last_stable_offset_unmoved_seconds", OF_GROUP, "group, topic, partition"),
                    "{{topic}} {{partition}}",
                ),
                unit="s",
                limits=Limits(60, 300),
                width=6,
                runbook="InferenceTransactionHangs",
            ),
            graph(
                "Missed, and not counted yet",
                "Offsets that retention deleted unfinished; and those of the lag that may turn out to be no records.",
                Query(total("inference_group_missed_offsets", OF_GROUP, "group"), "{{group}} missed"),
                Query(total("inference_group_lag_uncounted_offsets", OF_GROUP, "group"), "{{group}} not counted"),
                unit="short",
                width=6,
                runbook="InferenceRetentionOvertakes",
            ),
            graph(
                "Waiting for a schema",
                "Owned partitions held back until the schema registry tells a writer schema.",
                Query(total("inference_waiting_partitions", WORKERS_PIPELINE, "pipeline"), "{{pipeline}}"),
                unit="short",
                width=6,
                runbook="InferenceSchemaRegistryUnavailable",
            ),
        ),
        row(
            "As the workers see it",
            graph(
                "Lag in seconds",
                "Of the partitions each worker owns; gone when they are revoked.",
                Query(worst("inference_lag_seconds", WORKER, "instance, topic"), "{{instance}} {{topic}}"),
                unit="s",
                width=8,
            ),
            graph(
                "Lag in records",
                "From the first unfinished record to the partition's end.",
                Query(total("inference_lag_records", WORKER, "instance, topic"), "{{instance}} {{topic}}"),
                unit="short",
                stacked=True,
                width=8,
            ),
            graph(
                "Partitions owned",
                "By each worker. One with 0 stands by.",
                Query(f"count by (instance, topic) (inference_lag_records{{{WORKER}}})", "{{instance}} {{topic}}"),
                unit="short",
                stacked=True,
                width=8,
            ),
        ),
    ),
)
