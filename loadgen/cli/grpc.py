"""`loadgen grpc`."""

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli import load_options as lo
from loadgen.cli import options as o
from loadgen.online.grpc_requests import GrpcRequests
from loadgen.online.grpc_target import GrpcTarget
from loadgen.online.load_plan import LoadPlan
from loadgen.online.load_report import Allowed
from loadgen.online.target import Target


def grpc(
    *,
    address: Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="The server, e.g. 127.0.0.1:9000.")],
    pipeline: o.PipelineOption = "churn",
    rows: lo.RowsOption = 1,
    requests: lo.RequestsOption = None,
    duration: o.DurationOption = None,
    rate: lo.RateOption = 100.0,
    profile: o.ProfileOption = "constant",
    peak: o.PeakOption = 0.0,
    period: o.PeriodOption = 60.0,
    spike: o.SpikeOption = 5.0,
    callers: lo.CallersOption = 16,
    warmup: lo.WarmupOption = 0.0,
    timeout: lo.TimeoutOption = 5.0,
    connections: lo.ConnectionsOption = 4,
    max_in_flight: lo.InFlightOption = 10_000,
    header: lo.HeaderOption = None,
    tls: Annotated[bool, typer.Option("--tls", help="TLS with the system's authorities, or with --ca-file.")] = False,
    ca_file: lo.CaOption = None,
    allow_failed: lo.FailedOption = 0.0,
    max_p99: lo.MaxP99Option = None,
    seed: o.SeedOption = 7,
    schemas: o.SchemasOption = Path("schemas"),
    as_json: o.JsonOption = False,
) -> None:
    """Ask a gRPC server for predictions: open loop at --rate, latency from when each request was meant to be sent.

    Asks prediction.PredictionService, and nothing twice. Exit 1 if a request failed.

    Example: loadgen grpc --address 127.0.0.1:9000 --rate 2000 --duration 30 --warmup 5 --json
    """

    def plan() -> tuple[LoadPlan, Target, Allowed]:
        pace = o.pace(profile, rate, peak, period, spike)
        load = LoadPlan(pace, lo.extent(requests, duration), callers, max_in_flight, warmup)
        asked = GrpcRequests(lo.ring(pipeline, schemas, seed, load.rows_asked(rows)), rows=rows)
        target = GrpcTarget(
            address,
            asked,
            timeout_s=timeout,
            connections=connections,
            metadata=lo.headers(header),
            tls=tls,
            ca_file=ca_file,
        )
        return load, target, Allowed(allow_failed, max_p99)

    lo.run_and_show("grpc", plan, as_json=as_json)
