"""`inference-worker models rollout watch` and `guards`: who decides, and by what."""

from typing import Annotated

import orjson
import typer

from app.cli.store_options import NO_REASON, AsJson, Config, Model, Seen, Store, Why, desk, show_change

EXIT_STATUS = {"not_done": 1, "hold": 3, "roll_back": 4}  # of --once, by how it ended; 0 for all else

_EXAMPLE = "Example: inference-worker models rollout"


def watch(
    model: Model,
    *,
    metrics_url: Annotated[
        list[str] | None,
        typer.Option(
            help="A worker's metrics; several times for several workers. http://127.0.0.1:8080/metrics if neither "
            "this nor --prometheus is given.",
            metavar="URL",
        ),
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option(help="A Prometheus server that has the metrics of all workers.", metavar="URL")
    ] = None,
    prometheus_match: Annotated[
        str, typer.Option(help="More label matchers for it.", metavar="'job=~\"worker|server|monitor\"'")
    ] = "",
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.", metavar="S")] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Decide once: two looks at most.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, and change nothing.")] = False,
    store: Store = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each look.")] = False,
) -> None:
    """Promote, hold or roll back what is tried out, by what the workers measure and the guards of the rollout.

    Goes on until SIGINT or SIGTERM. What people do wins: a rollout that they hold or move by hand is left alone, and
    nothing is decided without figures of every worker, except to roll back. docs/ROLLOUTS.md has the rules.

    Exit status: 0 ended by a signal. With --once: 0 promoted, or nothing is tried out; 3 hold; 4 rolled back;
    1 not done, the store did not answer or somebody else was quicker. 2 bad start.
    """
    from app.wiring.rollout_watch import watch_rollout  # noqa: PLC0415 - no other command has to load it

    ended = watch_rollout(
        model,
        store,
        config,
        metrics_urls=metrics_url or [],
        prometheus=prometheus,
        prometheus_match=prometheus_match,
        interval_s=interval,
        once=once,
        dry_run=dry_run,
        tell=lambda report: typer.echo(orjson.dumps(report.facts) if as_json else report.words),
    )
    raise typer.Exit(EXIT_STATUS.get(ended, 0))


def guards(
    model: Model,
    *,
    error_rate_increase: Annotated[
        float | None, typer.Option(help="Share of rows that may fail beyond stable's share.")
    ] = None,
    latency_ratio: Annotated[float | None, typer.Option(help="Time in the model, as a multiple of stable's.")] = None,
    disagreement: Annotated[float | None, typer.Option(help="Share of rows answered otherwise than by stable.")] = None,
    accuracy_drop: Annotated[float | None, typer.Option(help="Share of right answers that may be missing.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Chance, at most, to roll back what is within these.")] = None,
    min_rows: Annotated[int | None, typer.Option(help="Rows of each version before a step may end well.")] = None,
    min_outcomes: Annotated[
        int | None, typer.Option(help="Outcomes of each version before a step may end well; 0: none are waited for.")
    ] = None,
    max_step_s: Annotated[float | None, typer.Option(help="Seconds before an undecided step needs a person.")] = None,
    why: Why = NO_REASON,
    seen: Seen = None,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Change what `watch` decides by, from now on and for the rollouts to come. What is not given stays as it is."""
    given = {
        "error_rate_increase": error_rate_increase,
        "latency_ratio": latency_ratio,
        "disagreement": disagreement,
        "accuracy_drop": accuracy_drop,
        "alpha": alpha,
        "min_rows": min_rows,
        "min_outcomes": min_outcomes,
        "max_step_s": max_step_s,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    changed = desk(store, config).guard(model, changes, why, seen=seen)
    shown = ", ".join(f"{name} {value:g}" for name, value in changed.after.guards)
    show_change(changed.facts, f"{changed.words}\nguards: {shown}", as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add both to the commands about rollouts."""
    app.command(epilog=f"{_EXAMPLE} watch churn --metrics-url http://10.0.0.7:8080/metrics --interval 10")(watch)
    app.command(epilog=f"{_EXAMPLE} guards churn --error-rate-increase 0.002 --why 'errors are rare here'")(guards)
