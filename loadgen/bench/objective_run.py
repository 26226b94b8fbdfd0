"""One step of a load sweep: how many records were on time, and in what batches the worker took them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.bench.contenders import Started
from loadgen.bench.latency_run import Load, latency_figures, timed_run
from loadgen.bench.peer_process import PeerProcess
from loadgen.bench.worker_metrics import Scrape, batches_between, scrape
from loadgen.bench.worker_settings import Lane


def objective_run(lane: Lane, started: Started, load: Load, slo_s: float, schemas: Path, log: Path) -> dict[str, Any]:
    """As latency_run, and: share_on_time, mean_batch (None without a batch) and batches_per_s, of the measured time.

    started: a worker. What is on time was with the reader within slo_s of its intended send, so the reader's own
    share counts, too. Raises ContenderFailed.
    """
    seen: list[Scrape] = []

    def look(_peer: PeerProcess) -> None:
        seen.append(scrape(log))

    timed = timed_run(lane, started, load, schemas, log, warm=look, done=look)
    batches = batches_between(seen[0], seen[-1])
    return {
        **latency_figures(timed, load),
        "share_on_time": round(share_on_time(timed.latency_ms, slo_s), 6),
        "mean_batch": batches.mean_records,
        "batches_per_s": batches.per_s,
    }


def share_on_time(latency_ms: NDArray[np.float64], slo_s: float) -> float:
    """Of all events that were due; one without an output (NaN) is not on time."""
    return float(np.count_nonzero(latency_ms <= slo_s * 1000.0)) / len(latency_ms)
