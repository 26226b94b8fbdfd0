"""`inference-worker top`."""

from typing import Annotated

import typer
from rich.console import Console

Url = Annotated[str, typer.Option(help="A worker's HTTP port, by the settings' section `http`.", metavar="URL")]


def top(
    url: Url = "http://127.0.0.1:8080",
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once, with rates of a second.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each second.")] = False,
) -> None:
    """What a worker does now: lag, throughput, latency, batches, versions, dead letters; as on its live page.

    Goes on until interrupted. Where the output is no terminal, or one that cannot be drawn on, one line a second.

    Exit status: 0 shown or interrupted, 1 lost while it was shown, 2 nobody answers there.

    Example: inference-worker top --url http://10.0.0.7:8080
    """
    from app.wiring.top import show_worker  # noqa: PLC0415 - the HTTP client, which no other command needs at its start

    show_worker(url, once=once, as_json=as_json, console=Console())
