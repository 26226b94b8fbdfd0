"""What is answered over REST and gRPC."""

from deploy.grafana.board import SURFACE, Board, row
from deploy.grafana.panels import OR_NONE, Limits, Query, graph, number, percentile, percentiles, rate
from deploy.grafana.panels import SURFACE as OF_SURFACE

FAILED = f'{OF_SURFACE},code=~"5..|INTERNAL|UNAVAILABLE|UNKNOWN|DEADLINE_EXCEEDED"'
ALL = rate("inference_requests_total", OF_SURFACE)

BOARD = Board(
    uid="inference-serving",
    title="Inference: REST and gRPC",
    description="Requests answered online.",
    variables=(SURFACE,),
    rows=(
        row(
            "Now",
            number("Requests", "Answered a second.", Query(ALL), unit="reqps", width=6),
            number(
                "Failed",
                "Share of the requests that the server could not answer: 5xx, and their like in gRPC.",
                Query(f"({rate('inference_requests_total', FAILED)} or vector(0)) / {ALL}"),
                unit="percentunit",
                limits=Limits(0.001, 0.01),
                width=6,
                runbook="InferenceServerErrors",
            ),
            number(
                "p99",
                "From a request's head to its answer.",
                Query(percentile(0.99, "inference_request_seconds", OF_SURFACE)),
                unit="s",
                limits=Limits(0.25, 1),
                width=6,
                runbook="InferenceServerSlow",
            ),
            number(
                "Servers",
                "That answer Prometheus.",
                Query('sum(up{job="server"})' + OR_NONE),
                unit="short",
                limits=Limits(1, 1, falling=True),
                width=6,
                runbook="InferenceServerDown",
            ),
        ),
        row(
            "Requests",
            graph(
                "By surface and method",
                "A second.",
                Query(rate("inference_requests_total", OF_SURFACE, "surface, method"), "{{surface}} {{method}}"),
                unit="reqps",
                stacked=True,
            ),
            graph(
                "By status",
                "A second; 499 hung up before the answer, 429 and RESOURCE_EXHAUSTED were turned away.",
                Query(rate("inference_requests_total", OF_SURFACE, "surface, code"), "{{surface}} {{code}}"),
                unit="reqps",
                stacked=True,
                runbook="InferenceServerErrors",
            ),
        ),
        row(
            "Latency",
            graph(
                "All requests",
                "From a request's head to its answer.",
                *percentiles("inference_request_seconds", OF_SURFACE),
                unit="s",
                runbook="InferenceServerSlow",
            ),
            graph(
                "p99 by method",
                "Streams last as long as their clients want.",
                Query(
                    percentile(0.99, "inference_request_seconds", OF_SURFACE, "surface, method"),
                    "{{surface}} {{method}}",
                ),
                unit="s",
                runbook="InferenceServerSlow",
            ),
        ),
        row(
            "Servers",
            graph(
                "Requests by server",
                "A second.",
                Query(rate("inference_requests_total", OF_SURFACE, "instance"), "{{instance}}"),
                unit="reqps",
                stacked=True,
                width=8,
            ),
            graph(
                "Processor",
                "Cores in use.",
                Query(
                    'sum by (instance) (rate(process_cpu_seconds_total{job="server"}[$__rate_interval]))',
                    "{{instance}}",
                ),
                unit="short",
                width=8,
            ),
            graph(
                "Memory",
                "Resident.",
                Query('sum by (instance) (process_resident_memory_bytes{job="server"})', "{{instance}}"),
                unit="bytes",
                width=8,
            ),
        ),
    ),
)
