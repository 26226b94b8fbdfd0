"""`loadgen report`."""

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli.output import named_errors
from loadgen.report import html_page, markdown, read_result


def report(
    result: Annotated[Path, typer.Argument(metavar="FILE.json", help="A result of run, verify or produce --json.")],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots there.")] = None,
) -> None:
    """Render a result again: as Markdown on standard output, or as an HTML page.

    Example: loadgen report var/report/result.json --html var/report/report.html
    """
    with named_errors():
        page = read_result(result)
        try:
            text = html_page(page) if html is not None else markdown(page)
        except (KeyError, TypeError, ValueError) as error:
            raise typer.BadParameter(f"{result} is damaged: {error!r}") from error
        if html is None:
            typer.echo(text)
        else:
            html.write_text(text, encoding="utf-8")
