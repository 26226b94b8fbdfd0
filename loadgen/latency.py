"""Latency from the intended send time: percentiles by HDR histogram, and how they went over time.

An open loop needs no correction for coordinated omission: event_time is when an event was meant to be sent,
so a stall counts against every event that was due during it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

Basis = Literal["received", "appended"]
SIGNIFICANT_DIGITS = 3
MAX_US = 24 * 3_600 * 1_000_000  # one day; what is longer is counted as one day
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
CURVE = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0)
MAX_BUCKETS = 300  # points of the timeline: enough for any plot


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """All in milliseconds.

    basis: "received" is when a reader had the prediction, "appended" its record timestamp. negative: how
    many were below zero (clocks that disagree) and counted as zero. curve: (percentile, ms) pairs.
    """

    basis: Basis
    count: int
    negative: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """Predictions that became available within one stretch of the run.

    at_s: where the stretch begins, since the start. Latency in ms.
    """

    at_s: float
    predictions_per_s: float
    p50: float
    p99: float
    max: float


def summarize(latency_ms: NDArray[np.float64], basis: Basis) -> LatencySummary | None:
    """Return the summary of some latencies; None if there are none."""
    if len(latency_ms) == 0:
        return None
    clamped_us = np.clip(latency_ms * 1000.0, 0, MAX_US)
    top_us = float(clamped_us.max())
    histogram = HdrHistogram(1, MAX_US, SIGNIFICANT_DIGITS)
    # One call per distinct value, not per event; below 10 ms every microsecond stays distinct.
    rounded = _three_digits(clamped_us)
    for value, count in zip(*np.unique(rounded, return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))

    def at(percentile: float) -> float:
        # A bucket is named by its upper end: nothing may seem greater than the greatest, known exactly.
        value_us = top_us if percentile == 100.0 else float(histogram.get_value_at_percentile(percentile))
        return round(min(value_us, top_us) / 1000.0, 3)

    p50, p90, p95, p99, p99_9, top = (at(percentile) for percentile in PERCENTILES)
    return LatencySummary(
        basis=basis,
        count=len(latency_ms),
        negative=int((latency_ms < 0).sum()),
        mean=round(float(clamped_us.mean()) / 1000.0, 3),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        p99_9=p99_9,
        max=top,
        curve=tuple((percentile, at(percentile)) for percentile in CURVE),
    )


def _three_digits(values_us: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round to 4 significant digits: finer than the histogram keeps, and few distinct values."""
    digits = np.floor(np.log10(np.maximum(values_us, 1.0)))
    grain = 10.0 ** np.maximum(digits - SIGNIFICANT_DIGITS, 0)
    rounded: NDArray[np.int64] = (np.round(values_us / grain) * grain).astype(np.int64)
    return rounded


def timeline(available_ms: NDArray[np.float64], latency_ms: NDArray[np.float64]) -> list[TimelinePoint]:
    """Return latency and throughput over time.

    In stretches of whole seconds, or of 0.1 s if the run is shorter than 3 s.
    """
    if len(available_ms) == 0:
        return []
    start_ms = float(available_ms.min())
    span_s = (float(available_ms.max()) - start_ms) / 1000.0
    width_s = 0.1 if span_s < 3 else float(max(1, int(np.ceil(span_s / MAX_BUCKETS))))
    bucket = ((available_ms - start_ms) / 1000.0 // width_s).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    numbers, starts = np.unique(bucket[order], return_index=True)
    points = []
    for number, values in zip(numbers, np.split(np.maximum(latency_ms[order], 0), starts[1:]), strict=True):
        p50, p99 = np.percentile(values, [50, 99])
        points.append(
            TimelinePoint(
                at_s=round(float(number) * width_s, 3),
                predictions_per_s=round(len(values) / width_s, 1),
                p50=round(float(p50), 3),
                p99=round(float(p99), 3),
                max=round(float(values.max()), 3),
            )
        )
    return points
