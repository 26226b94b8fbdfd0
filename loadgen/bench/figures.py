"""The plots of the page, as SVG files beside it."""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loadgen.bench.page import ONNX_ALONE, Run, Section, by_batch, by_contender
from loadgen.bench.plan import WORKERS
from loadgen.plots import new_figure, svg

OURS, THEIRS, LIMIT = "#2a7f62", "#8a97a6", "#d9822b"
LIMITS = ("forward", ONNX_ALONE)
NAMES = {
    "exactly_once": "worker, exactly once",
    "at_least_once": "worker, at least once",
    "naive": "naive loop",
    "fastavro": "careful loop",
    "faust": "faust-streaming",
    "quix": "quixstreams",
    "forward": "pass-through",
    ONNX_ALONE: "ONNX Runtime alone",
}


def write_figures(folder: Path, sections: Mapping[str, Section]) -> None:
    """One file per section that has something to show. Raises MissingExtra without matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWN.items():
        good = [run for run in sections.get(name, {}).get("runs", []) if "error" not in run]
        if good:
            (folder / f"{name}.svg").write_text(draw({**sections[name], "runs": good}), encoding="utf-8")


def _bars(section: Section) -> str:
    """Events per second, and CPU seconds per million, by contender."""
    figure, (speed, cpu) = new_figure(columns=2)
    runs = by_contender(section)
    names = list(runs)[::-1]
    colours = [OURS if name in WORKERS else LIMIT if name in LIMITS else THEIRS for name in names]
    for axes, value, title in (
        (speed, "events_per_s", "events per second"),
        (cpu, "cpu_s_per_million", "CPU s per million"),
    ):
        middles = _medians(runs, value)[::-1]
        bars = axes.barh([NAMES.get(name, name) for name in names], middles, color=colours)
        axes.bar_label(bars, [f"{middle:,.0f}" if middle >= 100 else f"{middle:.1f}" for middle in middles], padding=2)
        axes.set_title(title)
        axes.set_xlim(right=max(middles) * 1.3)
    speed.locator_params(axis="x", nbins=4)
    speed.xaxis.set_major_formatter("{x:,.0f}")
    cpu.set_xscale("log")  # one peer needs a hundred times what others do
    used = _medians(runs, "cpu_s_per_million")
    cpu.set_xlim(min(used) / 3, max(used) * 5)
    cpu.minorticks_off()
    cpu.xaxis.set_major_formatter("{x:g}")
    cpu.set_yticklabels([])
    return svg(figure)


def _medians(runs: Mapping[str, list[Run]], figure: str) -> list[float]:
    """One median per contender."""
    return [statistics.median(run[figure] for run in of_name) for of_name in runs.values()]


def _latency(section: Section) -> str:
    """p50 as a dot, p99 as the end of its line, by rate."""
    figure, (axes,) = new_figure()
    runs = by_contender(section)
    rates = sorted({run["rate"] for run in section["runs"]})
    for place, (name, of_name) in enumerate(runs.items()):
        colour = OURS if name in WORKERS else LIMIT if name in LIMITS else THEIRS
        shift = (place - (len(runs) - 1) / 2) * 0.09
        at = [rates.index(run["rate"]) + shift for run in of_name]
        p50, p99 = [run["p50"] for run in of_name], [run["p99"] for run in of_name]
        axes.vlines(at, p50, p99, color=colour, linewidth=2)
        axes.scatter(at, p50, color=colour, s=22, marker="osD^v<>P"[place % 8], label=NAMES.get(name, name))
    axes.set_xticks(range(len(rates)), [f"{rate:,}/s" for rate in rates])
    axes.set_yscale("log")
    axes.set(ylabel="ms; dot p50, end of line p99", title="Latency by rate")
    axes.legend(loc="upper left", frameon=False, fontsize=8, ncols=2)
    return svg(figure)


def _batch(section: Section) -> str:
    """Events per second by batch size."""
    figure, (axes,) = new_figure()
    sizes = by_batch(section)
    middles = [statistics.median(run["events_per_s"] for run in runs) for runs in sizes.values()]
    axes.plot(list(sizes), middles, marker="o", color=OURS)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(sizes), [f"{size:,}" for size in sizes])
    axes.set_ylim(bottom=0)
    axes.set(xlabel="batch.max_records", ylabel="events per second", title="Throughput by batch size")
    return svg(figure)


DRAWN: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "drain": _bars,
    "latency": _latency,
    "batch": _batch,
    "forest": _bars,
}
