"""What the live page and `inference-worker top` show: one JSON object a second, made of looks at the metrics.

Rates are of the last RATE_S, percentiles of the last WINDOW_S, both of as much as was looked at: nobody looks when no
page is open, so the first snapshot after a while has neither. Nothing here waits, and nothing here is on a thread of
Kafka's: the metrics are read while their owners go on.

Longer than most files because it is one object, written down part by part in the order in which it is shown.
"""

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from app.clock import Clock
from app.facts import Refused
from app.observe.distribution import Distribution
from app.observe.look import Figures, Labels, Samples, Watched

FORMAT = 1
RATE_S = 5.0
WINDOW_S = 30.0
TOLERANCE_S = 0.5  # looks are a second apart, and some milliseconds
MOST_PARTITIONS = 100  # shown, those furthest behind; a worker may own thousands
LATENCY = "inference_end_to_end_latency_seconds"
_Counts = Mapping[str, Mapping[Labels, float]]
_Spread = Mapping[str, Mapping[Labels, Distribution]]
_SPREAD = (LATENCY, "inference_batch_wait_seconds", "inference_batch_records", "inference_model_seconds")
_COUNTED = ("inference_records_total", "inference_batches_total", "inference_answers_total",
            "inference_transactions_total", "inference_dead_letters_total")  # fmt: skip
