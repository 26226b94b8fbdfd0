"""`inference-worker lag`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.cli.run import ConfigFile
from app.cli.store_options import AsJson, print_json

EXIT_INCOMPLETE = 1
COLUMNS = ("topic", "partition", "lag", "age", "committed", "last stable", "end", "")


def lag(
    config: ConfigFile,
    *,
    once: Annotated[bool, typer.Option("--once", help="Look once, print a table, and end.")] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="With --once: read the whole backlog to count it, however long that takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """How far the pipelines' consumer groups are behind, whether a worker lives or not.

    Without --once: until SIGTERM, over HTTP at `http.port`: /metrics, /livez and /readyz.

    Exit status: 0; 1 if one look did not see everything; 2 bad start.

    Example: inference-worker lag --config deploy/pipelines/churn.yaml --once
    """
    from app.wiring.lag import look_once, run_lag  # noqa: PLC0415 - no other command has to load it

    if not once:
        if as_json or exact:
            raise typer.BadParameter("--json and --exact go with --once")
        run_lag(config)
        return
    report = look_once(config, exact=exact)
    if as_json:
        print_json(report.groups)
    else:
        for title, rows in report.tables:
            table = Table(*COLUMNS, title=title, title_justify="left", box=None, pad_edge=False)
            for row in rows:
                table.add_row(*row)
            Console().print(table, markup=False)
    for problem in report.problems:
        typer.echo(problem, err=True)
    raise typer.Exit(EXIT_INCOMPLETE if report.problems else 0)
