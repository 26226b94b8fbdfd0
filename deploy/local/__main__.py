"""`python -m deploy.local up|down|status`: the command over `Stack`."""

import enum
import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from deploy.local.errors import StackError
from deploy.local.stack import Stack, StackStatus

cli = typer.Typer(
    help="A real Kafka, and on request a schema registry and a Redis, on this machine: no Docker, no system Java.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


class BrokerCount(enum.StrEnum):
    """Sizes of cluster that make sense: the smallest, and the smallest that survives the loss of a broker."""

    ONE = "1"
    THREE = "3"


Directory = Annotated[Path, typer.Option("--dir", help="Where the stack keeps its data, logs and env file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_UP_EXAMPLES = """\
Examples:

  python -m deploy.local up --registry --redis

  python -m deploy.local up --brokers 3 --dir var/stack3

  set -a; . var/stack/env; set +a     # KAFKA_BOOTSTRAP_SERVERS, SCHEMA_REGISTRY_URL, REDIS_URL
"""
_DOWN_EXAMPLES = """\
Examples:

  python -m deploy.local down

  python -m deploy.local down --wipe     # forget topics, schemas, ports and logs too
"""
_STATUS_EXAMPLES = """\
Exit code: 0 if everything that was started runs, else 1.

Examples:

  python -m deploy.local status

  python -m deploy.local status --json
"""


@cli.command(epilog=_UP_EXAMPLES)
def up(
    brokers: Annotated[
        BrokerCount | None,
        typer.Option(help="Size of the cluster; as before, or 1, if not given. Each has 1 GB of heap."),
    ] = None,
    registry: Annotated[bool, typer.Option("--registry", help="A schema registry too.")] = False,  # noqa: FBT002 - a flag
    redis: Annotated[bool, typer.Option("--redis", help="A Redis too.")] = False,  # noqa: FBT002 - a flag
    directory: Directory = Path("var/stack"),
    as_json: Json = False,  # noqa: FBT002 - a flag
) -> None:
    """Start what is missing on free ports, reuse what runs, and wait until all of it serves."""
    stack = Stack(directory)
    try:
        status = stack.up(brokers=int(brokers) if brokers else None, schema_registry=registry, redis=redis)
    except StackError as exc:
        _fail(exc)
    _print(status, as_json=as_json)
    if not as_json:
        typer.echo(f"env file: {stack.env_file}")


@cli.command(epilog=_DOWN_EXAMPLES)
def down(
    directory: Directory = Path("var/stack"),
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete data, ports and logs.")] = False,  # noqa: FBT002 - a flag
) -> None:
    """End what `up` started in this directory, and nothing else."""
    try:
        names = Stack(directory).down(wipe=wipe)
    except StackError as exc:
        _fail(exc)
    typer.echo("\n".join(f"stopped {name}" for name in names) or "nothing was running")


@cli.command(epilog=_STATUS_EXAMPLES)
def status(
    directory: Directory = Path("var/stack"),
    as_json: Json = False,  # noqa: FBT002 - a flag
) -> None:
    """Show what was started in this directory and what of it runs."""
    try:
        found = Stack(directory).status()
    except StackError as exc:
        _fail(exc)
    _print(found, as_json=as_json)
    if not found.is_running:
        raise typer.Exit(1)


def _print(status: StackStatus, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(status.as_dict(), indent=2))
        return
    if not status.servers:
        typer.echo(f"nothing was started in {status.directory}")
    for server in status.servers:
        state = f"pid {server.pid}" if server.pid else "not running"
        typer.echo(f"{server.name:<16} {state:<12} {server.address}")
    for name, value in status.environment.items():
        typer.echo(f"{name}={value}")


def _fail(error: StackError) -> NoReturn:
    typer.echo(f"{type(error).__name__}: {error}", err=True)
    raise typer.Exit(1) from error


if __name__ == "__main__":
    cli(prog_name="python -m deploy.local")
