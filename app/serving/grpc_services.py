"""Which services there are, and which of their methods everybody may call."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import grpc

from app.serving.core import OnlineCore
from app.serving.grpc_calls import Calls
from app.serving.grpc_inference import PUBLIC, InferenceService
from app.serving.grpc_inference import SERVICE as INFERENCE
from app.serving.grpc_prediction import SERVICE as PREDICTION
from app.serving.grpc_prediction import PredictionService


def grpc_services(
    calls: Calls, cores: Sequence[OnlineCore], ending: asyncio.Event
) -> dict[str, grpc.GenericRpcHandler]:
    """By full name. cores: one for each model, at least one; PredictionService, which names none, asks the first."""
    prediction = PredictionService(cores[0], ending)
    inference = InferenceService({core.model: core for core in cores}, ending)
    coming = partial(cores[0].coming, queued=True)  # grpc.aio takes in one call in each round of the loop
    only = coming if len(cores) == 1 else nullcontext  # whose a message is that is on its way, nobody knows
    return {
        PREDICTION: calls.service(PREDICTION, prediction.unary, prediction.streams, {"HealthCheck"}, coming),
        INFERENCE: calls.service(INFERENCE, inference.unary, public=PUBLIC, coming=only),
    }
