"""How many rows a decision about errors takes, and how often it is a false alarm: simulated, the tables of ROLLOUTS.md.

    python -m tests.bench.rollout_rows

Rows fail independently of one another, each version's with its own rate. The seed is fixed: the same figures each time.
"""

from collections.abc import Callable, Iterator
from math import sqrt

import numpy as np
from rich.console import Console

from app.models.guards import Guards
from app.rollouts.confidence import Interval, Rate, difference_within
from app.rollouts.decision import GUARDS

STEPS = 4
ALPHA = Guards().alpha / (GUARDS * STEPS)  # of one guard of one step
ALLOWED = Guards().error_rate_increase
MORE_A_LOOK = 1.03
MOST_ROWS = 400_000
RUNS = 200
FALSE_ALARM_RUNS, LOOKS, LAST_ROWS, FALSE_ALPHA = 300, 40, 50_000, 0.05
ONE_SIDED_95 = 1.645

WORSE = ((0.05, 0.001, 0.05), (0.05, 0.001, 0.5), (0.02, 0.001, 0.05), (0.10, 0.001, 0.05))  # canary, stable, share
ALIKE, WITHIN, ALIKE_SHARE = (0.0, 0.001, 0.01), (0.01, 0.005, 0.002), 0.05


def looks(rng: np.random.Generator, canary: float, stable: float, share: float) -> Iterator[tuple[Rate, Rate]]:
    """What both have counted, each time the canary has some more rows."""
    rows, ours, theirs = 20, Rate(0, 0), Rate(0, 0)
    while rows <= MOST_ROWS:
        ours = more(rng, ours, canary, rows)
        theirs = more(rng, theirs, stable, round(rows * (1 - share) / share))
        yield ours, theirs
        rows = max(rows + 1, round(rows * MORE_A_LOOK))


def more(rng: np.random.Generator, rate: Rate, chance: float, rows: int) -> Rate:
    """The same with so many rows in all."""
    return Rate(rate.events + int(rng.binomial(rows - rate.trials, chance)), rows)


def rows_until(decided: Callable[[Interval], bool], canary: float, stable: float, share: float) -> list[int]:
    """Rows of the canary until the difference of its errors is such, by run, fewest first."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(RUNS):
        seen = looks(rng, canary, stable, share)
        done = (ours.trials for ours, theirs in seen if decided(difference_within(ours, theirs, ALPHA)))
        found.append(next(done, MOST_ROWS))
    return sorted(found)


def false_alarms(chance: float) -> tuple[int, int]:
    """Runs of two equal versions in which one was called worse: by us, and by a test for one look."""
    rng = np.random.default_rng(11)
    ours_said = one_look_said = 0
    for _ in range(FALSE_ALARM_RUNS):
        one, other = Rate(0, 0), Rate(0, 0)
        ours = one_look = False
        for rows in np.geomspace(100, LAST_ROWS, LOOKS).astype(int).tolist():
            one, other = more(rng, one, chance, rows), more(rng, other, chance, rows)
            ours |= difference_within(one, other, FALSE_ALPHA).low > 0
            pooled = (one.share + other.share) / 2
            deviation = sqrt(2 * pooled * (1 - pooled) / rows)
            one_look |= one.share - other.share > ONE_SIDED_95 * deviation > 0
        ours_said += ours
        one_look_said += one_look
    return ours_said, one_look_said


def main() -> None:
    """Print the tables."""
    out = Console(width=200, highlight=False).print
    out("| | rows of the canary, half of all runs | 95 % of all runs |\n|---|---|---|")
    for canary, stable, share in WORSE:
        rows = rows_until(lambda more: more.low > ALLOWED, canary, stable, share)
        what = f"{canary:.1%} errors against {stable:.1%}, share {share:.0%}"
        out(f"| {what} | {rows[RUNS // 2]:,} | {rows[RUNS * 95 // 100]:,} |")
    points = " | ".join(f"{allowed * 100:g} points" for allowed in WITHIN)
    out(f"\n| both alike, share {ALIKE_SHARE:.0%}: half of all runs show errors within | {points} |\n|---|---|---|---|")
    for chance in ALIKE:
        shown = [
            rows_until(lambda more, most=allowed: more.high <= most, chance, chance, ALIKE_SHARE)[RUNS // 2]
            for allowed in WITHIN
        ]
        out(f"| {chance:.1%} | " + " | ".join(f"{rows:,}" for rows in shown) + " |")
    out(f"\n| errors of both | false alarms in {FALSE_ALARM_RUNS} runs | by a test for one look |\n|---|---|---|")
    for chance in (0.001, 0.01, 0.05):
        ours, one_look = false_alarms(chance)
        out(f"| {chance:.1%} | {ours} | {one_look} |")


if __name__ == "__main__":
    main()
