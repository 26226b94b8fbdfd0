"""The work of a shadow process: rows come, the candidate scores them, and what it said is compared and published.

Nothing here can reach the worker but by the line, and the line carries numbers only.
"""

import socket
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from app.answering.handled_inputs import HandledPlan
from app.answering.handled_outputs import HandledOutputs
from app.avro.datum_writer import DatumWriter
from app.clock import Clock
from app.errors import AppError, ModelFailed, SchemaIncompatible
from app.pipeline.features.plan import FeaturePlan
from app.pipeline.infer import OutputPolicy, infer
from app.ports import Model
from app.records import Columns, IntArray, Rejection
from app.worker.shadow_line import (
    Compared,
    Frames,
    Kind,
    Refused,
    ShadowRows,
    compared_bytes,
    frame,
    refused_bytes,
    rows_of,
)
from app.worker.shadow_process import waited_for_processor_s
from app.worker.side_by_side import Answer, Difference, answer_of, compare

READ_BYTES = 1 << 20
AGREED, DISAGREED, FAILED = "agreed", "disagreed", "failed"

Publish = Callable[[Sequence[bytes], Sequence[bytes | None]], int]
"""Takes framed comparisons and their keys; returns how many are known not to have reached the topic."""


class ShadowScorer:
    """One candidate beside stable. publish: where comparisons go. handled: its handler's steps, if it has one."""

    def __init__(
        self,
        model: Model,
        event: pa.Schema,
        writer: DatumWriter,
        publish: Publish,
        clock: Clock,
        handled: tuple[FeaturePlan | HandledPlan, HandledOutputs | None] | None = None,
        *,
        threads: int = 1,
        waited_s: Callable[[], float] = waited_for_processor_s,
    ) -> None:
        """event: the columns that events come in. Raises SchemaIncompatible if they lack what the candidate takes.

        threads: what the worker has for a version; there is one here. waited_s: see `waited_for_processor_s`.
        """
        self._model, self._writer, self._publish, self._clock = model, writer, publish, clock
        self._plan, outputs = handled or (FeaturePlan(model.inputs, event), None)
        self._infer = infer if outputs is None else outputs.infer
        self._threads, self._waited_s = threads, waited_s

    def score(self, rows: ShadowRows) -> Compared:
        """Ask the candidate, compare, publish. A row without a usable answer is failed, whatever the reason.

        Raises SchemaIncompatible if the two versions have nothing to be compared.
        """
        started = time.perf_counter()
        answered, answer, rejected, model_seconds = self._ask(rows)
        difference = compare(rows.answer.of(answered), answer) if answer is not None else None
        agreed = int(np.count_nonzero(difference.agreed)) if difference is not None else 0
        values = self._writer.write(self._columns(rows, answered, answer, difference, rejected), len(rows))
        unpublished = self._publish(values, rows.keys.to_pylist())
        most = difference.most if difference is not None else np.empty(0)
        return Compared(
            agreed,
            len(answered) - agreed,
            len(rows) - len(answered),
            unpublished,
            time.perf_counter() - started,
            model_seconds,
            np.minimum(most, np.finfo(np.float32).max).astype(np.float32),
        )

    def _ask(self, rows: ShadowRows) -> tuple[IntArray, Answer | None, list[Rejection], float]:
        """Which rows were answered, rising; how; why the others were not; and `ShadowCounted.model_seconds`.

        A model at fault rejects none by name.
        """
        features = self._plan.apply(Columns(rows.events, np.arange(len(rows))))
        if features.failure is not None or not len(features.rows):
            return features.rows[:0], None, features.rejected, 0.0
        started, waited_s = time.perf_counter(), self._waited_s()
        try:
            inference = self._infer(self._model, features.tensors, features.rows, OutputPolicy())
        except ModelFailed:
            return features.rows[:0], None, features.rejected, self._model_seconds(started, waited_s)
        took_s = self._model_seconds(started, waited_s)
        answer = answer_of(inference, self._model.outputs) if len(inference.rows) else None
        return inference.rows, answer, features.rejected + inference.rejected, took_s

    def _model_seconds(self, started: float, waited_s: float) -> float:
        """At least what the same would have taken in the worker.

        There the priority is normal: what this one waited for a processor is left out. There several threads may
        share the work, and at best they share it evenly.
        """
        took_s = time.perf_counter() - started - (self._waited_s() - waited_s)
        return max(took_s, 0.0) / self._threads

    def _columns(
        self,
        rows: ShadowRows,
        answered: IntArray,
        answer: Answer | None,
        difference: Difference | None,
        rejected: Sequence[Rejection],
    ) -> dict[str, pa.Array]:
        count = len(rows)
        place = np.full(count, -1)  # of each row among the answered
        place[answered] = np.arange(len(answered))
        missing = place < 0
        result = np.full(count, FAILED, dtype="<U9")
        reason = np.full(count, "model_error", dtype="<U32")
        reason[[item.row for item in rejected]] = [item.reason.value for item in rejected]
        mean, most = np.zeros(count), np.zeros(count)
        numbers, counts = np.empty(0), np.zeros(count, np.int64)
        classes = None
        if answer is not None and difference is not None:
            result[answered] = np.where(difference.agreed, AGREED, DISAGREED)
            mean[answered], most[answered] = difference.mean, difference.most
            numbers, counts[answered] = answer.numbers.reshape(-1), answer.numbers.shape[1]
            found = answer.classes()
            classes = None if found is None else found[np.maximum(place, 0)]
        topics = np.array([source.topic for source in rows.sources], np.str_)
        partitions = np.array([source.partition for source in rows.sources], np.int32)
        stable = rows.answer
        return {
            "model_name": _same(self._model.name, count),
            "rollout_revision": pa.array(np.full(count, rows.revision, np.int32)),
            "stable_version": _same(rows.version, count),
            "candidate_version": _same(self._model.version, count),
            "candidate_digest": _same(self._model.digest, count),
            "result": _texts(result),
            "reason": _texts(reason, ~missing),
            "stable_class": _texts(stable.classes(), None, count),
            "candidate_class": _texts(classes, missing, count),
            "stable_numbers": _lists(stable.numbers.reshape(-1), np.full(count, stable.numbers.shape[1])),
            "candidate_numbers": _lists(numbers, counts),
            "mean_difference": pa.array(mean, mask=missing),
            "max_difference": pa.array(most, mask=missing),
            "source_topic": _texts(topics[rows.source]),
            "source_partition": pa.array(partitions[rows.source]),
            "source_offset": pa.array(rows.offsets),
            "event_time": self._time(rows.timestamps_ms, "event_time"),
            "compared_at": self._time(np.full(count, self._clock.now_ms()), "compared_at"),
        }

    def _time(self, epoch_ms: IntArray, name: str) -> pa.Array:
        return pa.array(epoch_ms, pa.timestamp("ms")).cast(self._writer.fields.field(name).type)


