"""What is remembered of looks at the metrics, and what has grown between two of them."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.clock import Clock
from app.observe.distribution import Distribution
from app.observe.look import Figures, Labels, Samples

RATE_S = 5.0
WINDOW_S = 30.0
TOLERANCE_S = 0.5  # looks are a second apart, and some milliseconds
LATENCY = "inference_end_to_end_latency_seconds"

_Counts = Mapping[str, Mapping[Labels, float]]
_Spread = Mapping[str, Mapping[Labels, Distribution]]
_SPREAD = (LATENCY, "inference_batch_wait_seconds", "inference_batch_records", "inference_model_seconds")
_COUNTED = ("inference_records_total", "inference_batches_total", "inference_answers_total",
            "inference_transactions_total", "inference_dead_letters_total")  # fmt: skip
# What went wrong: the metric, labels that it must have, in words.
TROUBLES: tuple[tuple[str, Mapping[str, str], str], ...] = (
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
class KeptLook:
    """What is remembered of one look. finished: records of each process."""

    at_s: float
    counts: _Counts
    spread: _Spread
    troubles: Sequence[float]
    finished: Mapping[int, float]


class Remembered:
    """Looks of the last WINDOW_S, the oldest first. For one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: deque[KeptLook] = deque()

    def forget(self) -> None:
        """What follows is compared with nothing of before."""
        self._kept.clear()

    def keep(self, figures: Figures, processes: Mapping[int, Samples]) -> KeptLook:
        """Remember this look, and forget those that are too old."""
        now = KeptLook(
            self._clock.monotonic(),
            {name: figures.series(name) for name in _COUNTED},
            {name: figures.distributions(name) for name in _SPREAD},
            [figures.total(name, **labels) for name, labels, _ in TROUBLES],
            {slot: finished_of(samples) for slot, samples in processes.items()},
        )
        while self._kept and self._kept[0].at_s < now.at_s - WINDOW_S - TOLERANCE_S:
            self._kept.popleft()
        self._kept.append(now)
        return now

    def before(self, at_s: float) -> KeptLook:
        """The newest look that is as old as that; the oldest if none is."""
        return next((look for look in reversed(self._kept) if look.at_s <= at_s), self._kept[0])

    @property
    def oldest(self) -> KeptLook:
        """There is one after the first `keep`."""
        return self._kept[0]


class Rates:
    """Per second, between two looks."""

    def __init__(self, now: KeptLook, before: KeptLook) -> None:
        self._now, self._before, self._elapsed_s = now, before, now.at_s - before.at_s

    def of(self, name: str, **labels: str) -> float | None:
        """None before there are two looks."""
        if self._elapsed_s <= 0:
            return None
        return grown(self._now, self._before, name, **labels) / self._elapsed_s

    def of_process(self, slot: int) -> float | None:
        """Records finished; None if it was not there before."""
        if self._elapsed_s <= 0 or slot not in self._before.finished:
            return None
        return max(0.0, self._now.finished.get(slot, 0.0) - self._before.finished[slot]) / self._elapsed_s


def grown(now: KeptLook, before: KeptLook, name: str, **labels: str) -> float:
    """By how much a counter grew, over all series with these labels; one that began anew did not shrink."""
    wanted, old = set(labels.items()), before.counts[name]
    return sum(
        max(0.0, value - old.get(found, 0.0)) for found, value in now.counts[name].items() if wanted.issubset(found)
    )


def finished_of(samples: Samples) -> float:
    """Records finished, of one process."""
    return sum(value for (name, _), value in samples.items() if name == "inference_records_total")
