"""The plots of the page, as SVG files beside it."""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loadgen.bench.page import ONNX_ALONE, by_batch, by_contender
from loadgen.bench.plan import WORKERS
from loadgen.bench.slow_page import by_shape
from loadgen.bench.words import Run, Section
from loadgen.plots import new_figure, svg

OURS, THEIRS, LIMIT, WRONG = "#2a7f62", "#8a97a6", "#d9822b", "#b5322f"
LARGE_BYTES = 500  # of a record: has a colour of its own
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
    """p50 as a dot, p99 as the end of its line, by rate; medians of the rounds."""
    figure, (axes,) = new_figure()
    runs = by_contender(section)
    rates = sorted({run["rate"] for run in section["runs"]})
    for place, (name, of_name) in enumerate(runs.items()):
        colour = OURS if name in WORKERS else LIMIT if name in LIMITS else THEIRS
        shift = (place - (len(runs) - 1) / 2) * 0.09
        measured = [rate for rate in rates if any(run["rate"] == rate for run in of_name)]
        at = [rates.index(rate) + shift for rate in measured]
        p50, p99 = (
            [statistics.median(run[percentile] for run in of_name if run["rate"] == rate) for rate in measured]
            for percentile in ("p50", "p99")
        )
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


def _objective(section: Section) -> str:
    """p99 and mean batch size by load; a line per policy, dashed for further delivery modes."""
    figure, (late, size) = new_figure(columns=2)
    modes = section["settings"]["modes"]
    lines: dict[tuple[str, str], list[Run]] = {}
    for run in section["runs"]:
        lines.setdefault((run["policy"], run["contender"]), []).append(run)
    policies = list(dict.fromkeys(policy for policy, _ in lines))
    for (policy, mode), runs in lines.items():
        place = policies.index(policy)
        label = policy if len(modes) == 1 else f"{policy}, {mode}"
        style = "-" if mode == modes[0] else "--"
        for axes, figure_name in ((late, "p99"), (size, "mean_batch")):
            axes.plot(
                [run["load"] for run in runs], [run[figure_name] or 0 for run in runs], style, label=label,
                color=(OURS, THEIRS, LIMIT, WRONG)[place % 4], marker="osD^"[place % 4], markersize=4,
            )  # fmt: skip
    late.axhline(section["settings"]["slo_s"] * 1000, color=WRONG, linewidth=1, linestyle=":")
    for axes, title in ((late, "p99, ms; dotted: the objective"), (size, "records a batch")):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.set(xlabel="load, per cent of capacity", title=title)
    size.legend(loc="upper left", frameon=False, fontsize=8)
    return svg(figure)


def _scale(section: Section) -> str:
    """Events per second by workers, beside what as many times one would be."""
    figure, (axes,) = new_figure()
    shapes = {
        shape: statistics.median(run["events_per_s"] for run in runs) for shape, runs in by_shape(section).items()
    }
    numbers = sorted({number for number, _ in shapes})
    alone = shapes.get((1, "workers"))
    for how, colour, marker in (("workers", OURS, "o"), ("processes", LIMIT, "s")):
        own = {number: speed for (number, kind), speed in shapes.items() if kind == how}
        points = {1: alone} | own if alone is not None else own
        axes.plot(list(points), list(points.values()), color=colour, marker=marker, label=f"{how} of one group")
    if alone is not None:
        axes.plot(numbers, [alone * number for number in numbers], color=THEIRS, linestyle=":", label="times one")
    axes.set_xticks(numbers)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="workers", ylabel="events per second", title="Throughput by workers, model of fixed cost")
    axes.legend(loc="upper left", frameon=False)
    return svg(figure)


def _memory(section: Section) -> str:
    """Resident memory over time: of the drains, and of the long run."""
    figure, (drains, soak) = new_figure(columns=2)
    for run in section["runs"]:
        of_drain = run["run"] == "drain"
        axes, unit = (drains, 1.0) if of_drain else (soak, 60.0)
        colour = (OURS if run["record_bytes"] < LARGE_BYTES else LIMIT) if of_drain else OURS
        label = f"{run['record_bytes']:,} bytes" if of_drain else None
        axes.plot([at / unit for at, _ in run["rss"]], [mb for _, mb in run["rss"]], color=colour, label=label)
        if of_drain:
            axes.axhline(run["most_mb"], color=colour, linewidth=1, linestyle=":")
            axes.legend(loc="lower right", frameon=False)
    drains.set(xlabel="seconds", ylabel="resident MB", title="Draining a backlog; dotted: at most")
    soak.set(xlabel="minutes", title="A long run with rebalances")
    for axes in (drains, soak):
        axes.set_ylim(bottom=0)
    return svg(figure)


DRAWN: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "drain": _bars,
    "latency": _latency,
    "batch": _batch,
    "forest": _bars,
    "objective": _objective,
    "scale": _scale,
    "memory": _memory,
}
