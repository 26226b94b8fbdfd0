"""False alarms of InferenceAccuracyDrop, and how soon it tells of a drop: `python -m tests.bench.accuracy_alarms`.

Outcomes are drawn minute by minute with one accuracy; each minute shows the Wilson interval of the last hour's, as the
monitor does. The rule (deploy/prometheus/monitor.rules.yaml) is asked each minute and must hold for five; beside it one
that compares with the day's best lower end.
"""

import sys

import numpy as np
from scipy.ndimage import maximum_filter1d

from app.monitor.judged import Judged

WINDOW, DAY, OFFSET, FOR, MARGIN, LEAST = 60, 1_440, 10, 6, 0.02, 500  # minutes; a share; outcomes
RATES, ACCURACIES, DROP = (10, 20, 100, 1_000), (0.9, 0.75), 0.05


def shown(random, per_minute, accuracy):
    """(lower, upper) ends by minute, of a window of an hour; accuracy: by minute."""
    right = np.concatenate([[0], np.cumsum(random.binomial(per_minute, accuracy))])
    ends = [Judged(per_minute * WINDOW, int(hits)).accuracy_within for hits in right[WINDOW:] - right[:-WINDOW]]
    return np.array(ends).T


def firing(lower, upper, against, rows):
    """Minutes at which the rule fires, the first one with a day behind it."""
    at = np.arange(DAY + OFFSET, len(lower))
    if against == "mean":
        sums = np.concatenate([[0], np.cumsum(lower)])
        limit = (sums[at - OFFSET + 1] - sums[at - OFFSET + 1 - DAY]) / DAY - MARGIN
    else:
        limit = maximum_filter1d(lower, DAY, origin=DAY // 2 - 1)[at - OFFSET]
    below = (upper[at] < limit) & (rows >= LEAST)
    return np.convolve(below, np.ones(FOR), "valid") == FOR


def main(days):
    """Print both tables."""
    random = np.random.default_rng(7)
    for per_minute in RATES:
        for accuracy in ACCURACIES:
            minutes = days * DAY + DAY + OFFSET
            lower, upper = shown(random, per_minute, np.full(minutes, accuracy))
            found = {}
            for against in ("mean", "best"):
                fires = firing(lower, upper, against, per_minute * WINDOW)
                found[against] = int((fires[1:] & ~fires[:-1]).sum()) / days
            dropped = np.where(np.arange(3 * DAY) < 2 * DAY, accuracy, accuracy - DROP)
            fires = firing(*shown(random, per_minute, dropped), "mean", per_minute * WINDOW)
            first = WINDOW + DAY + OFFSET + FOR - 1 - 2 * DAY
            delay = f"{int(np.argmax(fires)) + first} min" if fires.any() else "not within a day"
            sys.stdout.write(
                f"{per_minute:>5}/min of {accuracy:.0%}: {found['mean']:.3f} false alarms a day, {found['best']:.1f} "
                f"against the day's best; a drop by {DROP:.0%} is told after {delay}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
