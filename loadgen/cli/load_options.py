"""What `loadgen rest` and `loadgen grpc` share: their options, and the way from a plan to a result."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli.output import Bars, named_errors, now, show_load
from loadgen.errors import BadOption
from loadgen.event_sources import pipeline_named
from loadgen.online.instances import RING, Ring
from loadgen.online.load_clock import MonotonicClock
from loadgen.online.load_plan import LoadPlan
from loadgen.online.load_report import Allowed, judge, load_page
from loadgen.online.load_run import run_load
from loadgen.online.target import Target
from loadgen.producing import Extent
from loadgen.schemas import SchemaDirectory

DEFAULT_DURATION_S = 10.0

RequestsOption = Annotated[
    int | None,
    typer.Option("--requests", help=f"How many; {DEFAULT_DURATION_S:g} s of them if --duration is not given either."),
]
RateOption = Annotated[
    float, typer.Option("--rate", help="Requests per second, each at its time (open loop); 0: --callers in a circle.")
]
CallersOption = Annotated[
    int, typer.Option("--callers", help="With --rate 0: so many ask, each again as soon as it is answered.")
]
RowsOption = Annotated[int, typer.Option("--rows", help="In each request; more than one go to the batch method.")]
WarmupOption = Annotated[
    float, typer.Option("--warmup", metavar="SECONDS", help="Sent first and left out of the figures.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Of each request.")]
InFlightOption = Annotated[
    int, typer.Option("--max-in-flight", help="Of an open loop: what is due beyond it fails as not sent.")
]
ConnectionsOption = Annotated[int, typer.Option("--connections", help="Kept open to the server.")]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="NAME=VALUE",
        envvar="LOADGEN_HEADER",
        help="With every request, e.g. authorization=Bearer… Repeat. In the environment it is in no process list.",
    ),
]
CaOption = Annotated[Path | None, typer.Option("--ca-file", metavar="FILE", help="Whom to trust, for TLS.")]
FailedOption = Annotated[float, typer.Option("--allow-failed", help="Share of requests that may fail.")]
MaxP99Option = Annotated[
    float | None, typer.Option("--max-p99", metavar="MS", help="Fail if the 99th percentile is above.")
]


def extent(requests: int | None, duration: float | None) -> Extent:
    """How much to ask. Raises BadOption."""
    if requests is not None and requests < 1:
        raise BadOption("--requests: 1 or more")
    return Extent(requests, DEFAULT_DURATION_S if requests is None and duration is None else duration)


def ring(pipeline: str, schemas: Path, seed: int, asked: int | None = None) -> Ring:
    """The events that requests are made of; no more than are asked about. Raises BadOption or MissingExtra."""
    source = pipeline_named(pipeline, schemas, seed)
    events = RING if asked is None else max(min(asked, RING), 1)
    return Ring.of(source, SchemaDirectory(schemas).current(source.event_schema), events)


def headers(given: list[str] | None) -> dict[str, str]:
    """Names and values. Raises BadOption, without the value: it may be a secret."""
    found = {}
    for entry in given or []:
        name, equals, value = entry.partition("=")
        if not equals or not name.strip().isascii() or not name.strip() or any(sign in value for sign in "\r\n\0"):
            raise BadOption("--header: NAME=VALUE in one line is needed")
        found[name.strip()] = value
    return found


def run_and_show(command: str, make_plan: Callable[[], tuple[LoadPlan, Target, Allowed]], *, as_json: bool) -> None:
    """Make the plan, run it, print what came of it. Exit 1 if it did not pass, 2 if it could not be run."""
    with named_errors(), Bars() as bars:
        plan, target, allowed = make_plan()
        started_at, total = now(), plan.total
        outcomes = asyncio.run(run_load(plan, target, MonotonicClock(), lambda ended: bars.show("asked", ended, total)))
        result = judge(plan, target, outcomes, allowed)
    show_load(load_page(command, started_at, result), as_json=as_json)
