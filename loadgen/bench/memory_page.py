"""The page's section on memory: large backlogs, and a long run with rebalances."""

from loadgen.bench.memory_watch import TEN_MINUTES_S, slope_mb_per_10_min
from loadgen.bench.words import FOLDER, Run, Section, cell, where


def memory_lines(section: Section) -> list[str]:
    """A table of the drains, and what the soak has shown."""
    drains = [run for run in section["runs"] if run["run"] == "drain"]
    soaks = [run for run in section["runs"] if run["run"] == "soak"]
    how = (
        "The worker at its defaults, exactly once; its resident memory once a second, its peak from the kernel. The "
        "size of a record is that of its value, of which 10 bytes are the header."
    )
    lines = ["## Memory", "", f"{where(section)} {how}", ""]
    if drains:
        lines += [
            "| draining | events | peak MB | at most | events per second |",
            "|---|---:|---:|---:|---:|",
            *map(_drain_row, drains),
            "",
        ]
    for run in soaks:
        lines += [_soak(run), ""]
    return [*lines, f"![resident memory over time]({FOLDER}/memory.svg)"]


def _drain_row(run: Run) -> str:
    begins = f"| records of {run['record_bytes']:,} bytes | {run['events']:,} |"
    if "error" in run:
        return f"{begins} failed: {cell(run['error'])} | {run['most_mb']:g} | |"
    return f"{begins} {run['peak_mb']:.0f} | {run['most_mb']:g} | {run['events_per_s']:,.0f} |"


def _soak(run: Run) -> str:
    begins = f"A run of {run['minutes']:g} minutes"
    if "error" in run:
        return f"{begins} failed: {cell(run['error'])}."
    verified = (
        "every event had exactly one outcome" if run["verified"] else "**but not every event had exactly one outcome**"
    )
    return (
        f"{begins}, {run['events']:,} events at {run['events_per_s']:,.0f} a second on average, the rate going up and "
        f"down with spikes between; batches of {run['mean_batch']:.1f} records on average; a second worker joined and "
        f"left {run['joins']} times ({run['rebalances']:,} rebalances at the first one): resident memory rose by "
        f"**{run['slope_mb_per_10_min']:+.2f} MB per 10 minutes** (least squares, after the first "
        f"{run['from_s'] / 60:.2g} minutes; at most {run['most_slope_mb']:g}){_last_minutes(run)}, peak "
        f"{run['peak_mb']:.0f} MB, of the second worker {run['second_peak_mb']:.0f} MB; {verified}."
    )


def _last_minutes(run: Run) -> str:
    """Whether it still rose at the end; of a run that was long enough to say so."""
    samples = [(at_s, mb) for at_s, mb in run["rss"]]
    last_from_s = (samples[-1][0] if samples else 0.0) - TEN_MINUTES_S
    if last_from_s <= run["from_s"]:
        return ""
    return f", in the last ten minutes by {slope_mb_per_10_min(samples, last_from_s):+.2f} MB"
