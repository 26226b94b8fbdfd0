"""One pipeline's part of a snapshot: its latency, its batches, and the versions that answer."""

import math
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from app.observe.distribution import Distribution
from app.observe.growth import LATENCY, KeptLook, Rates, grown
from app.observe.look import Figures, Labels


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """What settings say of a pipeline."""

    name: str
    model: str
    inputs: tuple[str, ...]
    output: str
    dead_letters: str
    group: str


def pipeline_snapshot(
    pipeline: PipelineFacts, figures: Figures, now: KeptLook, window: KeptLook, rates: Rates
) -> dict[str, Any]:
    """As it is in a snapshot. window: the oldest look that is remembered."""
    own: Labels = (("pipeline", pipeline.name),)

    def spread(name: str) -> Distribution | None:
        found = now.spread[name].get(own)
        return None if found is None else found.since(window.spread[name].get(own))

    batches = {
        cause: grown(now, window, "inference_batches_total", pipeline=pipeline.name, cause=cause)
        for cause in ("records", "bytes", "age", "drain")
    }
    objective = figures.series("inference_slo_seconds").get(own)
    return {
        "name": pipeline.name,
        "records_per_s": rates.of("inference_records_total", pipeline=pipeline.name),
        "end_to_end": percentiles(spread(LATENCY)),
        "batch_wait": percentiles(spread("inference_batch_wait_seconds")),
        "batch_records": percentiles(spread("inference_batch_records")),
        "batches": batches,
        "batches_per_s": rates.of("inference_batches_total", pipeline=pipeline.name),
        "objective_s": objective,
        "waiting_partitions": figures.total("inference_waiting_partitions", pipeline=pipeline.name),
        "revision": figures.series("inference_rollout_revision").get((*own, ("model", pipeline.model))),
        "rollout": _rollout({labels["part"] for labels in _loaded(pipeline, figures)}),
        "versions": _versions(pipeline, figures, now, window, rates),
        "shadows": _shadows(pipeline, figures),
    }


def _loaded(pipeline: PipelineFacts, figures: Figures) -> list[dict[str, str]]:
    return [labels for labels, _ in figures.of("inference_model_info") if labels["pipeline"] == pipeline.name]


def _rollout(parts: Set[str]) -> str:
    """The kind of rollout, by the parts that versions have in it."""
    beside = parts - {"stable", "previous"}
    if not beside:
        return "one version"
    return {frozenset({"canary"}): "canary", frozenset({"standby"}): "blue-green"}.get(frozenset(beside), "A/B")


def _versions(
    pipeline: PipelineFacts, figures: Figures, now: KeptLook, window: KeptLook, rates: Rates
) -> list[dict[str, Any]]:
    answers = "inference_answers_total"
    loaded = _loaded(pipeline, figures)
    all_of_it = grown(now, window, answers, pipeline=pipeline.name)
    found = []
    for labels in sorted(loaded, key=lambda labels: (labels["part"] != "stable", labels["version"], labels["part"])):
        version = {"model": labels["model"], "version": labels["version"]}
        own = tuple(version.items())
        seconds = now.spread["inference_model_seconds"].get(own)
        answered = grown(now, window, answers, pipeline=pipeline.name, answered_by=labels["part"], **version)
        found.append(
            {
                "version": labels["version"],
                "part": labels["part"],
                "digest": labels["digest"],
                "per_s": rates.of(answers, pipeline=pipeline.name, answered_by=labels["part"], **version),
                "share": answered / all_of_it if all_of_it else None,
                "load_s": figures.series("inference_model_load_seconds").get(own),
                "failures": figures.total("inference_model_failures_total", pipeline=pipeline.name, **version),
                "model_time": percentiles(
                    None if seconds is None else seconds.since(window.spread["inference_model_seconds"].get(own))
                ),
            }
        )
    return found


def _shadows(pipeline: PipelineFacts, figures: Figures) -> list[dict[str, Any]]:
    shadows: dict[str, dict[str, float]] = {}
    for labels, count in figures.of("inference_shadow_rows_total"):
        if labels["pipeline"] == pipeline.name:
            shadows.setdefault(labels["version"], {})[labels["result"]] = count
    return [{"version": version, "rows": rows} for version, rows in sorted(shadows.items())]


def percentiles(spread: Distribution | None) -> dict[str, float | None] | None:
    """None of nothing. A percentile that is None is above at_most, the largest value that is told from others."""
    if spread is None or not spread.count:
        return None
    found = {f"p{round(share * 100)}": spread.quantile(share) for share in (0.5, 0.95, 0.99)}
    told = {name: None if value is None or math.isinf(value) else value for name, value in found.items()}
    return {**told, "mean": spread.mean, "count": spread.count, "at_most": spread.largest_bound}
