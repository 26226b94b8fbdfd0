"""A client for `inference-worker serve`: REST and gRPC, each for threads and for asyncio.

    from app.client import RestClient

    with RestClient("http://127.0.0.1:8000") as client:
        answer = client.predict({"age": 34, "plan": "basic", ...}, key="customer-7")

A prediction changes nothing on the server, so what failed by chance is asked again, under the same request id, within
the call's deadline. It imports nothing else of this program but the gRPC messages; gRPC is in `app.client.grpc`, which
needs the extra `serving`. docs/CLIENTS.md is its manual.
"""

from app.client.answers import Health, Prediction, Rejection
from app.client.failures import (
    BadAnswer,
    BadRequest,
    ClientError,
    DeadlineExceeded,
    NotAllowed,
    NotFound,
    NotServing,
    Overloaded,
    Retriable,
    ServerFailed,
    Unreachable,
)
from app.client.rest import AsyncRestClient, RestClient
from app.client.rest_pages import Credentials
from app.client.retrying import RetryPolicy

__all__ = [
    "AsyncRestClient",
    "BadAnswer",
    "BadRequest",
    "ClientError",
    "Credentials",
    "DeadlineExceeded",
    "Health",
    "NotAllowed",
    "NotFound",
    "NotServing",
    "Overloaded",
    "Prediction",
    "Rejection",
    "RestClient",
    "Retriable",
    "RetryPolicy",
    "ServerFailed",
    "Unreachable",
]
