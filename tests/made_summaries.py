"""Summaries as workers write them, from rows that a test knows; and their bytes."""

from math import inf
from pathlib import Path

import numpy as np

from app.avro.framing import SingleObjectFraming
from app.avro.record_writer import RecordWriter
from app.avro.schemas import SchemaDirectory

SCHEMAS = SchemaDirectory(Path(__file__).resolve().parent.parent / "schemas")
SHARES = tuple(step / 20 for step in range(1, 20))
LATENCIES_S = (0.001, 0.01, 0.1, 1.0, 10.0)
START_MS = 1_800_000_000_000  # a multiple of 60 s


def histogram(values, edges):
    counts = np.histogram(values, [-inf, *edges, inf])[0]
    return {"edges": list(edges), "counts": counts.tolist()}


def number(name, values, edges, rows=None, missing=0):
    values = np.asarray(values, np.float64)
    return {
        "name": name, "kind": "number", "count": len(values) + missing if rows is None else rows, "missing": missing,
        "unknown": 0, "sum": float(values.sum()), "sum_squares": float((values**2).sum()),
        "min": float(values.min(initial=inf)), "max": float(values.max(initial=-inf)),
        "counts": histogram(values, edges)["counts"],
    }  # fmt: skip


def category(name, counts, missing=0, unknown=0):
    return {
        "name": name, "kind": "category", "count": sum(counts) + missing + unknown, "missing": missing,
        "unknown": unknown, "sum": 0.0, "sum_squares": 0.0, "min": inf, "max": -inf, "counts": list(counts),
    }  # fmt: skip


def summary(scores=(), *, pipeline="churn", model="churn", version="1", start_ms=START_MS, features=(), latencies=()):
    """A record of ModelSummary for predictions of two classes with these scores."""
    scores = np.asarray(scores, np.float64)
    confidence = np.maximum(scores, 1 - scores)
    return {
        "pipeline": pipeline, "model": model, "version": version, "digest": f"digest-{version}",
        "window_start": start_ms, "from_ms": start_ms, "to_ms": start_ms + 999, "records": len(scores),
        "classes": [
            {"label": "0", "count": int((scores < 0.5).sum())},
            {"label": "1", "count": int((scores >= 0.5).sum())},
        ],
        "confidence": histogram(confidence, SHARES), "confidence_sum": float(confidence.sum()),
        "low_confidence": int((confidence < 0.6).sum()),
        "score": histogram(scores, SHARES), "score_sum": float(scores.sum()),
        "score_sum_squares": float((scores**2).sum()),
        "latency": histogram(latencies, LATENCIES_S), "latency_sum": float(np.sum(latencies)),
        "features": list(features),
    }  # fmt: skip


def framed(record, schema="ModelSummary"):
    """As the worker writes it without a schema registry."""
    known = SCHEMAS.named(schema)
    return RecordWriter(SingleObjectFraming.header(known.fingerprint), known).write(record)
