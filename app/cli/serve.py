"""`inference-worker serve`."""

import typer

from app.cli.run import ConfigFile
from app.errors import BadSettings


def serve(config: ConfigFile) -> None:
    """Answer requests over HTTP until SIGTERM, with the models and rollouts of the pipelines in the settings.

    Exit status: 0 drained, 1 fatal error, 2 bad start.

    Example: inference-worker serve --config deploy/pipelines/churn.yaml
    """
    try:
        from app import wiring_serving  # noqa: PLC0415 - the extra may not be installed
    except ModuleNotFoundError as exc:
        raise BadSettings(f"{exc.name} is not installed: pip install 'kafka-inference-worker[serving]'") from exc
    raise typer.Exit(wiring_serving.serve(config))
