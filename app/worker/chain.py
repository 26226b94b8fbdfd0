"""One batch through the steps: decode → features → infer → encode, and a dead letter for every row rejected."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from app.clock import Clock
from app.errors import Reason, Stage
from app.facts import BatchScored, Outcomes
from app.pipeline.dead_letter import dead_letter_of
from app.pipeline.decode import Decoder
from app.pipeline.encode import Answerer, PredictionEncoder
from app.pipeline.features import FeaturePlan
from app.pipeline.infer import Inference, OutputPolicy, infer
from app.records import (
    Batch,
    Columns,
    DeadLetter,
    IntArray,
    Origin,
    Predictions,
    Rejection,
    predictions_of,
)

MAX_OUTPUT_BYTES = 1_000_000 - 512  # the client's default for a message, less its framing


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """max_output_bytes: of a prediction and its key together; what is larger is dead-lettered as oversized."""

    outputs: OutputPolicy = field(default_factory=OutputPolicy)
    max_output_bytes: int = MAX_OUTPUT_BYTES


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """Everything a batch leaves behind: each of its records is predicted, dead-lettered or skipped."""

    predictions: Predictions
    dead_letters: list[DeadLetter]
    scored: BatchScored
    outcomes: Outcomes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch the model can be asked about. seconds: what that took."""

    batch: Batch
    origin: Origin
    columns: Columns
    tensors: dict[str, np.ndarray]
    rows: IntArray
    rejected: list[Rejection]
    skipped: int
    seconds: float

    @property
    def asked_rows(self) -> int:
        """How many rows the model is asked about."""
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch and what the model said of it. seconds: what that took."""

    prepared: Prepared
    inference: Inference
    seconds: float


class Chain:
    """The steps of one pipeline with one model version: prepare, answer, finish.

    `answer` may run on another thread than the other two, of another batch, at the same time.
    """

    def __init__(
        self,
        decoder: Decoder,
        plan: FeaturePlan,
        encoder: PredictionEncoder,
        answerer: Answerer,
        policy: ChainPolicy,
        clock: Clock,
    ) -> None:
        self._decoder, self._plan, self._encoder = decoder, plan, encoder
        self._answerer, self._policy, self._clock = answerer, policy, clock

    def prepare(self, batch: Batch, origin: Origin) -> Prepared:
        """Decode, and make features; tombstones (null values) are skipped.

        Raises SchemasPending (for the rows it names a schema is not known yet); then the batch left nothing behind.
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
        seconds = time.perf_counter() - started
        return Prepared(batch, origin, columns, features.tensors, features.rows, rejected, skipped, seconds)

    def answer(self, prepared: Prepared) -> Answered:
        """Ask the model. Raises ModelFailed; then the batch left nothing behind."""
        if not len(prepared.rows):
            return Answered(prepared, Inference({}, prepared.rows, []), 0.0)
        started = time.perf_counter()
        inference = infer(self._answerer.model, prepared.tensors, prepared.rows, self._policy.outputs)
        return Answered(prepared, inference, time.perf_counter() - started)

    def finish(self, answered: Answered) -> ScoredBatch:
        """Encode; every record of the batch has its outcome now. Never asks the model."""
        started = time.perf_counter()
        prepared = answered.prepared
        batch, columns, origin = prepared.batch, prepared.columns, prepared.origin
        inference, rejected = answered.inference, prepared.rejected
        predictions = self._encode(batch, columns, inference, origin)
        while (too_large := predictions.sizes > self._policy.max_output_bytes).any():
            rejected = rejected + self._oversized(predictions.sizes[too_large], inference.rows[too_large])
            inference = inference.without(too_large)
            predictions = self._encode(batch, columns, inference, origin)
        rejected = rejected + inference.rejected
        model = self._answerer.model
        dead_letters = [
            dead_letter_of(batch.records[item.row], item, model.name, model.version)
            for item in sorted(rejected, key=lambda item: item.row)
        ]
        return ScoredBatch(
            predictions=predictions,
            dead_letters=dead_letters,
            scored=BatchScored(
                rows=len(batch),
                cause=batch.cause,
                waited_s=batch.waited_s,
                scored_s=prepared.seconds + answered.seconds + time.perf_counter() - started,
                model_s=answered.seconds,
                model=model.name,
                version=model.version,
                runs=batch.runs,
            ),
            outcomes=Outcomes(
                model=model.name,
                version=model.version,
                predicted=len(inference.rows),
                skipped=prepared.skipped,
                results=inference.results,
                rejected=Counter((item.stage, item.reason) for item in rejected),
                timestamps_ms=origin.timestamps_ms,
                confidence=inference.confidence,
            ),
        )

    def _decode(self, values: list[bytes], rows: IntArray) -> tuple[Columns, list[Rejection]]:
        if not values:
            return self._decoder.nothing(), []
        result = self._decoder.decode(values, rows)
        return result.columns, list(result.rejected)

    def _encode(self, batch: Batch, columns: Columns, inference: Inference, origin: Origin) -> Predictions:
        rows = inference.rows
        if not len(rows):
            return predictions_of([], [], rows)
        values = self._encoder.encode(columns, inference.fields, rows, origin, self._answerer, self._clock.now_ms())
        records = batch.records
        chosen = records if len(rows) == len(records) else [records[row] for row in rows.tolist()]
        return predictions_of(values, [record.key() for record in chosen], origin.partitions()[rows])

    def _oversized(self, sizes: IntArray, rows: IntArray) -> list[Rejection]:
        most = self._policy.max_output_bytes
        return [
            Rejection(
                row, Stage.OUTPUT, Reason.OVERSIZED, "OutputTooLarge",
                f"the prediction and its key have {size} bytes, the output topic takes {most}",
            )
            for size, row in zip(sizes.tolist(), rows.tolist(), strict=True)
        ]  # fmt: skip