def check_writer(writer: DatumWriter) -> None:
    """Raise SchemaIncompatible, naming what differs, if the comparison schema is not the one that is filled here."""
    if unknown := sorted(set(writer.fields.names) ^ set(FIELDS)):
        raise SchemaIncompatible(f"the schema ShadowComparison is not ours: {', '.join(unknown)}")


FIELDS = (
    "model_name", "rollout_revision", "stable_version", "candidate_version", "candidate_digest", "result", "reason",
    "stable_class", "candidate_class", "stable_numbers", "candidate_numbers", "mean_difference", "max_difference",
    "source_topic", "source_partition", "source_offset", "event_time", "compared_at",
)  # fmt: skip


def serve(line: socket.socket, scorer: Callable[[], ShadowScorer], most_bytes: int) -> int:
    """Make the scorer, say so, and score what comes until the line ends; returns how many batches that were.

    An error is told on the line, by name, and raised.
    """
    try:
        ready = scorer()
        line.sendall(frame(Kind.READY))
        return _serve(line, ready, Frames(most_bytes))
    except OSError:  # nobody is there any more
        return 0
    except Exception as exc:
        name = type(exc).__name__ if isinstance(exc, AppError | MemoryError) else "ShadowFailed"
        message = str(exc) if isinstance(exc, AppError) else f"{type(exc).__name__}: {exc}"
        line.sendall(frame(Kind.REFUSED, refused_bytes(Refused(name, message))))
        raise


def _serve(line: socket.socket, scorer: ShadowScorer, frames: Frames) -> int:
    batches = 0
    while came := line.recv(READ_BYTES):
        for _, content in frames.feed(came):
            line.sendall(frame(Kind.COMPARED, compared_bytes(scorer.score(rows_of(content)))))
            batches += 1
    return batches


def _same(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), count)


def _texts(texts: np.ndarray | None, absent: np.ndarray | None = None, count: int = 0) -> pa.Array:
    if texts is None:
        return pa.nulls(count, pa.string())
    return pa.array(texts.tolist(), pa.string(), mask=absent)


def _lists(numbers: np.ndarray, counts: IntArray) -> pa.Array:
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(numbers, pa.float64()))
