"""What the live page and `inference-worker top` show: one JSON object a second, made of looks at the metrics.

Rates are of the last RATE_S, percentiles of the last WINDOW_S, both of as much as was looked at: nobody looks when no
page is open, so the first snapshot after a while has neither. Nothing here waits, and nothing here is on a thread of
Kafka's: the metrics are read while their owners go on.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson

from app.clock import Clock
from app.facts import Refused
from app.observe.distribution import Distribution
from app.observe.growth import LATENCY, RATE_S, TOLERANCE_S, TROUBLES, KeptLook, Rates, Remembered, finished_of, grown
from app.observe.look import Figures, Lags, Look, Samples, Watched, together
from app.observe.pipeline_snapshot import PipelineFacts, percentiles, pipeline_snapshot

FORMAT = 1
MOST_PARTITIONS = 100  # shown, those furthest behind; a worker may own thousands


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What settings say of a worker. delivery: its mode."""

    instance: str
    version: str
    delivery: str
    processes: int
    pipelines: tuple[PipelineFacts, ...]


class Snapshots:
    """Makes snapshots of one worker. For one thread."""

    def __init__(self, watched: Watched, facts: WorkerFacts, clock: Clock) -> None:
        self._watched, self._facts, self._clock = watched, facts, clock
        self._remembered = Remembered(clock)

    def forget(self) -> None:
        """Nobody looks any more: what follows is compared with nothing of before."""
        self._remembered.forget()

    def make(self, *, alive: str | None, ready: str | None) -> bytes:
        """JSON on one line. alive, ready: what the probes say."""
        return orjson.dumps(self.facts(alive=alive, ready=ready))

    def facts(self, *, alive: str | None, ready: str | None) -> dict[str, Any]:
        """The same, not yet JSON."""
        look = self._watched.look()
        figures = Figures([*look.processes.values(), look.rest])
        now = self._remembered.keep(figures, look.processes)
        recent, window = self._remembered.before(now.at_s - RATE_S + TOLERANCE_S), self._remembered.oldest
        rates = Rates(now, recent)
        return {
            "format": FORMAT,
            "at_ms": self._clock.now_ms(),
            "window_s": round(now.at_s - window.at_s, 3),
            "rate_s": round(now.at_s - recent.at_s, 3),
            "worker": asdict(self._facts),
            "alive": alive,
            "ready": ready,
            "throughput": _throughput(figures, rates),
            "end_to_end": percentiles(_all_together(now, window)),
            "pipelines": [
                pipeline_snapshot(pipeline, figures, now, window, rates) for pipeline in self._facts.pipelines
            ],
            "lag": _lag(together(look.lags.values())),
            "delivery": _delivery(figures, rates),
            "dead_letters": {
                "in_window": grown(now, window, "inference_dead_letters_total"),
                "reasons": _reasons(figures, now, window),
                "last": [_shown(refused) for refused in reversed(look.refused)],
            },
            "troubles": _troubles(now, window),
            "processes": self._processes(look, figures, rates),
        }

    def _processes(self, look: Look, figures: Figures, rates: "Rates") -> list[dict[str, Any]]:
        if self._facts.processes == 1:
            return []
        again = {labels.get("slot"): count for labels, count in figures.of("inference_process_restarts_total")}
        return [
            _process(slot, look.processes.get(slot), look.lags.get(slot, {}), again.get(str(slot), 0.0), rates)
            for slot in range(self._facts.processes)
        ]


def _throughput(figures: Figures, rates: Rates) -> dict[str, Any]:
    outcomes = ("predicted", "dead_lettered", "expired", "skipped")
    return {
        "records_per_s": rates.of("inference_records_total"),
        "per_s": {outcome: rates.of("inference_records_total", outcome=outcome) for outcome in outcomes},
        "total": {outcome: figures.total("inference_records_total", outcome=outcome) for outcome in outcomes},
        "busy_ratio": figures.total("inference_busy_ratio"),
        "capacity_per_s": figures.total("inference_capacity_records_per_second"),
        "buffered_bytes": figures.total("inference_buffered_bytes"),
    }


def _all_together(now: KeptLook, window: KeptLook) -> Distribution | None:
    """End-to-end latency of all pipelines, whose bounds are the same."""
    several = [spread.since(window.spread[LATENCY].get(labels)) for labels, spread in now.spread[LATENCY].items()]
    if not several:
        return None
    counts = tuple(map(sum, zip(*(spread.counts for spread in several), strict=True)))
    return Distribution(several[0].bounds, counts, sum(spread.total for spread in several))


def _lag(lags: Lags) -> dict[str, Any]:
    """Columns: of thousands of partitions, only those that are shown are looked at one by one."""
    rank = {topic: place for place, topic in enumerate(sorted({at.topic for at in lags}))}
    records = np.fromiter((lag.records for lag in lags.values()), np.int64, len(lags))
    seconds = np.fromiter((np.nan if lag.seconds is None else lag.seconds for lag in lags.values()), float, len(lags))
    topics = np.fromiter((rank[at.topic] for at in lags), np.int64, len(lags))
    numbers = np.fromiter((at.partition for at in lags), np.int64, len(lags))
    furthest = np.lexsort((numbers, topics, -records, -np.nan_to_num(seconds)))[:MOST_PARTITIONS]
    known, at = seconds[~np.isnan(seconds)], list(lags)
    return {
        "records": int(records.sum()),
        "seconds": float(known.max()) if len(known) else None,
        "assigned": len(lags),
        "partitions": [
            {"topic": one.topic, "partition": one.partition, "records": lags[one].records, "seconds": lags[one].seconds}
            for one in map(at.__getitem__, furthest)
        ],
    }


def _delivery(figures: Figures, rates: Rates) -> dict[str, Any]:
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


def _reasons(figures: Figures, now: KeptLook, window: KeptLook) -> list[dict[str, Any]]:
    name = "inference_dead_letters_total"
    reasons = [{**labels, "count": count, "in_window": grown(now, window, name, **labels)}
               for labels, count in figures.of(name) if count]  # fmt: skip
    return sorted(reasons, key=lambda one: (-one["in_window"], -one["count"]))


def _shown(refused: Refused) -> dict[str, Any]:
    return {name: shown(value) if isinstance(value, str) else value for name, value in asdict(refused).items()}


def shown(text: str) -> str:
    """Text of others without what is not to be seen: control characters, and those that turn its direction."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _troubles(now: KeptLook, window: KeptLook) -> list[dict[str, Any]]:
    found = [
        {"what": words, "count": count, "in_window": max(0.0, count - before)}
        for (_, _, words), count, before in zip(TROUBLES, now.troubles, window.troubles, strict=True)
        if count
    ]
    return sorted(found, key=lambda one: -one["in_window"])


def _process(slot: int, samples: Samples | None, lags: Lags, again: float, rates: Rates) -> dict[str, Any]:
    if samples is None:
        return {"slot": slot, "reports": False, "restarts": again}
    own, lag = Figures([samples]), _lag(lags)
    return {
        "slot": slot,
        "reports": True,
        "restarts": again,
        "records_per_s": rates.of_process(slot),
        "busy_ratio": own.total("inference_busy_ratio"),
        "lag_records": lag["records"],
        "lag_seconds": lag["seconds"],
        "assigned": lag["assigned"],
        "records": finished_of(samples),
    }
