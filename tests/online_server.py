"""A REST and gRPC server that answers like ours and has no model: for tests of what stands in front of one.

Started as a program it prints nothing and serves until it is killed:

    python tests/online_server.py --rest PORT --grpc PORT [--takes-ms N] [--version V]
"""

import argparse
import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.grpc_api import prediction_pb2 as pb
from app.grpc_api import prediction_pb2_grpc as rpc

VERSION = "7"
CALLS_AT_ONCE = 64


class Behaviour:
    """How requests are answered; may be changed while the server runs.

    takes_s: of every request. version: that answers. statuses: of the next REST requests, one each, then 200 again.
    codes: the same for gRPC. headers: of REST answers whose status is not 200. seen: (request id, key) of each.
    """

    def __init__(self, takes_s=0.0, version=VERSION):
        self.takes_s, self.version = takes_s, version
        self.statuses, self.codes, self.headers, self.seen = [], [], {}, []


def rest_application(behaviour):
    async def one(request):
        page = await request.json()
        return await answer(request, page.get("key"), lambda: row(page))

    async def many(request):
        page = await request.json()
        rows = page["instances"]
        return await answer(
            request, None, lambda: {"predictions": [row(each) for each in rows], "model_version": behaviour.version}
        )

    def row(_page):
        return {"prediction": 1, "probabilities": [0.25, 0.75], "confidence": 0.75, "model_version": behaviour.version}

    async def answer(request, key, make):
        name = request.headers.get("x-request-id")
        behaviour.seen.append((name, key))
        await asyncio.sleep(behaviour.takes_s)
        status = behaviour.statuses.pop(0) if behaviour.statuses else 200
        echoed = {"x-request-id": name} if name else {}
        if status != 200:
            return JSONResponse({"detail": f"says {status}"}, status, headers={**echoed, **behaviour.headers})
        return JSONResponse({**make(), "request_id": name, "latency_ms": 0.1}, headers=echoed)

    async def health(request):
        return JSONResponse(
            {
                "status": "ok",
                "model_loaded": True,
                "model_version": behaviour.version,
                "uptime_seconds": 1.5,
                "total_predictions": len(behaviour.seen),
            }
        )

    return Starlette(
        routes=[
            Route("/predict", one, methods=["POST"]),
            Route("/predict/batch", many, methods=["POST"]),
            Route("/health", health),
            Route("/model/reload", lambda request: JSONResponse({}), methods=["POST"]),
        ]
    )


class Service(rpc.PredictionServiceServicer):
    """On threads: two event loops in one process, a test's and the server's, would share grpc.aio's one poller."""

    def __init__(self, behaviour):
        self._behaviour = behaviour

    def Predict(self, request, context):  # noqa: N802 - the service's own name
        self._turn(context)
        return pb.PredictResponse(prediction=1, probabilities=[0.25, 0.75], model_version=self._behaviour.version)

    def BatchPredict(self, request, context):  # noqa: N802
        self._turn(context)
        rows = len(request.instances)
        each = pb.Probabilities(values=[0.25, 0.75])
        return pb.BatchPredictResponse(predictions=[1] * rows, probabilities=[each] * rows)

    def PredictStream(self, requests, context):  # noqa: N802
        for _ in requests:
            yield pb.StreamedPredictResponse(prediction=1, model_version=self._behaviour.version)

    def HealthCheck(self, request, context):  # noqa: N802
        return pb.HealthResponse(status="ok", model_loaded=True)

    def _turn(self, context):
        metadata = dict(context.invocation_metadata())
        key = metadata.get("inference-key") or metadata.get("inference-key-bin", b"").decode() or None
        self._behaviour.seen.append((metadata.get("x-request-id"), key))
        time.sleep(self._behaviour.takes_s)
        context.set_trailing_metadata(
            (
                ("inference-model-version", self._behaviour.version),
                ("inference-answered-by", "stable"),
                ("inference-rollout-revision", "3"),
            )
        )
        if self._behaviour.codes:
            context.abort(self._behaviour.codes.pop(0), "says so")


class _Uvicorn(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


async def serve(behaviour, rest_port, grpc_port, started, stop):
    """Serve until `stop` is set. started(rest_port, grpc_port) is called with the ports that were taken."""
    config = uvicorn.Config(rest_application(behaviour), host="127.0.0.1", port=rest_port, log_level="error")
    rest = _Uvicorn(config)
    service = grpc.server(ThreadPoolExecutor(CALLS_AT_ONCE))
    rpc.add_PredictionServiceServicer_to_server(Service(behaviour), service)
    grpc_port = service.add_insecure_port(f"127.0.0.1:{grpc_port}")
    service.start()
    serving = asyncio.create_task(rest.serve())
    while not rest.started:
        await asyncio.sleep(0.01)
    started(rest.servers[0].sockets[0].getsockname()[1], grpc_port)
    await stop.wait()
    rest.should_exit = True
    service.stop(grace=None).wait()
    await serving


class OnlineServer:
    """One in a thread of this process, on free ports: `url` and `address`. A context manager."""

    def __init__(self, takes_s=0.0, version=VERSION):
        self.behaviour = Behaviour(takes_s, version)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await serve(self.behaviour, 0, 0, self._started, self._stop)

    def _started(self, rest_port, grpc_port):
        self.url, self.address = f"http://127.0.0.1:{rest_port}", f"127.0.0.1:{grpc_port}"
        self._ready.set()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rest", type=int, required=True)
    arguments.add_argument("--grpc", type=int, required=True)
    arguments.add_argument("--takes-ms", type=float, default=0.0)
    arguments.add_argument("--version", default=VERSION)
    given = arguments.parse_args()

    async def forever():
        behaviour = Behaviour(given.takes_ms / 1000, given.version)
        await serve(behaviour, given.rest, given.grpc, lambda *_: None, asyncio.Event())

    asyncio.run(forever())
