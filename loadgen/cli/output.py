"""What the commands print: progress and words on standard error, results on standard output."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadgen.errors import LoadgenError
from loadgen.online.load_report import load_line, load_sections
from loadgen.report import Row, sections, verdict_line, violation_lines

EXIT_FAILED = 1
EXIT_NOT_RUN = 2


def now() -> str:
    """Return the time of day for a report."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def named_errors() -> Iterator[None]:
    """Turn our own errors into a message and exit status 2."""
    try:
        yield
    except LoadgenError as error:
        message = f"[bold red]{type(error).__name__}[/]: {escape(str(error))}"
        Console(stderr=True).print(message, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_NOT_RUN) from error


class Bars:
    """Progress bars that show only on a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<13}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, name: str, done: int, total: int | None = None) -> None:
        """Set one bar; it appears when first named."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done, total=total)


def show(page: dict[str, Any], *, as_json: bool) -> None:
    """Print a result, and leave with status 1 if a law was broken."""
    if as_json:
        typer.echo(json.dumps(page, indent=2))
    else:
        _show_tables(page)
    verdict = page["verified"]
    if verdict is None or verdict["passed"]:
        return
    if as_json:
        errors = Console(stderr=True)
        for line in violation_lines(page):
            errors.print(escape(line), highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_FAILED)


def show_load(page: dict[str, Any], *, as_json: bool) -> None:
    """Print the result of a load run, and leave with status 1 if it did not pass."""
    load, console = page["load"], Console()
    if as_json:
        typer.echo(json.dumps(page, indent=2))
    else:
        _show_rows(console, load_sections(load))
        colour = "green" if load["passed"] else "bold red"
        console.print(f"[{colour}]{escape(load_line(load))}[/]", highlight=False, soft_wrap=True)
    if load["passed"]:
        return
    if as_json:
        Console(stderr=True).print(escape(load_line(load)), highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_FAILED)


def _show_tables(page: dict[str, Any]) -> None:
    console = Console()
    _show_rows(console, sections(page))
    colour = "green" if page["verified"] is None or page["verified"]["passed"] else "bold red"
    console.print(f"[{colour}]{escape(verdict_line(page))}[/]", highlight=False)
    for line in violation_lines(page):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _show_rows(console: Console, found: Iterable[tuple[str, list[Row]]]) -> None:
    for heading, rows in found:
        console.print(f"[bold]{escape(heading)}[/]", highlight=False)
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column()
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(escape(name), escape(value))
        console.print(table)
        console.print()
