"""`inference-worker models rollout …`: which version answers which records."""

import re
from typing import Annotated, Literal

import typer

from app.cli import rollout_watch
from app.cli.store_options import (
    NO_REASON,
    AsJson,
    Config,
    Model,
    NoVerify,
    Seen,
    Store,
    Version,
    Why,
    desk,
    print_json,
    show_change,
)

app = typer.Typer(no_args_is_help=True, help="Canary, A/B, blue-green and shadow; every worker follows within a poll.")
rollout_watch.register(app)

_EXAMPLE = "Example: inference-worker models rollout"

Move = Literal["advance", "switch", "stop", "hold", "resume"]


@app.command(epilog=f"{_EXAMPLE} show churn --store var/models")
def show(
    model: Model,
    *,
    lines: Annotated[int, typer.Option(min=0, help="How many lines of history, newest first.")] = 10,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """What is in force, and how it came to be."""
    page = desk(store, config).rollout(model)
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    held = "; held: nothing is changed automatically" if page.held else ""
    typer.echo(f"{model}: {page.words} (revision {page.revision}, previous {page.previous or 'none'}{held})")
    for line in tuple(reversed(page.history))[:lines]:
        before = f" ← {line.before}" if line.before else ""
        typer.echo(f"{line.revision:>6}  {line.at:%Y-%m-%d %H:%M:%S %Z}  {line.strategy} {line.stable}{before}")
        typer.echo(f"        {line.who}: {line.why}")


@app.command(epilog=f"{_EXAMPLE} start-canary churn 4 --steps 5:600,25:600,50:1200,100:0 --why 'trained on May'")
def start_canary(
    model: Model,
    version: Version,
    *,
    steps: Annotated[
        str, typer.Option(help="Per cent of the keys, and seconds to hold each, as percent:seconds,…")
    ] = "5:600,25:600,50:600,100:600",
    why: Why = NO_REASON,
    no_verify: NoVerify = False,
    seen: Seen = None,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a version answer a share of the keys that grows step by step."""
    parsed = [(_number("--steps", percent), _number("--steps", hold)) for percent, hold in _pairs("--steps", steps)]
    changed = desk(store, config).start_canary(model, version, parsed, why, check=not no_verify, seen=seen)
    show_change(changed.facts, changed.words, as_json=as_json)


@app.command(epilog=f"{_EXAMPLE} start-ab churn --arm plain=3:1 --arm boosted=4:1")
def start_ab(
    model: Model,
    *,
    arm: Annotated[list[str], typer.Option(help="name=version:weight; two at least.", metavar="NAME=VERSION:WEIGHT")],
    why: Why = NO_REASON,
    no_verify: NoVerify = False,
    seen: Seen = None,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let named arms share the keys by weight; a key stays with its arm."""
    variants = []
    for one in arm:
        if not (found := re.fullmatch(r"([^=]+)=([^:]+)(?::(.+))?", one)):
            raise typer.BadParameter(f"{one!r}: expected name=version:weight", param_hint="--arm")
        name, version, weight = found.groups()
        variants.append((name, version, _number("--arm", weight or "1")))
    changed = desk(store, config).start_ab(model, variants, why, check=not no_verify, seen=seen)
    show_change(changed.facts, changed.words, as_json=as_json)


@app.command(epilog=f"{_EXAMPLE} start-blue-green churn 4")
def start_blue_green(
    model: Model,
    version: Version,
    *,
    why: Why = NO_REASON,
    no_verify: NoVerify = False,
    seen: Seen = None,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Load a version and keep it warm beside the stable one; `switch` lets it answer."""
    changed = desk(store, config).start_blue_green(model, version, why, check=not no_verify, seen=seen)
    show_change(changed.facts, changed.words, as_json=as_json)


@app.command(epilog=f"{_EXAMPLE} start-shadow churn 4 --percent 10")
def start_shadow(
    model: Model,
    version: Version,
    *,
    percent: Annotated[float, typer.Option(help="Of the keys that it scores too.")] = 100.0,
    budget_s: Annotated[float, typer.Option(help="Seconds per second that its scoring may take.")] = 0.2,
    why: Why = NO_REASON,
    no_verify: NoVerify = False,
    seen: Seen = None,
    store: Store = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a version score the same records after delivery, for comparison only."""
    changed = desk(store, config).start_shadow(
        model, version, why, percent=percent, budget_s=budget_s, check=not no_verify, seen=seen
    )
    show_change(changed.facts, changed.words, as_json=as_json)


def _move(verb: Move, example: str, words: str) -> None:
    """A command that needs nothing but the model: each is one function of that name on the page."""

    def command(
        model: Model,
        *,
        why: Why = NO_REASON,
        seen: Seen = None,
        store: Store = None,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        changed = desk(store, config).move(model, verb, why, seen=seen)
        show_change(changed.facts, changed.words, as_json=as_json)

    app.command(verb, help=words, epilog=f"{_EXAMPLE} {verb} {example}")(command)


_move(
    "advance",
    "churn --why 'looks good'",
    "Begin the canary's next step by hand, which takes over from whoever watches; after the last one it is stable.",
)
_move("switch", "churn", "Blue-green: the standby answers, and what answered stands by.")
_move(
    "stop",
    "churn --why 'more errors than stable'",
    "End whatever runs beside the stable version, which answers everything again.",
)
_move("hold", "churn --why 'until the release is out'", "Take over: nothing is changed automatically until `resume`.")
_move("resume", "churn", "Give a rollout that is held back to whoever watches it.")


def _pairs(option: str, text: str) -> list[tuple[str, str]]:
    pairs = [part.partition(":") for part in text.split(",")]
    if not all(separator for _, separator, _ in pairs):
        raise typer.BadParameter(f"{text!r}: expected percent:seconds,…", param_hint=option)
    return [(left, right) for left, _, right in pairs]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number", param_hint=option) from None
