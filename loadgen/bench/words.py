"""The words and cells that the sections of the page have in common."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadgen.bench.ratios import Ratio
from loadgen.bench.results import in_short

FOLDER = "benchmarks"
TO, TIMES = "\N{EN DASH}", " \N{MULTIPLICATION SIGN}"

Section = Mapping[str, Any]
Run = Mapping[str, Any]


def where(section: Section) -> str:
    """When, and on what."""
    return f"{section['measured_at'][:10]}, {section['machine']['cpus']} CPUs shared by broker, load and contender."


def speeds(runs: Sequence[Run]) -> str:
    """Events per second: median and range."""
    return spread(runs, "events_per_s", "{:,.0f}".format)


def cpus(runs: Sequence[Run]) -> str:
    """CPU seconds per million events: median and range."""
    return spread(runs, "cpu_s_per_million", "{:.2f}".format)


def spread(runs: Sequence[Run], figure: str, shown: Callable[[float], str]) -> str:
    """Median and range, or the one value."""
    values = [run[figure] for run in runs]
    middle = shown(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({shown(min(values))}{TO}{shown(max(values))})"


def multiple(ratio: Ratio, *, percent: bool = False) -> str:
    """A ratio and its interval, if it has one."""

    def shown(value: float) -> str:
        if percent:
            return f"{value * 100:.0f} %"
        return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"

    middle = shown(ratio.middle) + ("" if percent else TIMES)
    if ratio.low is None or ratio.high is None:
        return middle
    return f"{middle} ({shown(ratio.low)}{TO}{shown(ratio.high)})"


def ms(value: float) -> str:
    """Milliseconds, as finely as they matter."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def cell(error: str) -> str:
    """An error, for a cell of a table."""
    return in_short(error).replace("|", "\\|")
