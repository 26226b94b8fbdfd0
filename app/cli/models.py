"""`inference-worker models …`: what is in the model store, and how it gets there."""

from enum import StrEnum
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from app import wiring

app = typer.Typer(no_args_is_help=True, help="Train models, and look after the model store.")


class Pipeline(StrEnum):
    """The pipelines that come with a training script."""

    CHURN = "churn"
    DIGITS = "digits"


class Estimator(StrEnum):
    """What churn can be trained with."""

    LOGISTIC = "logistic"
    FOREST = "forest"


@app.callback()
def models() -> None:
    """Train models, and look after the model store."""


@app.command(epilog="Example: inference-worker models train churn --estimator forest --store var/models --rows 100000")
def train(
    pipeline: Annotated[Pipeline, typer.Argument(help="churn is GENERATED data; digits are scikit-learn's.")],
    *,
    estimator: Annotated[
        Estimator | None, typer.Option(help="Churn only; logistic if not given. Digits: a perceptron.")
    ] = None,
    store: Annotated[str, typer.Option(help="Model store: a folder or a file:// URL.")] = "var/models",
    rows: Annotated[int | None, typer.Option(help="Churn only: customers to generate (50000).")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest's facts as JSON.")] = False,
) -> None:
    """Train a shipped model and publish it as a new version; the first version becomes stable."""
    console = Console(stderr=True)
    with console.status(f"training {pipeline.value}") as status:
        manifest = wiring.train(
            pipeline.value,
            store=store,
            estimator=estimator.value if estimator else None,
            rows=rows,
            seed=seed,
            progress=status.update,
        )
    if as_json:
        facts = manifest.model_dump(
            mode="json", include={"model", "version", "digest", "created_at", "data", "training", "metrics"}
        )
        typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        return
    table = Table(title=f"{manifest.model} version {manifest.version}", show_header=False)
    table.add_row("data", manifest.data)
    for name, value in [*manifest.training.items(), *manifest.metrics.items()]:
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    table.add_row("digest", manifest.model_digest)
    Console().print(table)
