"""`inference-worker check-config`."""

from dataclasses import asdict
from typing import Annotated

import orjson
import typer
import yaml

from app.cli.run import ConfigFile
from app.exit_status import EXIT_BAD_START


def check_config(
    config: ConfigFile,
    *,
    live: Annotated[
        bool, typer.Option("--live", help="Also ask model store, schemas, registry and broker, as `run` would.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show the settings in force, secrets masked, and what follows from them.

    Exit status: 0 if a worker would start, as far as was asked; 2 if not. Nothing is changed anywhere.

    Example: inference-worker check-config --config deploy/pipelines/churn.yaml --live
    """
    from app.wiring import config_check  # noqa: PLC0415 - no other command has to load a worker

    report = config_check.check_config(config, live=live)
    if as_json:
        typer.echo(orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2))
    else:
        shown = {"settings": report.settings, "derived": report.derived}
        typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)
        for result in report.checks:
            typer.echo(f"{result.status:9}  {result.what}" + (f": {result.detail}" if result.detail else ""))
    if any(result.status == "failed" for result in report.checks):
        raise typer.Exit(EXIT_BAD_START)
