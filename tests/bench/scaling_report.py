"""Runs of scaling policies as a table, as plots, and where docs/SCALING.md has them."""

import json
import math
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from loadgen.plots import new_figure, svg
from tests.bench.scaling_world import Outcome

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "SCALING.md"
COLOURS = ("#2a7f62", "#d9822b", "#5b4b8a", "#b5322f", "#3b6ea5")
HEADINGS = ("load", "policy", "recovery", "worst lag", "behind", "pod-seconds", "most pods", "changes", "turns")


def rows(found, shapes):
    """(shape, policy, …) of every run, as text."""
    return [_row(name, shapes[name], outcome) for name, outcomes in found.items() for outcome in outcomes.values()]


def _row(name, shape, outcome):
    recovery = "" if shape.spike is None else _seconds(outcome.recovery_s(shape.spike))
    return (
        name,
        outcome.policy,
        recovery,
        _seconds(outcome.worst_lag_s),
        f"{outcome.late_share:.1%}",
        f"{outcome.paid_s:,.0f}",
        str(max(outcome.replicas)),
        str(len(outcome.changes)),
        str(outcome.turns),
    )


def _seconds(value):
    return "never" if math.isinf(value) else f"{value:.0f} s"


def show(console, found):
    """In a terminal."""
    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
    for row in found:
        table.add_row(*row)
    console.print(table)


def markdown(found):
    """As the page has it."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * 2}{'---:|' * (len(HEADINGS) - 2)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in found)])


def as_json(found):
    """Second by second."""
    return json.dumps({name: {key: asdict(o) for key, o in outcomes.items()} for name, outcomes in found.items()})


def from_json(text):
    """What `as_json` wrote."""
    found = json.loads(text)
    return {name: {key: Outcome(**run) for key, run in outcomes.items()} for name, outcomes in found.items()}


def plot(outcomes, title):
    """Load, pods and lag of one shape, as SVG."""
    figure, axes = new_figure(3)
    figure.set_size_inches(11.0, 3.2)
    load, pods, lag = axes
    first = next(iter(outcomes.values()))
    load.plot(first.seconds, first.arrivals, color="#555555", linewidth=0.9)
    load.set(title=f"{title}: records a second", xlabel="s")
    for outcome, colour in zip(outcomes.values(), COLOURS, strict=False):
        pods.step(outcome.seconds, outcome.replicas, where="post", color=colour, label=outcome.policy, linewidth=1.2)
        lag.plot(outcome.seconds, outcome.lag_s, color=colour, label=outcome.policy, linewidth=1.2)
    pods.set(title="pods", xlabel="s")
    lag.set(title="lag, seconds", xlabel="s")
    for each in axes:
        each.set_ylim(bottom=0)
    pods.legend(frameon=False, fontsize="small")
    return svg(figure)


def write(kind, found, table, words):
    """Into the page between its markers, and a plot for each shape."""
    for name, outcomes in found.items():
        (DOCS / f"benchmarks/{_file(kind, name)}").write_text(plot(outcomes, name))
    pictures = "\n".join(f"![{name}](benchmarks/{_file(kind, name)})" for name in found)
    begin, end = f"<!-- {kind}: written by the command -->", f"<!-- {kind}: end -->"
    page = PAGE.read_text()
    before, _, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_end:
        raise ValueError(f"{PAGE} has no place for {kind}")
    today = datetime.now(UTC).date().isoformat()
    PAGE.write_text(f"{before}{begin}\n\nMeasured on {today}. {words}\n\n{table}\n\n{pictures}\n\n{end}{after}")


def _file(kind, name):
    return f"scaling-{kind}-{name}.svg"
