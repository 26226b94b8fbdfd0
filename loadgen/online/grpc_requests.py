"""Requests of the plain gRPC service as bytes, and what a whole answer to them is."""

from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from loadgen.online.instances import Ring, requests_in
from loadgen.online.prediction_messages import SERVICE, message_classes
from loadgen.online.target import ANSWERED, BAD_ANSWER, Reply

KEY = "inference-key"  # metadata: what rollouts stick to


class GrpcRequests:
    """Every request there is, serialized beforehand; of one row to Predict, of more to BatchPredict."""

    def __init__(self, ring: Ring, *, rows: int) -> None:
        self.rows = rows
        self.method = f"/{SERVICE}/{'Predict' if rows == 1 else 'BatchPredict'}"
        classes = message_classes()
        self._answer: Any = classes["PredictResponse" if rows == 1 else "BatchPredictResponse"]
        request, batch = classes["PredictRequest"], classes["BatchPredictRequest"]
        vectors = [request(features=vector) for vector in ring.vectors.astype(np.float32)]
        messages = [
            vectors[number] if rows == 1 else batch(instances=[vectors[i] for i in ring.rows(number, rows)])
            for number in range(requests_in(ring, rows))
        ]
        self._bodies: list[bytes] = [message.SerializeToString() for message in messages]
        self._keys = ring.keys

    def body(self, number: int) -> bytes:
        """The message of request `number`."""
        return self._bodies[number % len(self._bodies)]

    def metadata(self, number: int) -> tuple[tuple[str, str], ...]:
        """A single row has its event's key; of several the stable version is asked."""
        return ((KEY, self._keys[number % len(self._bodies)]),) if self.rows == 1 else ()

    def reply(self, body: bytes) -> Reply:
        """What an answer means: there must be a prediction for every row."""
        try:
            answer = self._answer.FromString(body)
        except DecodeError:
            return Reply(BAD_ANSWER)
        if self.rows == 1:
            # proto3 leaves a 0 out: that a version answered is what tells a prediction from an empty message
            return Reply(ANSWERED, answer.model_version) if answer.model_version else Reply(BAD_ANSWER)
        return Reply(ANSWERED) if len(answer.predictions) == self.rows else Reply(BAD_ANSWER)
