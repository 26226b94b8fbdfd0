"""`inference-worker run`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli import allocator

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML settings file.", metavar="FILE")]


def run(config: ConfigFile) -> None:
    """Work until SIGTERM: consume, score, deliver, commit.

    Exit status: 0 drained, 1 fatal error, 2 bad start, 3 drain deadline passed, 4 ended by the watchdog.

    Example: inference-worker run --config deploy/pipelines/churn.yaml
    """
    allocator.keep_little()
    from app.wiring import processes  # noqa: PLC0415 - no other command has to load a worker

    raise typer.Exit(processes.run_worker(config))


def run_slot(config: ConfigFile, slot: int, line: int) -> None:
    """One of several processes: what `run` starts, never a person. Its input is the settings file's text, as JSON."""
    allocator.keep_little()
    from app.wiring import processes  # noqa: PLC0415 - no other command has to load a worker

    raise typer.Exit(processes.run_slot(config, json.load(sys.stdin), slot, line))


def run_shadow(
    config: ConfigFile,
    pipeline: Annotated[str, typer.Option()],
    version: Annotated[str, typer.Option()],
    worker: Annotated[int, typer.Option()],
    line: int,
) -> None:
    """A version beside a worker: what `run` starts, never a person. Its input is the settings file's text, as JSON."""
    from app.wiring import shadow  # noqa: PLC0415 - no other command has to load a worker

    raise typer.Exit(shadow.run_shadow(config, json.load(sys.stdin), pipeline, version, worker=worker, line=line))
