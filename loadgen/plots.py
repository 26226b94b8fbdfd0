"""The plots of a report, as PNG bytes. matplotlib is imported here only, and only when a plot is made.

`new_figure` and `svg` are for other pages' plots, so that all look alike.
"""

import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from loadgen.errors import MissingExtra

SIZE_INCHES = (8.0, 3.2)
DPI = 110


def latency_over_time(timeline: Sequence[Mapping[str, Any]]) -> bytes:
    """p50, p99 and maximum per stretch of the run."""
    figure, (axes,) = new_figure()
    at = [point["at_s"] for point in timeline]
    for name, colour in (("p50", "#2a7f62"), ("p99", "#d9822b"), ("max", "#b5322f")):
        axes.plot(at, [point[name] for point in timeline], label=name, color=colour, linewidth=1.4)
    axes.set(xlabel="seconds into the run", ylabel="latency, ms", title="Latency over time")
    axes.set_yscale("symlog", linthresh=1.0)
    axes.legend(loc="upper right", frameon=False)
    return _png(figure)


def throughput_over_time(timeline: Sequence[Mapping[str, Any]]) -> bytes:
    """Predictions per second per stretch of the run."""
    figure, (axes,) = new_figure()
    axes.fill_between(
        [point["at_s"] for point in timeline],
        [point["predictions_per_s"] for point in timeline],
        step="post",
        color="#3b6ea5",
        alpha=0.75,
    )
    axes.set(xlabel="seconds into the run", ylabel="predictions per second", title="Throughput")
    axes.set_ylim(bottom=0)
    return _png(figure)


def percentile_curve(curve: Sequence[Sequence[float]]) -> bytes:
    """Latency by percentile; each step to the right is ten times rarer."""
    figure, (axes,) = new_figure()
    points = [(percentile, ms) for percentile, ms in curve if percentile < 100.0]
    rarity = [1.0 / (1.0 - percentile / 100.0) for percentile, _ in points]
    axes.plot(rarity, [ms for _, ms in points], marker="o", markersize=3, color="#5b4b8a")
    axes.set_xscale("log")
    ticks = [1, 2, 10, 100, 1000, 10_000, 100_000]
    axes.set_xticks(ticks, ["0", "50", "90", "99", "99.9", "99.99", "99.999"])
    axes.minorticks_off()
    axes.set(xlabel="percentile", ylabel="latency, ms", title="Latency by percentile")
    axes.set_ylim(bottom=0)
    return _png(figure)


def new_figure(columns: int = 1) -> tuple[Any, list[Any]]:
    """A figure and its axes, side by side. Raises MissingExtra without matplotlib."""
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingExtra("for plots, install the extra: kafka-inference-worker[loadgen]") from error
    # A Figure of our own, not pyplot: no global state, no display.
    figure = figures.Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    found = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in found:
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found


def svg(figure: Any) -> str:  # noqa: ANN401 - matplotlib is imported late
    """The figure as SVG; equal figures give equal text, so that a repository sees only what changed."""
    matplotlib = importlib.import_module("matplotlib")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "loadgen", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _png(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib is imported late
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
