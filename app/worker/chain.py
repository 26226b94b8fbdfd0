"""One batch through the steps: decode → features → infer → encode, and a dead letter for every row rejected."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from app.answering.asking import Asking, FallbackPolicy, Reply
from app.answering.lineup import Lineup
from app.answering.parts import Part, part_of, parts_of
from app.clock import Clock
from app.errors import Reason, Stage
from app.facts import BatchScored, Outcomes, Refused
from app.pipeline.dead_letter import dead_letter_of, without_the_value
from app.pipeline.decode import Decoder
from app.pipeline.infer import Inference, OutputPolicy
from app.pipeline.summary.looked_at import LookedAt
from app.pipeline.summary.plan import SummedRows
from app.ports import BatchTrace
from app.records import (
    Batch,
    Columns,
    DeadLetter,
    IntArray,
    Origin,
    Predictions,
    Record,
    Rejection,
    predictions_of,
)

MAX_OUTPUT_BYTES = 1_000_000 - 512  # the client's default for a message, less its framing
NO_ROWS: IntArray = np.zeros(0, np.int64)
REFUSED_KEPT = 20  # of a batch, for people: the live page shows no more


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """max_output_bytes: of a prediction and its key together; what is larger is dead-lettered as oversized."""

    outputs: OutputPolicy = field(default_factory=OutputPolicy)
    max_output_bytes: int = MAX_OUTPUT_BYTES
    fallback: FallbackPolicy = field(default_factory=FallbackPolicy)


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """Everything a batch leaves behind: each of its records is predicted, dead-lettered or skipped.

    outcomes: one for each version that answered. summed: what is to be added up of them, if it is.
    trace: of the batch, if it is traced. rows: of a traced batch, rising, of each prediction; of others none.
    """

    predictions: Predictions
    dead_letters: list[DeadLetter]
    scored: BatchScored
    outcomes: tuple[Outcomes, ...]
    summed: tuple[SummedRows, ...] = ()
    rows: IntArray = field(default_factory=lambda: NO_ROWS)
    trace: BatchTrace | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch the models can be asked about: each of its records is in one part.

    seconds: what that took. decode_seconds: of it, to decode. trace: of the batch, if it is traced.
    """

    batch: Batch
    origin: Origin
    parts: tuple[Part, ...]
    seconds: float
    decode_seconds: float = 0.0
    trace: BatchTrace | None = None

    @property
    def asked_rows(self) -> int:
        """How many rows the models are asked about."""
        return sum(len(part.rows) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch and what the models said of it. seconds: what that took."""

    prepared: Prepared
    replies: tuple[Reply, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Finished:
    """What one part leaves behind; `rows` are those predicted."""

    predictions: Predictions
    rows: IntArray
    dead_letters: list[tuple[int, DeadLetter]]
    outcomes: Outcomes
    summed: SummedRows | None


class Chain:
    """The steps of one pipeline: prepare, answer, finish.

    `answer` may run on another thread than the other two, of another batch, at the same time. `serve` is for any.
    """

    def __init__(self, decoder: Decoder, lineup: Lineup, policy: ChainPolicy, clock: Clock) -> None:
        self._decoder, self._lineup = decoder, lineup
        self._policy, self._clock = policy, clock
        self._asking = Asking(policy.outputs, policy.fallback)

    def serve(self, lineup: Lineup) -> None:
        """Batches prepared from now on are this lineup's; the others keep theirs."""
        self._lineup = lineup

    def prepare(self, batch: Batch, origin: Origin) -> Prepared:
        """Decode, and make features; tombstones (null values) are skipped.

        Raises SchemasPending (for the rows it names a schema is not known yet); then the batch left nothing behind.
        """
        started = time.perf_counter()
        lineup = self._lineup  # read once: whoever is handed over from now on gets the next batch
        values = [record.value() for record in batch.records]
        rows = np.arange(len(values))
        skipped = values.count(None)
        if skipped:
            rows = np.array([row for row, value in enumerate(values) if value is not None], np.int64)
        present = [value for value in values if value is not None] if skipped else cast("list[bytes]", values)
        columns, rejected = self._decode(present, rows)
        decoded = time.perf_counter()
        choice = lineup.choose(batch.records)
        if choice is None:
            parts: tuple[Part, ...] = (part_of(lineup.lanes[0], columns, rejected, skipped, origin.timestamps_ms),)
        else:
            parts = parts_of(lineup.lanes, choice, columns, rejected, origin.timestamps_ms)
        return Prepared(batch, origin, parts, time.perf_counter() - started, decoded - started)

    def answer(self, prepared: Prepared) -> Answered:
        """Ask the models. Raises ModelFailed; then the batch left nothing behind."""
        started = time.perf_counter()
        replies = tuple(self._asking.ask(part) for part in prepared.parts)
        return Answered(prepared, replies, time.perf_counter() - started)

    def finish(self, answered: Answered) -> ScoredBatch:
        """Encode; every record of the batch has its outcome now. Never asks a model."""
        started = time.perf_counter()
        prepared = answered.prepared
        batch = prepared.batch
        finished = [self._finish(reply, batch, prepared.origin) for reply in answered.replies]
        letters = [numbered for part in finished for numbered in part.dead_letters]
        return ScoredBatch(
            predictions=finished[0].predictions if len(finished) == 1 else _in_batch_order(finished),
            dead_letters=[letter for _, letter in sorted(letters, key=lambda numbered: numbered[0])],
            scored=BatchScored(
                rows=len(batch),
                cause=batch.cause,
                waited_s=batch.waited_s,
                scored_s=prepared.seconds + answered.seconds + time.perf_counter() - started,
                asked=tuple(asked for reply in answered.replies for asked in reply.asked),
                runs=batch.runs,
            ),
            outcomes=tuple(part.outcomes for part in finished),
            summed=tuple(part.summed for part in finished if part.summed is not None),
            rows=_rows_of(finished) if prepared.trace is not None else NO_ROWS,
        )

    def _decode(self, values: list[bytes], rows: IntArray) -> tuple[Columns, list[Rejection]]:
        if not values:
            return self._decoder.nothing(), []
        result = self._decoder.decode(values, rows)
        return result.columns, list(result.rejected)

    def _finish(self, reply: Reply, batch: Batch, origin: Origin) -> _Finished:
        part, inference, answerer = reply.part, reply.inference, reply.lane.answerer
        rejected, now_ms = inference.rejected, self._clock.now_ms()
        predictions = self._encode(batch, reply, inference, origin, now_ms)
        while (too_large := predictions.sizes > self._policy.max_output_bytes).any():
            rejected = rejected + self._oversized(predictions.sizes[too_large], inference.rows[too_large])
            inference = inference.without(too_large)
            predictions = self._encode(batch, reply, inference, origin, now_ms)
        blamed = [(item, part.lane.answerer.model) for item in part.rejected]
        blamed += [(item, answerer.model) for item in rejected]
        return _Finished(
            predictions,
            inference.rows,
            [(item.row, dead_letter_of(batch.records[item.row], item, m.name, m.version)) for item, m in blamed],
            Outcomes(
                model=answerer.model.name,
                version=answerer.model.version,
                predicted=len(inference.rows),
                skipped=part.skipped,
                results=inference.results,
                rejected=Counter((item.stage, item.reason) for item, _ in blamed),
                timestamps_ms=part.timestamps_ms,
                confidence=inference.confidence,
                answered_by=answerer.answered_by,
                refused=tuple(_refused(batch.records[item.row], item, m.version) for item, m in blamed[-REFUSED_KEPT:]),
            ),
            _summed(reply, inference, origin, now_ms),
        )

    def _encode(self, batch: Batch, reply: Reply, inference: Inference, origin: Origin, now_ms: int) -> Predictions:
        rows, lane = inference.rows, reply.lane
        if not len(rows):
            return predictions_of([], [], rows)
        if lane.encoder is None:
            raise TypeError(f"version {lane.version} is in a lane of files, whose answers are no records")
        values = lane.encoder.encode(reply.part.columns, inference.fields, rows, origin, lane.answerer, now_ms)
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


def _refused(record: Record, item: Rejection, version: str) -> Refused:
    message = without_the_value(item.message)
    return Refused(
        record.topic(), record.partition(), record.offset(),
        item.stage.value, item.reason.value, item.error, message, version,
    )  # fmt: skip


def _summed(reply: Reply, inference: Inference, origin: Origin, now_ms: int) -> SummedRows | None:
    """inference: what was encoded at `now_ms`."""
    plan, part = reply.lane.summary, reply.part
    if plan is None:
        return None
    own_features = plan.with_features and reply.lane.version == part.lane.version
    return SummedRows(
        plan,
        now_ms,
        inference.rows,
        origin.timestamps_ms[inference.rows],
        inference.fields,
        inference.classes,
        inference.winner,
        inference.confidence,
        LookedAt(part.columns, part.tensors, part.rows) if own_features else None,
    )


def _rows_of(finished: Sequence[_Finished]) -> IntArray:
    """The rows predicted in all parts, rising."""
    return finished[0].rows if len(finished) == 1 else np.sort(np.concatenate([part.rows for part in finished]))


def _in_batch_order(finished: Sequence[_Finished]) -> Predictions:
    """The predictions of all parts, as their records came."""
    order = np.argsort(np.concatenate([part.rows for part in finished]))
    several = [part.predictions for part in finished]
    values = [value for one in several for value in one.values]
    keys = [key for one in several for key in one.keys]
    places = order.tolist()
    return Predictions(
        [values[place] for place in places],
        [keys[place] for place in places],
        np.concatenate([one.partitions for one in several])[order],
        np.concatenate([one.sizes for one in several])[order],
    )
