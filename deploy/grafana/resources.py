"""What processes take of their machines, and how much of their time they work."""

from deploy.grafana.board import INSTANCE, PIPELINE, Board, row
from deploy.grafana.panels import RATE, WORKER, WORKERS_PIPELINE, Built, Limits, Query, graph, total

EVERYBODY = "{{job}} {{instance}}"


def busy() -> Built:
    """Whether a worker could do more."""
    return graph(
        "Busy",
        "Share of the last second that the busiest pipeline's loop did not wait for records; at 1 it can do no more.",
        Query(f"inference_busy_ratio{{{WORKER}}}", "{{instance}}"),
        unit="percentunit",
        limits=Limits(0.8, 0.95),
        most=1,
        width=8,
    )


def buffered() -> Built:
    """What a worker holds and has not begun with."""
    return graph(
        "Buffered",
        "Record values read and not yet in a batch; reading pauses at `worker.memory_budget_bytes`.",
        Query(total("inference_buffered_bytes", WORKERS_PIPELINE, "instance"), "{{instance}}"),
        unit="bytes",
        width=8,
    )


BOARD = Board(
    uid="inference-resources",
    title="Inference: resources",
    description="Memory, processor, files, and the share of its time that a worker works.",
    variables=(PIPELINE, INSTANCE),
    rows=(
        row(
            "Workers",
            busy(),
            graph(
                "Capacity",
                "Records finished per busy second, smoothed: what each worker could do, once there is a backlog.",
                Query(f"inference_capacity_records_per_second{{{WORKER}}}", "{{instance}}"),
                unit="recps",
                width=8,
            ),
            graph(
                "Processor time of a record",
                "CPU seconds spent for each record finished.",
                Query(
                    f"sum(rate(process_cpu_seconds_total{{{WORKER}}}[{RATE}]))"
                    f" / sum(rate(inference_records_total{{{WORKER}}}[{RATE}]))",
                    "all workers",
                ),
                unit="s",
                width=8,
            ),
            buffered(),
            graph(
                "Processes of a supervisor",
                "By state; absent with a single process.",
                Query("sum by (instance, state) (inference_worker_processes)", "{{instance}} {{state}}"),
                unit="short",
                width=8,
                runbook="InferenceWorkerRestarts",
            ),
            graph(
                "Up since",
                "Age of the youngest process of each target; it falls to 0 with a start.",
                Query(f"time() - process_start_time_seconds{{{WORKER}}}", "{{instance}}"),
                unit="s",
                width=8,
                runbook="InferenceWorkerRestarts",
            ),
        ),
        row(
            "Everybody",
            graph(
                "Memory",
                "Resident, of each process or of all that a supervisor has.",
                Query("process_resident_memory_bytes", EVERYBODY),
                unit="bytes",
                width=8,
            ),
            graph(
                "Processor",
                "Cores in use.",
                Query(f"rate(process_cpu_seconds_total[{RATE}])", EVERYBODY),
                unit="short",
                width=8,
            ),
            graph(
                "Open files",
                "Share of those allowed; connections count.",
                Query("process_open_fds / process_max_fds", EVERYBODY),
                unit="percentunit",
                limits=Limits(0.5, 0.8),
                width=8,
            ),
            graph(
                "Answering Prometheus",
                "1 while a target can be scraped.",
                Query('up{job=~"worker|monitor|server|lag"}', EVERYBODY),
                unit="short",
                most=1,
                runbook="InferenceWorkerDown",
            ),
            graph(
                "Time a scrape takes",
                "A long one has many series, or a process that does not get to answer.",
                Query('scrape_duration_seconds{job=~"worker|monitor|server|lag"}', EVERYBODY),
                unit="s",
            ),
        ),
    ),
)
