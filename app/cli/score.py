"""`inference-worker score`."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.cli.store_options import AsJson, Config, Store, print_json


class Format(StrEnum):
    """What part files are."""

    PARQUET = "parquet"
    CSV = "csv"


class BadOutput(StrEnum):
    """What becomes of a row whose output is not what the manifest allows."""

    REJECT = "reject"
    CLIP = "clip"
    STOP = "stop"


_BAD_OUTPUT: dict[BadOutput, Literal["dead_letter", "clip", "stop"]] = {
    BadOutput.REJECT: "dead_letter",
    BadOutput.CLIP: "clip",
    BadOutput.STOP: "stop",
}


def score(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A .parquet or .csv file, or a folder of them; s3://, gs://, az:// too.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="OUT", help="A folder for part files; a bucket with a prefix is one too.")
    ],
    *,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="Name of a model in the store.")],
    version: Annotated[
        str | None, typer.Option("--version", help="This version, whatever the rollout says.", metavar="VERSION")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="COLUMN", help="What a rollout chooses the version by; kept in OUT. Without: stable."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", metavar="COLUMN", help="A column of IN to have in OUT. Repeatable.")
    ] = None,
    output: Annotated[Format | None, typer.Option("--format", help="Of OUT; that of IN if not given.")] = None,
    chunk_rows: Annotated[
        int, typer.Option(min=1, max=100_000_000, help="Rows of a part file: what a kill costs at most.")
    ] = 1_000_000,
    delimiter: Annotated[str, typer.Option(help="Of CSV.")] = ",",
    missing: Annotated[
        list[str] | None,
        typer.Option(
            "--missing", metavar="TEXT", help="A CSV cell that says this has no value, as an empty one. Repeatable."
        ),
    ] = None,
    multiline: Annotated[
        bool,
        typer.Option(
            "--multiline", help="Cells of CSV in quotes may hold line breaks; a quote left open then refuses the file."
        ),
    ] = False,
    bad_output: Annotated[
        BadOutput | None,
        typer.Option(
            help="What becomes of a row with an output that the manifest does not allow: the pipeline's, or reject."
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            "--pipeline", metavar="NAME", help="Of --config: whose handler and fallback, where several have the model."
        ),
    ] = None,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Score files of rows. Killed, it goes on where it was when the same command is given again: no row twice.

    OUT gets part-*.parquet or .csv; rows without an answer go to OUT/_rejected with their reasons.

    Exit status: 0 all rows are answered or rejected, 1 stopped on the way (start it again), 2 bad start.

    Example: inference-worker score events.parquet predictions --model churn --key customer_id --store var/models
    """
    if len(delimiter) != 1:
        raise typer.BadParameter(f"{delimiter!r} is not one character", param_hint="--delimiter")
    from app.wiring import scoring  # noqa: PLC0415 - a worker's start need not load what reads files

    order = scoring.order_of(
        source,
        target,
        model,
        version,
        key=key,
        keep=keep or [],
        output=output.value if output else None,
        chunk_rows=chunk_rows,
        delimiter=delimiter,
        missing=missing or [],
        multiline=multiline,
        bad_output=None if bad_output is None else _BAD_OUTPUT[bad_output],
        pipeline=pipeline,
    )
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        rows = bar.add_task("rows", total=None)

        def told(done: int, rejected: int, total: int | None) -> None:
            bar.update(rows, description=f"rows, {rejected:,} rejected", completed=done, total=total)

        report = scoring.score_files(order, store, config, told)
    if as_json:
        print_json(asdict(report))
    else:
        by = f"version {', '.join(report.versions)}" + (
            f", rollout revision {report.revision}" if report.revision else ""
        )
        typer.echo(
            f"{report.answered:,} rows answered, {report.rejected:,} rejected, by {report.model} {by} → {report.out}"
        )
