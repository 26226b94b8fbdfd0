"""`inference-worker demo`."""

from enum import StrEnum
from typing import Annotated

import typer


class Pipeline(StrEnum):
    """What the demo can show."""

    CHURN = "churn"
    DIGITS = "digits"


def demo(
    *,
    pipeline: Annotated[
        Pipeline, typer.Option(help="churn is GENERATED data; digits are scikit-learn's real ones.")
    ] = Pipeline.CHURN,
    events: Annotated[int, typer.Option(min=1000, max=5_000_000, help="How many events to send.")] = 50_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """The whole product in one process: no server, no configuration.

    Exit status 0 only if nothing was lost or doubled and the accuracy is what the model promises.

    Example: inference-worker demo --pipeline digits --events 20000
    """
    from app.demo import run_demo  # noqa: PLC0415 - no other command has to load brokers, models and a worker

    raise typer.Exit(0 if run_demo(pipeline.value, events, as_json=as_json) else 1)
