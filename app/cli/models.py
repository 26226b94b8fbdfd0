"""`inference-worker models …`: what is in the model store, and how it gets there."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.cli import model_conversion, rollouts
from app.cli.store_options import (
    NO_REASON,
    AsJson,
    Config,
    Model,
    NoVerify,
    Seen,
    Store,
    Why,
    desk,
    print_json,
    show_change,
)

app = typer.Typer(no_args_is_help=True, help="Train models, and look after the model store.")
app.add_typer(rollouts.app, name="rollout")
model_conversion.register(app)

EXIT_NOT_VERIFIED = 1
_EXAMPLE = "Example: inference-worker models"


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
    store: Annotated[
        str, typer.Option(help="Model store: a folder, or a file://, s3://, gs:// or az:// URL.")
    ] = "var/models",
    rows: Annotated[int | None, typer.Option(help="Churn only: customers to generate (50000).")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest's facts as JSON.")] = False,
) -> None:
    """Train a shipped model and publish it as a new version; the first version becomes stable."""
    from app.wiring.training import train as train_shipped  # noqa: PLC0415 - no other command has to load it

    console = Console(stderr=True)
    with console.status(f"training {pipeline.value}") as status:
        manifest = train_shipped(
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
        print_json(facts)
        return
    table = Table(title=f"{manifest.model} version {manifest.version}", show_header=False)
    table.add_row("data", manifest.data)
    for name, value in [*manifest.training.items(), *manifest.metrics.items()]:
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    table.add_row("digest", manifest.model_digest)
    Console().print(table)


@app.command("list", epilog=f"{_EXAMPLE} list --store s3://models/production")
def list_models(*, store: Store = None, config: Config = None, as_json: AsJson = False) -> None:
    """Every model, its versions, and what is in force."""
    summaries = desk(store, config).summaries()
    if as_json:
        print_json([asdict(summary) for summary in summaries])
        return
    table = Table("model", "versions", "in force", "revision", box=None, pad_edge=False)
    for one in summaries:
        half_written = f" (half-written: {', '.join(one.half_written)})" if one.half_written else ""
        revision = "" if one.revision is None else str(one.revision)
        table.add_row(one.model, ", ".join(one.versions) + half_written, escape(one.in_force or "no rollout"), revision)
    Console().print(table)


@app.command(epilog=f"{_EXAMPLE} show churn 3")
def show(
    model: Model,
    version: Annotated[str | None, typer.Argument(help="The stable one if not given.", metavar="VERSION")] = None,
    *,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """What the manifest of a version says."""
    manifest = desk(store, config).manifest(model, version)
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    table = Table(title=f"{manifest.model} version {manifest.version}", show_header=False)
    table.add_row("data", escape(manifest.data))
    table.add_row("created", f"{manifest.created_at:%Y-%m-%d %H:%M:%S %Z}")
    table.add_row("schemas", escape(f"{manifest.event_schema} → {manifest.prediction_schema}"))
    inputs = ", ".join(f"{spec.name} ({spec.width} {spec.dtype})" for spec in manifest.inputs)
    table.add_row("inputs", escape(inputs))
    table.add_row("outputs", escape(", ".join(f"{output.name} ({output.kind})" for output in manifest.outputs)))
    for name, value in [*manifest.training.items(), *manifest.metrics.items()]:
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        table.add_row(escape(name.replace("_", " ")), escape(shown))
    for name, digest in manifest.digest.items():
        table.add_row(name, digest)
    Console().print(table)


@app.command(epilog=f"{_EXAMPLE} verify churn 2 3")
def verify(
    model: Model,
    versions: Annotated[list[str] | None, typer.Argument(help="All if none is given.", metavar="VERSION…")] = None,
    *,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Compare versions with their manifests: digests, graph and golden rows. Exit status 1 if one differs."""
    verdicts = desk(store, config).verify(model, versions or [])
    if as_json:
        print_json([asdict(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            said = f"verified in {verdict.load_s * 1000:.0f} ms" if verdict.verified else verdict.detail
            typer.echo(f"{model} {verdict.version}: {said}")
    if not all(verdict.verified for verdict in verdicts):
        raise typer.Exit(EXIT_NOT_VERIFIED)


@app.command(epilog=f"{_EXAMPLE} diff churn 2 3")
def diff(
    model: Model,
    a: Annotated[str, typer.Argument(help="A version.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Another one.", metavar="B")],
    *,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """What is not the same in two versions: manifests, metrics, and answers to the golden rows of both."""
    found = desk(store, config).diff(model, a, b)
    if as_json:
        print_json(asdict(found))
        return
    if found.same_files:
        typer.echo("the same files")
    table = Table("", a, b, "", box=None, pad_edge=False)
    for place, (one, other) in found.manifest.items():
        table.add_row(escape(place), escape(str(one)), escape(str(other)))
    for metric in found.metrics:
        both = metric.a is not None and metric.b is not None
        change = f"{(metric.b or 0) - (metric.a or 0):+.4g}" if both else ""
        table.add_row(
            escape(metric.name), *(("" if one is None else f"{one:g}") for one in (metric.a, metric.b)), change
        )
    Console().print(table)
    if found.outputs is None:
        typer.echo("inputs or outputs are not the same: no row can be put to both")
    for output in found.outputs or ():
        otherwise = "" if output.decided_otherwise is None else f", {output.decided_otherwise} decided otherwise"
        largest = f"differs by {output.largest:.3g} at most, {output.mean:.3g} on average"
        typer.echo(f"{output.name} over {output.rows} golden rows: {largest}{otherwise}")


@app.command(epilog=f"{_EXAMPLE} promote churn 3 --why 'two weeks as a canary'")
def promote(
    model: Model,
    version: Annotated[
        str | None, typer.Argument(help="The candidate or standby of the rollout if not given.", metavar="VERSION")
    ] = None,
    *,
    why: Why = NO_REASON,
    no_verify: NoVerify = False,
    seen: Seen = None,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a version answer everything. Any rollout ends; workers follow within a poll, without a restart."""
    changed = desk(store, config).promote(model, version, why, check=not no_verify, seen=seen)
    show_change(changed.facts, changed.words, as_json=as_json)


@app.command(epilog=f"{_EXAMPLE} rollback churn --why 'support calls'")
def rollback(
    model: Model,
    *,
    why: Why = NO_REASON,
    seen: Seen = None,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Undo the newest decision: end a canary, an experiment or a shadow; else go back to the previous version."""
    changed = desk(store, config).roll_back(model, why, seen=seen)
    show_change(changed.facts, changed.words, as_json=as_json)


@app.command(epilog=f"{_EXAMPLE} gc --keep 10 --dry-run")
def gc(
    model: Annotated[str | None, typer.Argument(help="All models if not given.", metavar="MODEL")] = None,
    *,
    keep: Annotated[int, typer.Option(min=1, help="The newest versions stay in any case.")] = 5,
    keep_lines: Annotated[
        int, typer.Option(min=0, help="What the last lines of history speak of stays in any case.")
    ] = 20,
    half_written_hours: Annotated[
        float, typer.Option(min=1, max=1e6, help="What never became complete goes when it is so old.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Remove old versions. Nothing that a rollout refers to ever goes, `previous` included."""
    if half_written_hours != half_written_hours:  # noqa: PLR0124 - NaN is within every range
        raise typer.BadParameter("nan is no number of hours", param_hint="--half-written-hours")
    removed = desk(store, config).collect(
        model, keep_newest=keep, keep_lines=keep_lines, half_written_after_s=half_written_hours * 3600, dry_run=dry_run
    )
    if as_json:
        print_json([asdict(one) for one in removed])
        return
    for one in removed:
        what = "half-written, " if one.half_written else ""
        typer.echo(f"{one.model} {one.version}: {what}{'would be removed' if dry_run else 'removed'}")
    if not removed:
        typer.echo("nothing to remove")
