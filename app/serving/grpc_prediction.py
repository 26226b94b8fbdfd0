"""`prediction.PredictionService`: rows of numbers in the order of the manifest, classes back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.answering.answers import Answers
from app.grpc_api import prediction_pb2 as messages
from app.serving.admission import StreamWindow
from app.serving.core import OnlineCore
from app.serving.grpc_calls import Call, CallFailed, Code, Stream, Unary, read, rejected
from app.serving.grpc_rows import batch_response, row_of, rows_of
from app.serving.question import Question
from app.serving.refusals import NotServing
from app.specs import Output, ProbabilitiesOutput

Array = npt.NDArray[Any]

SERVICE = messages.DESCRIPTOR.services_by_name["PredictionService"].full_name
STREAM_WINDOW = 256  # rows of one stream that are in the core: as many as a batch has use for
STREAM_BYTES = 4 * 1024 * 1024  # of their messages: one may be as large as a request
INT32 = np.iinfo(np.int32)


class PredictionService:
    """Its methods, over one core.

    ending: set when the server is about to end; a stream then answers what it has read, and ends.
    """

    def __init__(self, core: OnlineCore, ending: asyncio.Event) -> None:
        self._core, self._ending = core, ending
        self.unary: dict[str, Unary] = {
            "Predict": self.predict, "BatchPredict": self.batch_predict, "HealthCheck": self.health_check
        }  # fmt: skip
        self.streams: dict[str, Stream] = {"PredictStream": self.predict_stream}

    async def predict(self, body: bytes, call: Call) -> bytes:
        """One row. Raises BadRequest naming the field if it cannot be predicted."""
        answers, outputs = await self._ask(row_of(read(messages.PredictRequest, body)), call.key, call)
        if answers.rejected:
            raise rejected(answers)
        classes = classes_of(answers.predictions, outputs)
        call.answered(answers)
        response = messages.PredictResponse(
            prediction=int(classes[0]),
            probabilities=_of_first_row(answers.probabilities),
            model_version=answers.source_of(0).version,
        )
        return response.SerializeToString()

    async def batch_predict(self, body: bytes, call: Call) -> bytes:
        """Rows. Raises BadRequest naming the first that cannot be predicted, and its field."""
        answers, outputs = await self._ask(rows_of(body, self._core.policy.most_request_rows), call.key, call)
        if answers.rejected:
            raise rejected(answers)
        classes = classes_of(answers.predictions, outputs)
        call.answered(answers)
        return batch_response(classes, answers.probabilities)

    async def health_check(self, body: bytes, _call: Call) -> bytes:
        """Whether rows would be answered now."""
        read(messages.HealthRequest, body)
        status = "ending" if self._ending.is_set() else "ok" if self._core.ready else "no model is loaded"
        return messages.HealthResponse(status=status, model_loaded=self._core.ready).SerializeToString()

    async def predict_stream(self, bodies: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
        """Rows as they come, answered in that order; rows that wait are in the core together.

        When the window is full, nothing is read until the oldest row has its answer: the client then waits.
        """
        asked: asyncio.Queue[tuple[asyncio.Task[bytes], int] | None] = asyncio.Queue()
        window = StreamWindow(STREAM_WINDOW, STREAM_BYTES)
        reading = asyncio.create_task(self._read(bodies, call, asked, window))
        ending = asyncio.create_task(self._ending.wait())
        ending.add_done_callback(lambda _: reading.cancel())
        try:
            while (next_one := await asked.get()) is not None:
                answer, size = next_one
                yield await answer
                window.leave(size)
            if self._ending.is_set():
                raise NotServing("the server is about to end")
            await reading  # for what it raised
        finally:
            reading.cancel()
            ending.cancel()
            while not asked.empty():
                if (left := asked.get_nowait()) is not None:
                    left[0].cancel()

    async def _read(
        self,
        bodies: AsyncIterator[bytes],
        call: Call,
        asked: asyncio.Queue[tuple[asyncio.Task[bytes], int] | None],
        window: StreamWindow,
    ) -> None:
        try:
            async for body in bodies:
                await window.enter(len(body))
                answer = asyncio.create_task(self._streamed(body, call))
                answer.add_done_callback(_seen)
                asked.put_nowait((answer, len(body)))
        finally:
            asked.put_nowait(None)

    async def _streamed(self, body: bytes, call: Call) -> bytes:
        with call.holding(len(body)):
            request = read(messages.StreamedPredictRequest, body)
            key = request.key if request.HasField("key") else call.key
            answers, outputs = await self._ask(row_of(request), key, call)
        if answers.rejected:
            why = answers.rejected[0]
            rejected = messages.Rejected(reason=why.reason.value, message=why.message)
            return messages.StreamedPredictResponse(rejected=rejected).SerializeToString()
        response = messages.StreamedPredictResponse(
            prediction=int(classes_of(answers.predictions, outputs)[0]),
            probabilities=_of_first_row(answers.probabilities),
            model_version=answers.source_of(0).version,
        )
        return response.SerializeToString()

    async def _ask(self, rows: Array, key: str | None, call: Call) -> tuple[Answers, Sequence[Output]]:
        """The answers, and what says which class a label is: that of a rejected row is none."""
        outputs = self._core.in_force.lane_of(None).answerer.model.outputs
        keys = None if key is None else [key] * len(rows)
        return await self._core.ask(Question(vectors=rows, keys=keys, within_s=call.within_s)), outputs


def classes_of(labels: Array, outputs: Sequence[Output]) -> Array:
    """(n,) int32: each label if it is such a number, else its index in the manifest. Raises CallFailed for values."""
    if labels.dtype.kind in "UOS":
        names = next((spec.classes for spec in outputs if isinstance(spec, ProbabilitiesOutput)), ())
        found = labels[:, None] == np.array(names, labels.dtype)
        if found.any(axis=1).all():
            index: Array = found.argmax(axis=1)
            return index.astype(np.int32)
    elif labels.dtype.kind in "iu" and labels.min(initial=0) >= INT32.min and labels.max(initial=0) <= INT32.max:
        return labels.astype(np.int32)
    raise CallFailed(Code.FAILED_PRECONDITION, "this model does not answer with classes of 32 bits: call ModelInfer")


def _of_first_row(probabilities: Array | None) -> list[float] | None:
    if probabilities is None:
        return None
    values: list[float] = probabilities[0].tolist()
    return values


def _seen(answer: "asyncio.Task[bytes]") -> None:
    """What it raised is raised where it is awaited, or nobody waits any more; asyncio need not complain."""
    if not answer.cancelled():
        answer.exception()
