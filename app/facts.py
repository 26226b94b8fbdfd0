"""Frozen facts about what happened, handed to observers. Metrics watch; they never steer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import Reason, Stage
from app.records import IntArray, TopicPartition


@dataclass(frozen=True, slots=True)
class Asked:
    """One version was asked about rows of a batch, which took so long; failed: it is at fault itself.

    seconds: None if it was not asked about its rows, having failed before. answered, rows_failed, bad_output: what
    became of the rows; they add up to all.
    """

    model: str
    version: str
    seconds: float | None
    failed: bool = False
    answered: int = 0
    rows_failed: int = 0
    bad_output: int = 0


@dataclass(frozen=True, slots=True)
class BatchScored:
    """A batch went through the models that its records were for; nothing of it is committed yet.

    runs: see `Batch.runs`.
    """

    rows: int
    cause: str
    waited_s: float
    scored_s: float
    asked: tuple[Asked, ...]
    runs: Sequence[int]


@dataclass(frozen=True, slots=True)
class CacheLookups:
    """Rows of a batch that were looked up in a result cache: each was answered from it, or the model had to.

    errors: the shared store was asked about them and gave nothing usable. skipped: it was not asked, having failed.
    """

    model: str
    version: str
    hits: int
    misses: int
    errors: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that became a dead letter: where it was read and why, for people to look at. Nothing of its payload.

    message: what the dead letter says, without the refused value that it quotes. pipeline, at_ms: once it is durable.
    """

    topic: str
    partition: int
    offset: int
    stage: str
    reason: str
    error: str
    message: str
    version: str
    pipeline: str = ""
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of those records of a batch that one version answered; counted only once they are committed.

    timestamps_ms: of every record with an outcome. confidence: (m,) of the predictions, or None.
    results: predicted class → how often. rejected: (stage, reason) → how often.
    answered_by: as in the predictions. refused: the last few of those rejected.
    """

    model: str
    version: str
    predicted: int
    skipped: int
    results: Mapping[str, int]
    rejected: Mapping[tuple[Stage, Reason], int]
    timestamps_ms: IntArray
    confidence: npt.NDArray[Any] | None = None
    answered_by: str = "stable"
    refused: tuple[Refused, ...] = ()

    @property
    def dead_lettered(self) -> int:
        """Records sent to the dead-letter topic."""
        return sum(self.rejected.values())

    @property
    def records(self) -> int:
        """Records with an outcome."""
        return self.predicted + self.skipped + self.dead_lettered


@dataclass(frozen=True, slots=True)
class InUse:
    """A loaded version and its part: an arm's name, "standby" or "previous"."""

    version: str
    digest: str
    part: str


@dataclass(frozen=True, slots=True)
class Serving:
    """This rollout page is in force from the next batch on, with these versions loaded."""

    model: str
    revision: int
    versions: tuple[InUse, ...]


@dataclass(frozen=True, slots=True)
class ShadowCounted:
    """What became of rows that stable answered and a shadow was to answer as well; each is counted once.

    dropped: never asked about, for want of time, room or a process. differences: the largest of each row compared.
    model_seconds: what the batch would take the candidate's model and output checks in the worker, at least; 0.0 if it
    was not asked.
    """

    version: str
    agreed: int = 0
    disagreed: int = 0
    failed: int = 0
    dropped: int = 0
    model_seconds: float = 0.0
    differences: npt.NDArray[Any] | None = None


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
class MetricsLook:
    """What workers showed of one model at a moment. workers: name → its samples.

    unread: a worker, or whoever was asked about them, → why nothing is known of it.
    """

    workers: Mapping[str, Sequence[Sample]]
    unread: Mapping[str, str] = field(default_factory=dict)
    at_s: float = 0.0  # epoch; of a look at the past only


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What one of several worker processes says of itself, about once a second.

    stuck: what is wrong with its progress, or None. awaits: what it waits for before it is ready, or None.
    samples: all its metrics. refused: its last dead letters, oldest first.
    """

    stuck: str | None
    awaits: str | None
    samples: tuple[Sample, ...] = ()
    refused: tuple[Refused, ...] = ()


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
