"""False alarms on a calm stream, and how soon a shift is seen: `python -m tests.bench.drift_alarms`.

Windows are drawn as the monitor would get them: rows of six independent features, counted into the bins of a training
reference of 20,000 rows, judged by `app.monitor.drift` with the default policy. One feature is skewed (log-normal), one
is an integer, one a category. A window is a minute, so a day is 1,440 of them.
"""

import sys
import time

import numpy as np

from app.models.manifest import CategoryReference, NumberReference
from app.monitor.drift import DriftPolicy, drift_of
from app.monitor.monitor_settings import MonitorSettings
from app.monitor.summaries import FeatureTotals

TRAINED_ROWS = 20_000
WINDOWS_A_DAY = 1_440
PLANS = (0.5, 0.3, 0.2)


def drawn(random, rows, shift):
    """Columns; the shift, in standard deviations, is of the first."""
    return {
        "age": random.normal(45 + 12 * shift, 12, rows),
        "income": random.lognormal(10, 0.6, rows),
        "tenure": random.poisson(24, rows).astype(np.float64),
        "monthly": random.gamma(4, 18, rows),
        "total": random.exponential(1500, rows),
    }


def reference_of(values):
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 21)))
    counts = np.histogram(values, edges)[0]
    return NumberReference(mean=values.mean(), std=values.std(), bins=tuple(edges), counts=tuple(counts.tolist()))


def totals_of(name, values, reference):
    counts = np.histogram(values, [-np.inf, *reference.bins, np.inf])[0]
    return FeatureTotals(
        name, "number", len(values), 0, 0, float(values.sum()), float((values**2).sum()), float(values.min()),
        float(values.max()), tuple(counts.tolist()),
    )  # fmt: skip


def alarms(random, windows, rows, shift=0.0):
    """How many of so many windows have a drifted feature, each hundred against a training set of its own."""
    found = 0
    for number in range(windows):
        if number % 100 == 0:
            references = {name: reference_of(values) for name, values in drawn(random, TRAINED_ROWS, 0).items()}
            plans = random.multinomial(TRAINED_ROWS, PLANS)
            references["plan"] = CategoryReference(counts=dict(zip("abc", plans.tolist(), strict=True)))
        features = {
            name: totals_of(name, values, references[name]) for name, values in drawn(random, rows, shift).items()
        }
        counts = tuple(random.multinomial(rows, PLANS).tolist())
        features["plan"] = FeatureTotals("plan", "category", rows, 0, 0, 0.0, 0.0, np.inf, -np.inf, counts)
        found += any(drift.by for drift in drift_of(features, references, DriftPolicy()))
    return found


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(days):
    random = np.random.default_rng(2026)
    settings = MonitorSettings()
    start = time.perf_counter()
    say(f"{'rows a window':>14} {'calm windows':>13} {'alarms':>7} {'a day':>7}   windows that see 0.25, 0.5 sigma")
    for rows, windows in (
        (500, int(days * WINDOWS_A_DAY)),
        (2_000, int(days * WINDOWS_A_DAY)),
        (20_000, WINDOWS_A_DAY),
    ):
        false = alarms(random, windows, rows)
        seen = [alarms(random, 200, rows, shift) / 200 for shift in (0.25, 0.5)]
        a_day = false / windows * WINDOWS_A_DAY
        say(f"{rows:>14,} {windows:>13,} {false:>7} {a_day:>7.2f}   {seen[0]:.1%}, {seen[1]:.1%}")
    wait_s = settings.window_s + settings.grace_s + settings.publish_s
    say(f"a window that sees it is judged at most {wait_s:g} s after the shift's first whole window began")
    say(f"({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
