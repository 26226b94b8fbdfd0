"""`inference-worker monitor`."""

from pathlib import Path
from typing import Annotated

import typer

from app.errors import BadSettings

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML settings file.", metavar="FILE")]


def monitor(config: ConfigFile) -> None:
    """Watch what the models do, until SIGTERM: windows, drift, outcomes; as metrics and in a compacted topic.

    It reads pipelines[].monitoring's topics and what monitor.outcomes names; several instances share the work.

    Exit status: 0 stopped, 1 fatal error (start it again: nothing is lost or counted twice), 2 bad start.

    Example: inference-worker monitor --config deploy/pipelines/churn.yaml
    """
    try:
        from app import wiring_monitor  # noqa: PLC0415 - the extra may not be installed, and is slow to load
    except ModuleNotFoundError as exc:
        raise BadSettings(f"{exc.name} is not installed: pip install 'kafka-inference-worker[monitor]'") from exc
    wiring_monitor.run_monitor(config)
