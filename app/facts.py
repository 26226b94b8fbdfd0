"""Frozen facts about what happened, handed to observers. Metrics watch; they never steer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import Reason, Stage
from app.records import IntArray, TopicPartition


@dataclass(frozen=True, slots=True)
class BatchScored:
    """A batch went through the model; nothing of it is committed yet. runs: see `Batch.runs`."""

    rows: int
    cause: str
    waited_s: float
    scored_s: float
    model_s: float
    model: str
    version: str
    runs: Sequence[int]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the records of a batch; counted only once it is committed.

    timestamps_ms: of every record with an outcome. confidence: (m,) of the predictions, or None.
    results: predicted class → how often. rejected: (stage, reason) → how often.
    """

    model: str
    version: str
    predicted: int
    skipped: int
    results: Mapping[str, int]
    rejected: Mapping[tuple[Stage, Reason], int]
    timestamps_ms: IntArray
    confidence: npt.NDArray[Any] | None = None

    @property
    def dead_lettered(self) -> int:
        """Records sent to the dead-letter topic."""
        return sum(self.rejected.values())

    @property
    def records(self) -> int:
        """Records with an outcome."""
        return self.predicted + self.skipped + self.dead_lettered


@dataclass(frozen=True, slots=True)
class Committed:
    """These outcomes are durable since `at_ms` (epoch)."""

    outcomes: tuple[Outcomes, ...]
    at_ms: int

    def latencies_s(self) -> npt.NDArray[np.float64]:
        """Record timestamp → durable, per record; a timestamp in the future counts as 0."""
        stamps = np.concatenate([outcome.timestamps_ms for outcome in self.outcomes])
        return np.asarray(np.maximum(self.at_ms - stamps, 0) / 1000.0)


# A metric's name, its labels in order, and its value.
Sample = tuple[str, tuple[tuple[str, str], ...], float]


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What one of several worker processes says of itself, about once a second.

    stuck: what is wrong with its progress, or None. awaits: what it waits for before it is ready, or None.
    samples: all its metrics.
    """

    stuck: str | None
    awaits: str | None
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class Lag:
    """How far one partition is behind; `seconds` is None while nothing is known of the records' age."""

    records: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class PaceState:
    """What a latency objective works with: a batch of n records takes fixed_s + n * per_record_s.

    delivery_s: from a batch taken to durable, less its cost; a fading peak.
    """

    objective_s: float
    fixed_s: float
    per_record_s: float
    delivery_s: float


@dataclass(frozen=True, slots=True)
class Pulse:
    """The worker's state, about once a second.

    busy_ratio: share of the time since the last pulse not spent waiting for records, 0 to 1.
    records_per_second: records finished per second while busy: what this process could do.
    waiting_partitions: owned, and held back until a writer schema is known.
    pace: None without a latency objective.
    """

    busy_ratio: float
    records_per_second: float | None
    buffered_bytes: int
    lag: Mapping[TopicPartition, Lag] = field(default_factory=dict)
    waiting_partitions: int = 0
    pace: PaceState | None = None