# What went wrong: the metric, labels that it must have, in words.
_TROUBLES: tuple[tuple[str, Mapping[str, str], str], ...] = (
    ("inference_model_failures_total", {}, "batches that a version failed on by its own fault"),
    ("inference_transactions_total", {"result": "aborted"}, "transactions aborted; their records were read again"),
    ("inference_transactions_total", {"result": "dropped"}, "transactions whose end only the broker knows"),
    ("inference_rollout_errors_total", {}, "looks at the model store that found nothing usable"),
    ("inference_shadow_errors_total", {}, "failures of a shadow's process"),
    ("inference_offset_resets_total", {"reason": "out_of_range"}, "partitions whose offset retention overtook"),
    ("inference_records_missed_total", {}, "records never read: retention or a reset passed them over"),
    ("inference_partition_changes_total", {}, "changes of a topic's number of partitions"),
    ("inference_rebalances_total", {"kind": "lost"}, "rebalances in which partitions were lost"),
    ("inference_records_past_slo_total", {}, "records finished later than the latency objective"),
    ("inference_process_restarts_total", {}, "worker processes started again"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """What settings say of a pipeline."""

    name: str
    model: str
    inputs: tuple[str, ...]
    output: str
    dead_letters: str
    group: str


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What settings say of a worker. delivery: its mode."""

    instance: str
    version: str
    delivery: str
    processes: int
    pipelines: tuple[PipelineFacts, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is remembered of one look. finished: records of each process."""

    at_s: float
    counts: _Counts
    spread: _Spread
    troubles: Sequence[float]
    finished: Mapping[int, float]


class Snapshots:
    """Makes snapshots of one worker. For one thread."""

    def __init__(self, watched: Watched, facts: WorkerFacts, clock: Clock) -> None:
        self._watched, self._facts, self._clock = watched, facts, clock
        self._kept: deque[_Kept] = deque()

    def forget(self) -> None:
        """Nobody looks any more: what follows is compared with nothing of before."""
        self._kept.clear()

    def make(self, *, alive: str | None, ready: str | None) -> bytes:
        """JSON on one line. alive, ready: what the probes say."""
        return orjson.dumps(self.facts(alive=alive, ready=ready))

    def facts(self, *, alive: str | None, ready: str | None) -> dict[str, Any]:
        """The same, not yet JSON."""
        look = self._watched.look()
        figures = Figures([*look.processes.values(), look.rest])
        now = self._remembered(figures, look.processes)
        recent, window = _before(self._kept, now.at_s - RATE_S + TOLERANCE_S), self._kept[0]
        rates = _Rates(now, recent)
        return {
            "format": FORMAT,
            "at_ms": self._clock.now_ms(),
            "window_s": round(now.at_s - window.at_s, 3),
            "rate_s": round(now.at_s - recent.at_s, 3),
            "worker": asdict(self._facts),
            "alive": alive,
            "ready": ready,
            "throughput": _throughput(figures, rates),
            "end_to_end": _percentiles(_all_together(now, window)),
            "pipelines": [_pipeline(pipeline, figures, now, window, rates) for pipeline in self._facts.pipelines],
            "lag": _lag(figures),
            "delivery": _delivery(figures, rates),
            "dead_letters": {
                "in_window": _grown(now, window, "inference_dead_letters_total"),
                "reasons": _reasons(figures, now, window),
                "last": [_shown(refused) for refused in reversed(look.refused)],
            },
            "troubles": _troubles(now, window),
            "processes": self._processes(look.processes, figures, rates),
        }

    def _remembered(self, figures: Figures, processes: Mapping[int, Samples]) -> _Kept:
        now = _Kept(
            self._clock.monotonic(),
            {name: figures.series(name) for name in _COUNTED},
            {name: figures.distributions(name) for name in _SPREAD},
            [figures.total(name, **labels) for name, labels, _ in _TROUBLES],
            {slot: _finished(samples) for slot, samples in processes.items()},
        )
        while self._kept and self._kept[0].at_s < now.at_s - WINDOW_S - TOLERANCE_S:
            self._kept.popleft()
        self._kept.append(now)
        return now

    def _processes(self, processes: Mapping[int, Samples], figures: Figures, rates: "_Rates") -> list[dict[str, Any]]:
        if self._facts.processes == 1:
            return []
        again = {labels.get("slot"): count for labels, count in figures.of("inference_process_restarts_total")}
        return [
            _process(slot, processes.get(slot), again.get(str(slot), 0.0), rates)
            for slot in range(self._facts.processes)
        ]


class _Rates:
    """Per second, between two looks."""

    def __init__(self, now: _Kept, before: _Kept) -> None:
        self._now, self._before, self._elapsed_s = now, before, now.at_s - before.at_s

    def of(self, name: str, **labels: str) -> float | None:
        """None before there are two looks."""
        if self._elapsed_s <= 0:
            return None
        return _grown(self._now, self._before, name, **labels) / self._elapsed_s

    def of_process(self, slot: int) -> float | None:
        """Records finished; None if it was not there before."""
        if self._elapsed_s <= 0 or slot not in self._before.finished:
            return None
        return max(0.0, self._now.finished.get(slot, 0.0) - self._before.finished[slot]) / self._elapsed_s


def _before(kept: Sequence[_Kept], at_s: float) -> _Kept:
    """The newest look that is as old as that; the oldest if none is."""
    return next((look for look in reversed(kept) if look.at_s <= at_s), kept[0])


def _grown(now: _Kept, before: _Kept, name: str, **labels: str) -> float:
    wanted, old = set(labels.items()), before.counts[name]
    return sum(
        max(0.0, value - old.get(found, 0.0)) for found, value in now.counts[name].items() if wanted.issubset(found)
    )


def _throughput(figures: Figures, rates: _Rates) -> dict[str, Any]:
    outcomes = ("predicted", "dead_lettered", "expired", "skipped")
    return {
        "records_per_s": rates.of("inference_records_total"),
        "per_s": {outcome: rates.of("inference_records_total", outcome=outcome) for outcome in outcomes},
        "total": {outcome: figures.total("inference_records_total", outcome=outcome) for outcome in outcomes},
        "busy_ratio": figures.total("inference_busy_ratio"),
        "capacity_per_s": figures.total("inference_capacity_records_per_second"),
        "buffered_bytes": figures.total("inference_buffered_bytes"),
    }


def _all_together(now: _Kept, window: _Kept) -> Distribution | None:
    """End-to-end latency of all pipelines, whose bounds are the same."""
    several = [spread.since(window.spread[LATENCY].get(labels)) for labels, spread in now.spread[LATENCY].items()]
    if not several:
        return None
    counts = tuple(map(sum, zip(*(spread.counts for spread in several), strict=True)))
    return Distribution(several[0].bounds, counts, sum(spread.total for spread in several))


def _pipeline(pipeline: PipelineFacts, figures: Figures, now: _Kept, window: _Kept, rates: _Rates) -> dict[str, Any]:
    own: Labels = (("pipeline", pipeline.name),)

    def spread(name: str) -> Distribution | None:
        found = now.spread[name].get(own)
        return None if found is None else found.since(window.spread[name].get(own))

    batches = {
        cause: _grown(now, window, "inference_batches_total", pipeline=pipeline.name, cause=cause)
        for cause in ("records", "bytes", "age", "drain")
    }
    objective = figures.series("inference_slo_seconds").get(own)
    return {
        "name": pipeline.name,
        "records_per_s": rates.of("inference_records_total", pipeline=pipeline.name),
        "end_to_end": _percentiles(spread(LATENCY)),
        "batch_wait": _percentiles(spread("inference_batch_wait_seconds")),
        "batch_records": _percentiles(spread("inference_batch_records")),
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
    pipeline: PipelineFacts, figures: Figures, now: _Kept, window: _Kept, rates: _Rates
) -> list[dict[str, Any]]:
    answers = "inference_answers_total"
    loaded = _loaded(pipeline, figures)
    all_of_it = _grown(now, window, answers, pipeline=pipeline.name)
    found = []
    for labels in sorted(loaded, key=lambda labels: (labels["part"] != "stable", labels["version"], labels["part"])):
        version = {"model": labels["model"], "version": labels["version"]}
        own = tuple(version.items())
        seconds = now.spread["inference_model_seconds"].get(own)
        grown = _grown(now, window, answers, pipeline=pipeline.name, answered_by=labels["part"], **version)
        found.append(
            {
                "version": labels["version"],
                "part": labels["part"],
                "digest": labels["digest"],
                "per_s": rates.of(answers, pipeline=pipeline.name, answered_by=labels["part"], **version),
                "share": grown / all_of_it if all_of_it else None,
                "load_s": figures.series("inference_model_load_seconds").get(own),
                "failures": figures.total("inference_model_failures_total", pipeline=pipeline.name, **version),
                "model_time": _percentiles(
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


def _percentiles(spread: Distribution | None) -> dict[str, float | None] | None:
    """None of nothing. A percentile that is None is above at_most, the largest value that is told from others."""
    if spread is None or not spread.count:
        return None
    found = {f"p{round(share * 100)}": spread.quantile(share) for share in (0.5, 0.95, 0.99)}
    told = {name: None if value is None or math.isinf(value) else value for name, value in found.items()}
    return {**told, "mean": spread.mean, "count": spread.count, "at_most": spread.largest_bound}


def _lag(figures: Figures) -> dict[str, Any]:
    seconds, records = figures.series("inference_lag_seconds"), figures.series("inference_lag_records")
    furthest = heapq.nsmallest(
        MOST_PARTITIONS,
        (
            (-seconds.get(at, 0.0), -many, topic, int(number), at)
            for at, many in records.items()
            for (_, topic), (_, number) in [at]
        ),
    )
    return {
        "records": sum(records.values()),
        "seconds": max(seconds.values(), default=None),
        "assigned": len(records),
        "partitions": [
            {"topic": topic, "partition": number, "records": records[at], "seconds": seconds.get(at)}
            for _, _, topic, number, at in furthest
        ],
    }


def _delivery(figures: Figures, rates: _Rates) -> dict[str, Any]:
    transactions = "inference_transactions_total"
    return {
        "transactions": {
            result: figures.total(transactions, result=result) for result in ("committed", "aborted", "dropped")
        },
        "transactions_per_s": rates.of(transactions, result="committed"),
        "rebalances": {
            kind: figures.total("inference_rebalances_total", kind=kind) for kind in ("assigned", "revoked", "lost")
        },
    }


def _reasons(figures: Figures, now: _Kept, window: _Kept) -> list[dict[str, Any]]:
    name = "inference_dead_letters_total"
    reasons = [{**labels, "count": count, "in_window": _grown(now, window, name, **labels)}
               for labels, count in figures.of(name) if count]  # fmt: skip
    return sorted(reasons, key=lambda one: (-one["in_window"], -one["count"]))


def _shown(refused: Refused) -> dict[str, Any]:
    return {name: shown(value) if isinstance(value, str) else value for name, value in asdict(refused).items()}


def shown(text: str) -> str:
    """Text of others without what is not to be seen: control characters, and those that turn its direction."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _troubles(now: _Kept, window: _Kept) -> list[dict[str, Any]]:
    found = [
        {"what": words, "count": count, "in_window": max(0.0, count - before)}
        for (_, _, words), count, before in zip(_TROUBLES, now.troubles, window.troubles, strict=True)
        if count
    ]
    return sorted(found, key=lambda one: -one["in_window"])


def _process(slot: int, samples: Samples | None, again: float, rates: _Rates) -> dict[str, Any]:
    if samples is None:
        return {"slot": slot, "reports": False, "restarts": again}
    own = Figures([samples])
    lag = _lag(own)
    return {
        "slot": slot,
        "reports": True,
        "restarts": again,
        "records_per_s": rates.of_process(slot),
        "busy_ratio": own.total("inference_busy_ratio"),
        "lag_records": lag["records"],
        "lag_seconds": lag["seconds"],
        "assigned": lag["assigned"],
        "records": _finished(samples),
    }


def _finished(samples: Samples) -> float:
    return sum(value for (name, _), value in samples.items() if name == "inference_records_total")
