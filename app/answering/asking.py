"""The model is asked, and who or what answers when it is at fault itself: the fallback chain.

The version that was chosen → stable, where that was another → the version before stable → the constant in the
manifest of the chosen version → dead letters, or the end of the worker. That stable answers for what is only tried
out is always so; the other steps are the pipeline's policy, and by default there are none. Rows that only fail
because of themselves are no matter for this: they are rejected by whoever is asked.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import structlog

from app.answering.lineup import FALLBACK, Lane
from app.answering.parts import Part
from app.errors import ModelFailed, OutputRefused, Reason, Stage, bare
from app.facts import Asked
from app.pipeline.infer import Inference, OutputPolicy, constant_answer
from app.records import Columns, IntArray, Rejection


@dataclass(frozen=True, slots=True)
class FallbackPolicy:
    """Who answers in place of stable, or of another version when stable is at fault as well.

    previous: the version before stable. constant: the manifest's. then: what becomes of rows that nobody
    answers.
    """

    previous: bool = False
    constant: bool = False
    then: Literal["stop", "dead_letter"] = "stop"


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a part: `lane` answered, or was at last to answer. asked: every version, in order."""

    part: Part
    lane: Lane
    inference: Inference
    asked: tuple[Asked, ...]


@dataclass(slots=True)
class _Attempts:
    """stable: the version whose bad outputs may stop the worker. failure: the first, see `bare`."""

    stable: str
    made: list[Asked] = field(default_factory=list)
    failure: ModelFailed | None = None


class Asking:
    """Asks the lane of a part, and whoever is to answer in its place."""

    def __init__(self, outputs: OutputPolicy, fallback: FallbackPolicy) -> None:
        self._outputs, self._fallback = outputs, fallback
        self._log = structlog.get_logger()

    def ask(self, part: Part) -> Reply:
        """Each row of the part is answered or rejected. Raises ModelFailed if nobody answers and that is to stop."""
        if not len(part.rows):
            return Reply(part, part.lane, Inference({}, part.rows, []), ())
        attempts = _Attempts((part.lane.stable or part.lane).version)
        if part.lane.breaker.allows():
            inference = self._try(part.lane, part.tensors, part.rows, attempts, part.failure)
            if inference is not None:
                return Reply(part, part.lane, inference, tuple(attempts.made))
        else:  # its rows all the same: a version that is left alone for a while does not look any better for it
            model = part.lane.answerer.model
            attempts.made.append(Asked(model.name, model.version, None, rows_failed=len(part.rows)))
        return self._without_it(part, attempts)

    def _without_it(self, part: Part, attempts: _Attempts) -> Reply:
        for lane in (part.lane.stable, part.lane.previous if self._fallback.previous else None):
            if lane is None or not lane.breaker.allows():
                continue
            inference = self._in_place(lane, part, attempts)
            if inference is not None:
                return Reply(part, lane, inference, tuple(attempts.made))
        lane, asked = part.lane, tuple(attempts.made)
        answerer = lane.answerer
        if self._fallback.constant and lane.constant is not None:
            playing = lane.playing(FALLBACK, answerer.rollout_revision)
            return Reply(part, playing, constant_answer(answerer.model.outputs, lane.constant, part.rows), asked)
        if self._fallback.then == "stop":
            raise attempts.failure or ModelFailed(lane.breaker.why)
        rejected = [
            Rejection(row, Stage.MODEL, Reason.MODEL_ERROR, ModelFailed.__name__, lane.breaker.why)
            for row in part.rows.tolist()
        ]
        return Reply(part, lane, Inference({}, part.rows[:0], rejected), asked)

    def _in_place(self, lane: Lane, part: Part, attempts: _Attempts) -> Inference | None:
        """Another version makes its own features of the same events. Not by its plan, which is the stream thread's."""
        table, columns = part.columns.table, part.columns
        if len(part.rows) != len(columns.rows):
            table = table.take(pa.array(np.searchsorted(columns.rows, part.rows)))
        features = lane.features_beside(Columns(table, part.rows))
        if not len(features.rows):
            return Inference({}, features.rows, features.rejected)
        inference = self._try(lane, features.tensors, features.rows, attempts, features.failure)
        if inference is not None:
            inference.rejected.extend(features.rejected)
        return inference

    def _try(
        self,
        lane: Lane,
        tensors: dict[str, np.ndarray],
        rows: IntArray,
        attempts: _Attempts,
        failure: ModelFailed | None,
    ) -> Inference | None:
        model = lane.answerer.model
        started = time.perf_counter()
        try:
            if failure is not None:
                raise failure
            inference = lane.infer(tensors, rows, self._outputs)
        except ModelFailed as exc:
            if isinstance(exc, OutputRefused) and lane.version == attempts.stable:
                raise
            if lane.breaker.failed(str(exc)):
                self._log.error("model_failed", model=model.name, version=model.version, reason=str(exc))
            kept = bare(exc)
            attempts.failure = attempts.failure or kept
            took_s = time.perf_counter() - started
            attempts.made.append(Asked(model.name, model.version, took_s, failed=True, rows_failed=len(rows)))
            return None
        if lane.breaker.answered():
            self._log.info("model_answers_again", model=model.name, version=model.version)
        took_s = time.perf_counter() - started
        bad = sum(item.reason is Reason.BAD_OUTPUT for item in inference.rejected)
        failed = len(inference.rejected) - bad
        answered = Asked(
            model.name, model.version, took_s, answered=len(inference.rows), rows_failed=failed, bad_output=bad
        )
        attempts.made.append(answered)
        return inference
