"""The results for people: a block of Markdown, from the JSON alone, put between two marks of a page.

What stands outside the marks is somebody else's and stays.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadgen.bench.memory_page import memory_lines
from loadgen.bench.plan import PEERS, WORKERS
from loadgen.bench.quix_venv import QUIX_VERSION
from loadgen.bench.ratios import Ratio, paired_ratio
from loadgen.bench.slow_page import objective_lines, scale_lines
from loadgen.bench.words import FOLDER, Run, Section, cell, cpus, ms, multiple, speeds, spread, where

BEGIN = "<!-- loadgen bench: begin. Written by the command; edits are lost. -->"
END = "<!-- loadgen bench: end -->"
ONNX_ALONE = "onnx_alone"
TITLES: Mapping[str, str] = {**PEERS, ONNX_ALONE: "ONNX Runtime alone, one thread, no Kafka"}


def write_page(path: Path, sections: Mapping[str, Section]) -> None:
    """Replace the block of the page, or append it; a page that is not there is made."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(with_block(text, block(sections)), encoding="utf-8")


def with_block(text: str, written: str) -> str:
    """The page with this block in place of the one it has, or at its end."""
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        before, after = text.rstrip() + "\n\n", "\n"
    return f"{before}{BEGIN}\n{written}\n{END}{after}"


def block(sections: Mapping[str, Section]) -> str:
    """All sections that were measured."""
    lines: list[str] = []
    for name, writer in WRITERS.items():
        if name in sections:
            lines += [*writer(sections[name]), ""]
    return "\n".join([*lines, *_machines(sections), f"Every run is in [{FOLDER}/results.json]({FOLDER}/results.json)."])


def _drain(section: Section) -> list[str]:
    settings = section["settings"]
    how = (
        f"{settings['rounds']} rounds in one sitting, every contender once a round, each alone with the broker; median "
        "and (range). The clock runs from the first output to the commit of the last offset. CPU time is "
        f"the process's, all threads. Logistic model. quixstreams is {QUIX_VERSION}, with the confluent-kafka it pins."
        f"{_set(settings)}"
    )
    lines = [
        "## Draining a backlog",
        "",
        f"{where(section)} {how}",
        "",
        *_drain_table(section, with_events=settings["events"]),
        "",
    ]
    for mode in WORKERS:
        lines += _ratios(section, mode)
    return [*lines, f"![throughput and CPU time]({FOLDER}/drain.svg)"]


