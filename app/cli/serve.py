"""`inference-worker serve`."""

import typer

from app.cli.extras import needing_extra
from app.cli.run import ConfigFile


def serve(config: ConfigFile) -> None:
    """Answer requests over HTTP until SIGTERM, with the models and rollouts of the pipelines in the settings.

    Exit status: 0 drained, 1 fatal error, 2 bad start.

    Example: inference-worker serve --config deploy/pipelines/churn.yaml
    """
    with needing_extra("serving"):
        from app.wiring import serving  # noqa: PLC0415
    raise typer.Exit(serving.serve(config))
