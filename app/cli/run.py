"""`inference-worker run`."""

from pathlib import Path
from typing import Annotated

import typer

from app import wiring

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML settings file.", metavar="FILE")]


def run(config: ConfigFile) -> None:
    """Work until SIGTERM: consume, score, deliver, commit.

    Exit status: 0 drained, 1 fatal error, 2 bad start, 3 drain deadline passed, 4 ended by the watchdog.

    Example: inference-worker run --config deploy/pipelines/churn.yaml
    """
    raise typer.Exit(wiring.run_worker(config))
