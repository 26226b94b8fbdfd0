"""What came out, held against what went in."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.avro.datum_reader import datum_reader
from app.avro.framing import SingleObjectFraming
from app.avro.schemas import Schema
from app.kafka.mock_cluster import PARTITIONS
from app.records import Record

SAMPLES = 3


@dataclass(slots=True)
class Verdict:
    """The demo's findings; latencies in seconds, from the event's timestamp to the prediction read back."""

    events: int
    predictions: int = 0
    dead_letters: int = 0
    lost: int = 0
    duplicated: int = 0
    events_per_second: float = 0.0
    latency_rate: int = 0
    p50_s: float = 0.0
    p95_s: float = 0.0
    p99_s: float = 0.0
    accuracy: float = 0.0
    promised_accuracy: float = 0.0
    broken: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)

    def complaints(self, patience: float) -> list[str]:
        """Why the demo failed; empty if it did not."""
        found = []
        if self.lost:
            found.append(f"{self.lost} events have no outcome")
        if self.duplicated:
            found.append(f"{self.duplicated} outcomes came twice")
        if self.dead_letters != self.broken:
            found.append(f"{self.dead_letters} dead letters for {self.broken} broken events")
        if self.accuracy < self.promised_accuracy - patience:
            found.append(f"accuracy {self.accuracy:.3f}, the model promises {self.promised_accuracy:.3f}")
        return found


class Tally:
    """Counts outcomes per input offset. Event i was sent to partition i % PARTITIONS, in order."""

    def __init__(self, prediction: Schema, events: int) -> None:
        framing = SingleObjectFraming()
        self._reader = datum_reader(framing, framing.header(prediction.fingerprint), prediction, prediction)
        self._outcomes = np.zeros(events, np.int32)
        self._answers = np.full(events, -1, np.int64)
        self._latencies: list[npt.NDArray[np.float64]] = []
        self.reasons: Counter[str] = Counter()
        self.predictions = self.dead_letters = 0
        self.samples: list[dict[str, Any]] = []

    @property
    def outcomes(self) -> int:
        """Records read back so far."""
        return self.predictions + self.dead_letters

    def add_predictions(self, records: list[Record], now_ms: int) -> None:
        """Count these, read at this time."""
        decoded = self._reader.read([record.value() or b"" for record in records])
        table = decoded.table
        event = self._event_of(table.column("source_partition"), table.column("source_offset"))
        np.add.at(self._outcomes, event, 1)
        self._answers[event] = table.column("prediction").to_numpy()
        sent_ms = table.column("event_time").cast(pa.int64()).to_numpy()
        self._latencies.append(np.maximum(now_ms - sent_ms, 0) / 1000)
        self.predictions += len(event)
        if len(self.samples) < SAMPLES:
            self.samples += table.slice(0, SAMPLES - len(self.samples)).to_pylist()

    def add_dead_letters(self, records: list[Record]) -> None:
        """Count these."""
        for record in records:
            headers = {name: (value or b"").decode() for name, value in record.headers() or ()}
            partition = int(headers["__connect.errors.partition"])
            offset = int(headers["__connect.errors.offset"])
            self._outcomes[offset * PARTITIONS + partition] += 1
            self.reasons[headers["inference.reason"]] += 1
        self.dead_letters += len(records)

    def latency_quantiles(self) -> tuple[float, float, float]:
        """p50, p95 and p99 of what was read since the last call, in seconds."""
        latencies = np.concatenate(self._latencies) if self._latencies else np.zeros(1)
        self._latencies.clear()
        p50, p95, p99 = np.quantile(latencies, [0.5, 0.95, 0.99]).tolist()
        return p50, p95, p99

    def lost(self) -> int:
        """Events without an outcome."""
        return int((self._outcomes == 0).sum())

    def duplicated(self) -> int:
        """Outcomes beyond the first of an event."""
        return int(np.maximum(self._outcomes - 1, 0).sum())

    def accuracy(self, truth: npt.NDArray[np.int64]) -> float:
        """Share of the predicted events whose class is the true one."""
        answered = self._answers >= 0
        return float((self._answers == truth)[answered].mean()) if answered.any() else 0.0

    @staticmethod
    def _event_of(partitions: pa.Array, offsets: pa.Array) -> npt.NDArray[np.int64]:
        return np.asarray(offsets.to_numpy() * PARTITIONS + partitions.to_numpy(), np.int64)
