"""`loadgen rest`."""

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli import load_options as lo
from loadgen.cli import options as o
from loadgen.online.load_plan import LoadPlan
from loadgen.online.load_report import Allowed
from loadgen.online.rest_requests import STYLES, RestRequests
from loadgen.online.rest_target import RestTarget
from loadgen.online.target import Target


def rest(
    *,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The server, e.g. http://127.0.0.1:8080.")],
    pipeline: o.PipelineOption = "churn",
    style: Annotated[
        str, typer.Option("--as", help=f"Features by name or as numbers in the manifest's order: {', '.join(STYLES)}.")
    ] = "fields",
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
    connections: lo.ConnectionsOption = 256,
    max_in_flight: lo.InFlightOption = 10_000,
    header: lo.HeaderOption = None,
    ca_file: lo.CaOption = None,
    allow_failed: lo.FailedOption = 0.0,
    max_p99: lo.MaxP99Option = None,
    seed: o.SeedOption = 7,
    schemas: o.SchemasOption = Path("schemas"),
    as_json: o.JsonOption = False,
) -> None:
    """Ask a REST server for predictions: open loop at --rate, latency from when each request was meant to be sent.

    Nothing is asked twice: what a client with retries would hide is counted. Exit 1 if a request failed.

    Example: loadgen rest --url http://127.0.0.1:8080 --rate 1000 --duration 30 --warmup 5 --max-p99 20
    """

    def plan() -> tuple[LoadPlan, Target, Allowed]:
        pace = o.pace(profile, rate, peak, period, spike)
        load = LoadPlan(pace, lo.extent(requests, duration), callers, max_in_flight, warmup)
        asked = RestRequests(lo.ring(pipeline, schemas, seed, load.rows_asked(rows)), rows=rows, style=style)
        target = RestTarget(
            url, asked, timeout_s=timeout, connections=connections, headers=lo.headers(header), ca_file=ca_file
        )
        return load, target, Allowed(allow_failed, max_p99)

    lo.run_and_show("rest", plan, as_json=as_json)