def _drain_table(section: Section, with_events: Mapping[str, int] | None) -> list[str]:
    lines = [
        "| | events | events per second | CPU s per million | peak MB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, runs in by_contender(section).items():
        good = [run for run in runs if "error" not in run]
        events = f"{with_events[name]:,}" if with_events and name in with_events else ""
        if not good:
            lines.append(f"| {_title(name)} | {events} | failed: {cell(runs[0]['error'])} | | |")
            continue
        if len(good) < len(runs):
            events = f"{events} ({len(runs) - len(good)} of {len(runs)} runs failed)".strip()
        memory = [run["peak_mb"] for run in good if "peak_mb" in run]
        lines.append(
            f"| {_title(name)} | {events} | {speeds(good)} | {cpus(good)} | {f'{max(memory):.0f}' if memory else ''} |"
        )
    return lines


def _ratios(section: Section, mode: str) -> list[str]:
    runs = by_contender(section)
    rows = []
    for name in runs:
        speed, cpu = (ratio_of(section, mode, name, figure) for figure in ("events_per_s", "cpu_s_per_million"))
        if name != mode and speed and cpu:
            rows.append(f"| {_title(name)} | {multiple(speed)} | {multiple(cpu)} | {speed.pairs} |")
    if not rows:
        return []
    return [
        f"{_sentence(mode)} as a multiple of each contender in the same round (geometric mean, 95 % interval):",
        "",
        "| against | events per second | CPU time per event | pairs |",
        "|---|---:|---:|---:|",
        *rows,
        "",
    ]


def _latency(section: Section) -> list[str]:
    settings = section["settings"]
    peers, worker = settings["peers"], settings["worker"]
    told = {name: value for name, value in worker["batch"].items() if name != "max_records"}
    told |= {path: value for path, value in worker["set"].items() if not path.startswith("pipelines.batch.")}
    words = ", ".join(f"`{name}: {value}`" for name, value in told.items())
    rates = sorted({run["rate"] for run in section["runs"]})
    rounds = settings.get("rounds", 1)  # older results have one and do not say so
    medians = f"; of each the median of {rounds} rounds, of p99 the range too" if rounds > 1 else ""
    how = (
        "Milliseconds from the intended send to the receipt by a `read_committed` reader: p50 / p99 / p99.9 over "
        f"{settings['seconds']:g} s, after {settings['warmup_s']:g} s of warm-up{medians}. Set for latency: the worker "
        f"has {words}, the rest at its defaults; peers wait "
        f"{peers['wait_s'] * 1000:g} ms for a batch, have `linger.ms` {peers['linger_ms']:g}, and commit every "
        f"{peers['commit_s']:g} s."
    )
    lines = [
        "## Latency at fixed rates",
        "",
        f"{where(section)} {how}",
        "",
        "| | " + " | ".join(f"{rate:,}/s" for rate in rates) + " |",
        "|---|" + "---:|" * len(rates),
    ]
    for name, runs in by_contender(section).items():
        cells = [_latency_cell([run for run in runs if run["rate"] == rate]) for rate in rates]
        lines.append(f"| {_title(name)} | " + " | ".join(cells) + " |")
    return [*lines, "", f"![latency by rate]({FOLDER}/latency.svg)"]


def _latency_cell(runs: Sequence[Run]) -> str:
    good = [run for run in runs if "error" not in run]
    if not good:
        return f"failed: {cell(runs[0]['error'])}" if runs else ""
    p50, p99_9 = (ms(statistics.median(run[name] for run in good)) for name in ("p50", "p99_9"))
    lost = sum(run["missing"] for run in good)
    missing = f", {lost:,} missing" if lost else ""
    failed = f", {len(runs) - len(good)} of {len(runs)} runs failed" if len(good) < len(runs) else ""
    return f"{p50} / {spread(good, 'p99', ms)} / {p99_9}{missing}{failed}"


def _batch(section: Section) -> list[str]:
    sizes, settings = by_batch(section), section["settings"]
    how = (
        f"The worker, {settings['mode'].replace('_', ' ')}, `batch.max_records` varied; median and range of "
        f"{settings['rounds']} drains each. Logistic model."
    )
    lines = [
        "## Throughput by batch size",
        "",
        f"{where(section)} {how}",
        "",
        "| max_records | events per second | CPU s per million |",
        "|---:|---:|---:|",
        *(f"| {size:,} | {speeds(runs)} | {cpus(runs)} |" for size, runs in sizes.items()),
    ]
    return [*lines, "", f"![throughput by batch size]({FOLDER}/batch.svg)"]


def _forest(section: Section) -> list[str]:
    settings = section["settings"]
    how = f"{settings['events']:,} events, {settings['rounds']} rounds; alone, batches of {settings['batch']}."
    if told := settings["worker"]["set"]:
        how += f" The worker with {', '.join(f'`{path}: {value}`' for path, value in told.items())}."
    lines = [
        "## A forest of 100 trees, depth 6",
        "",
        f"{where(section)} {how}",
        "",
        *_drain_table(section, with_events=None),
        "",
    ]
    for mode in WORKERS:
        alone = ratio_of(section, mode, ONNX_ALONE, "events_per_s")
        if alone:
            lines += [f"{_sentence(mode)} has {multiple(alone, percent=True)} of ONNX Runtime's own throughput.", ""]
    return [*lines, f"![the forest]({FOLDER}/forest.svg)"]


WRITERS: Mapping[str, Callable[[Section], list[str]]] = {
    "drain": _drain,
    "latency": _latency,
    "batch": _batch,
    "forest": _forest,
    "objective": objective_lines,
    "scale": scale_lines,
    "memory": memory_lines,
}


def by_contender(section: Section) -> dict[str, list[Run]]:
    """Runs of each contender: the known ones in their usual order, then the others."""
    found: dict[str, list[Run]] = {}
    for run in section["runs"]:
        found.setdefault(run["contender"], []).append(run)
    order = list(TITLES)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def by_batch(section: Section) -> dict[int, list[Run]]:
    """Good runs of each batch size, rising."""
    found: dict[int, list[Run]] = {}
    for run in section["runs"]:
        if "error" not in run:
            found.setdefault(run["batch"], []).append(run)
    return dict(sorted(found.items()))


def ratio_of(section: Section, first: str, second: str, figure: str) -> Ratio | None:
    """One contender's figure to another's, over the rounds in which both succeeded; None if there is none."""

    def by_round(name: str) -> dict[int, float]:
        runs = by_contender(section).get(name, [])
        return {run["round"]: run[figure] for run in runs if run.get(figure)}

    ours, theirs = by_round(first), by_round(second)
    pairs = [(ours[number], theirs[number]) for number in sorted(ours.keys() & theirs.keys())]
    return paired_ratio(pairs) if pairs else None


def _set(settings: Mapping[str, Any]) -> str:
    """What the worker was given beyond its defaults, if anything."""
    given = settings["worker"]["set"]
    return f" The worker has {', '.join(f'`{name}: {value}`' for name, value in given.items())}." if given else ""


def _machines(sections: Mapping[str, Section]) -> list[str]:
    """A line per distinct machine and set of libraries: usually one."""
    used: dict[str, list[str]] = {}
    for name in WRITERS:
        if name in sections:
            machine = sections[name]["machine"]
            libraries = ", ".join(f"{library} {number}" for library, number in machine["libraries"].items())
            text = f"{machine['platform']}, Python {machine['python']}, {libraries}"
            used.setdefault(text, []).append(name)
    return [f"Measured ({', '.join(names)}) on {text}." for text, names in used.items()]


def _title(name: str) -> str:
    return TITLES.get(name, name)


def _sentence(mode: str) -> str:
    return f"The worker, {mode.replace('_', ' ')},"
