"""What the commands over a model store have in common: where it is, and how a change of a rollout is shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import orjson
import typer

from app.wiring.stores import model_desk

Model = Annotated[str, typer.Argument(help="Name of a model in the store.", metavar="MODEL")]
Version = Annotated[str, typer.Argument(help="One of its versions.", metavar="VERSION")]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="A folder, or a file://, s3://, gs:// or az:// URL; var/models if neither this nor --config is given. "
        "Credentials come from the environment.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file: its models.store and models.store_options."),
]
Why = Annotated[str, typer.Option("--why", help="For the history.")]
Seen = Annotated[
    int | None, typer.Option("--if-revision", help="Change nothing unless this revision is in force.", metavar="N")
]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Do not load the version first; workers do before they use it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

NO_REASON = "no reason given"

desk = model_desk


def show_change(facts: Mapping[str, object], words: str, *, as_json: bool) -> None:
    """What was in force, what is now, and the line of history."""
    if as_json:
        print_json(facts)
    else:
        typer.echo(words)


def print_json(value: object) -> None:
    """To standard output, indented."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))
