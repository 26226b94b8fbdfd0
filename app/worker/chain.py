"""One batch through the steps: decode → features → infer → encode, and a dead letter for every row rejected."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import cast

import numpy as np

from app.clock import Clock
from app.facts import BatchScored, Outcomes
from app.pipeline.dead_letter import FloodGate, dead_letter_of
from app.pipeline.decode import Decoder
from app.pipeline.encode import Answerer, PredictionEncoder
from app.pipeline.features import FeaturePlan
from app.pipeline.infer import Inference, infer
from app.records import (
    Batch,
    Columns,
    DeadLetter,
    IntArray,
    Origin,
    Predictions,
    Rejection,
)


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """Everything a batch leaves behind: each of its records is predicted, dead-lettered or skipped."""

    predictions: Predictions
    dead_letters: list[DeadLetter]
    scored: BatchScored
    outcomes: Outcomes


class Chain:
    """The steps of one pipeline with one model version. One thread at a time."""

    def __init__(
        self,
        decoder: Decoder,
        plan: FeaturePlan,
        encoder: PredictionEncoder,
        answerer: Answerer,
        flood: FloodGate,
        clock: Clock,
    ) -> None:
        self._decoder, self._plan, self._encoder = decoder, plan, encoder
        self._answerer, self._flood, self._clock = answerer, flood, clock

    def score(self, batch: Batch, origin: Origin) -> ScoredBatch:
        """Score every record of the batch; tombstones (null values) are skipped and counted.

        Raises SchemaRegistryUnavailable (try again later), ModelFailed or DeadLetterFlood; then the batch
        left nothing behind.
        """
        started = time.perf_counter()
        values = [record.value() for record in batch.records]
        rows = np.arange(len(values))
        skipped = values.count(None)
        if skipped:
            rows = np.array([row for row, value in enumerate(values) if value is not None], np.int64)
        present = [value for value in values if value is not None] if skipped else cast("list[bytes]", values)
        columns, rejected = self._decode(present, rows)
        features = self._plan.apply(columns)
        rejected += features.rejected
        model_started = time.perf_counter()
        answer = self._infer(features.tensors, features.rows)
        model_s = time.perf_counter() - model_started
        rejected += answer.rejected
        self._flood.admit(rejected)
        predictions = self._encode(batch, columns, answer, origin)
        model = self._answerer.model
        dead_letters = [
            dead_letter_of(batch.records[item.row], item, model.name, model.version)
            for item in sorted(rejected, key=lambda item: item.row)
        ]
        return ScoredBatch(
            predictions=predictions,
            dead_letters=dead_letters,
            scored=BatchScored(
                rows=len(values),
                cause=batch.cause,
                waited_s=batch.waited_s,
                scored_s=time.perf_counter() - started,
                model_s=model_s,
                model=model.name,
                version=model.version,
            ),
            outcomes=Outcomes(
                model=model.name,
                version=model.version,
                predicted=len(answer.rows),
                skipped=skipped,
                results=answer.results,
                rejected=Counter((item.stage, item.reason) for item in rejected),
                timestamps_ms=origin.timestamps_ms,
                confidence=answer.confidence,
            ),
        )

    def _decode(self, values: list[bytes], rows: IntArray) -> tuple[Columns, list[Rejection]]:
        if not values:
            return self._decoder.nothing(), []
        result = self._decoder.decode(values, rows)
        return result.columns, list(result.rejected)

    def _infer(self, tensors: dict[str, np.ndarray], rows: IntArray) -> Inference:
        if not len(rows):
            return Inference({}, rows, [], {})
        return infer(self._answerer.model, tensors, rows)

    def _encode(self, batch: Batch, columns: Columns, answer: Inference, origin: Origin) -> Predictions:
        rows = answer.rows
        if not len(rows):
            return Predictions([], [], rows)
        values = self._encoder.encode(columns, answer.fields, rows, origin, self._answerer, self._clock.now_ms())
        records = batch.records
        chosen = records if len(rows) == len(records) else [records[row] for row in rows.tolist()]
        keys = [record.key() for record in chosen]
        return Predictions(values, keys, origin.partitions()[rows])
