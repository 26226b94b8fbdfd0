"""Batch scoring, measured: rows per second of one core, where its time goes, and that memory does not grow with rows.

    .venv/bin/python tests/bench/batch_scoring.py --rows 1000000 10000000 50000000

The customers are generated once and repeated, row group by row group. Each job is a process of its own, held to one
core where the system lets us: `inference-worker score` as a user starts it, key and answers written as Parquet.
"""

import argparse
import cProfile
import json
import os
import pstats
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from app.train.churn_data import ChurnFormula
from app.wiring import scoring, training

GROUP_ROWS = 1_000_000
# What a function of ours or of a library is part of, by the end of its file's path and its name.
STAGES = {
    ("core.py", "write_batch"): "write Parquet",
    ("rows_in.py", "pieces"): "read Parquet",
    ("infer.py", "infer"): "model, checks, what is derived",
    ("plan.py", "apply"): "features",
    ("scorer.py", "_table"): "answers as columns",
    ("local_folder.py", "create"): "to the disk",
    ("casts.py", "apply"): "casts",
}


@dataclass(frozen=True)
class Measured:
    """One job. cpu_s, peak_mb: of its process; start_s of the CPU time is spent before the first row."""

    rows: int
    wall_s: float
    cpu_s: float
    start_s: float
    peak_mb: float

    @property
    def rows_per_cpu_s(self) -> float:
        """Without the start."""
        return self.rows / (self.cpu_s - self.start_s)


def customers(path, rows):
    """A Parquet file of so many customers; a million different ones."""
    table = ChurnFormula.load(training.SHIPPED_SCHEMAS).customers(1, 0, min(rows, GROUP_ROWS)).table
    with pa.parquet.ParquetWriter(path, table.schema) as writer:
        for start in range(0, rows, GROUP_ROWS):
            writer.write_batch(table.slice(0, rows - start), row_group_size=GROUP_ROWS)
            # one row group each: a writer would put them together


def score(store, rows, out):
    """(wall, CPU, peak MB) of one job."""
    held = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))] if shutil.which("taskset") else []
    command = [sys.executable, "-m", "app", "score", rows, out, "--model", "churn", "--store", store]
    started = time.perf_counter()
    process = subprocess.Popen([*held, *map(str, command), "--key", "customer_id"], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"score ended with {process.returncode}")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def profile(store, rows, out):
    """Share of the time in each stage, by name."""
    given = {"key": "customer_id", "keep": (), "output": "parquet", "chunk_rows": GROUP_ROWS}
    order = scoring.order_of(
        str(rows), str(out), "churn", None, **given, delimiter=",", missing=(), bad_output="dead_letter"
    )
    profiler = cProfile.Profile()
    profiler.runcall(scoring.score_files, order, str(store), None, lambda *_: None)
    found = pstats.Stats(profiler).stats
    run = next(row[3] for (file, _, name), row in found.items() if file.endswith("scoring/job.py") and name == "run")
    seconds = {}
    for (file, _, name), row in found.items():
        stage = STAGES.get((Path(file).name, name))
        if stage:
            seconds[stage] = seconds.get(stage, 0.0) + row[3]
    shares = {stage: spent / run for stage, spent in sorted(seconds.items(), key=lambda pair: -pair[1])}
    return shares | {"all else": 1 - sum(shares.values())}


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batch-scoring-") as folder:
        place = Path(folder)
        training.train(
            "churn", store=str(place / "models"), estimator=None, rows=20_000, seed=0, progress=lambda _: None
        )
        customers(place / "one.parquet", 1)
        start_s = min(score(place / "models", place / "one.parquet", place / f"start-{turn}")[1] for turn in range(3))
        measured = []
        for rows in options.rows:
            customers(place / "rows.parquet", rows)
            wall_s, cpu_s, peak_mb = score(place / "models", place / "rows.parquet", place / f"out-{rows}")
            measured.append(Measured(rows, wall_s, cpu_s, start_s, peak_mb))
        customers(place / "rows.parquet", GROUP_ROWS)
        shares = profile(place / "models", place / "rows.parquet", place / "profiled")
    if options.json:
        jobs = [asdict(one) | {"rows_per_cpu_s": one.rows_per_cpu_s} for one in measured]
        Console().print_json(json.dumps({"jobs": jobs, "shares": shares}))
        return
    table = Table("rows", "s", "CPU s", "rows per CPU s", "peak MB", title="inference-worker score, churn, one core")
    for one in measured:
        figures = (f"{one.wall_s:.1f}", f"{one.cpu_s:.1f}", f"{one.rows_per_cpu_s:,.0f}", f"{one.peak_mb:,.0f}")
        table.add_row(f"{one.rows:,}", *figures)
    Console().print(table)
    for stage, share in shares.items():
        Console().print(f"{share:5.0%}  {stage}")


if __name__ == "__main__":
    main()
