"""The HTTP application: which route is answered by what, and to whom."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version as version_of_package
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.serving.admission import CallObserver, OpenBytes
from app.serving.call_tracing import RequestTracing
from app.serving.gate import Gate
from app.serving.rest_calls import (
    Behaviour,
    Calls,
    ErrorPage,
    RestPolicy,
    Who,
    bare_error,
    json_response,
    plain_error,
)
from app.serving.rest_clouds import CloudEndpoints
from app.serving.rest_description import operation, schemas_of
from app.serving.rest_plain import PlainEndpoints, Served
from app.serving.rest_socket import SocketEndpoint
from app.serving.rest_v1 import V1Endpoints
from app.serving.rest_v2 import V2Endpoints

Endpoint = Callable[[Request], Awaitable[Response]]
ASKING = "400 401 403 404 413 422 429 500 503 504"


@dataclass(frozen=True, slots=True)
class Routes:
    """What may be set about routes. cors_origins: of web pages that may ask from a browser.

    open_description: whether everybody may read what the model's fields are, on /openapi.json and /docs.
    """

    cors_origins: tuple[str, ...] = ()
    health: str | None = None
    predict: str | None = None
    open_description: bool = True
    policy: RestPolicy = field(default_factory=RestPolicy)


@dataclass(frozen=True, slots=True)
class _Style:
    error: ErrorPage
    bad: int


_PLAIN, _BARE = _Style(plain_error, 422), _Style(bare_error, 400)


def application(
    models: Mapping[str, Served],
    default: str,
    gate: Gate,
    routes: Routes,
    observer: CallObserver,
    exposition: Callable[[], bytes],
    ending: asyncio.Event,
    held: OpenBytes | None = None,
    tracing: RequestTracing | None = None,
) -> ASGIApp:
    """Everything there is over HTTP. default: the model that routes without a name ask.

    ending: set when the server is about to end. held: what bodies may hold together, with other surfaces.
    tracing: of requests, if they are traced.
    """
    app = FastAPI(
        title="Inference",
        version=version_of_package("kafka-inference-worker"),
        openapi_url="/openapi.json" if routes.open_description else None,
        docs_url="/docs" if routes.open_description else None,
        redoc_url=None,
    )
    calls = Calls(gate, routes.policy, observer, held, tracing)
    direct: dict[tuple[str, str], tuple[Endpoint, Mapping[str, str]]] = {}

    def add(
        verb: str,
        paths: Sequence[str],
        behaviour: Behaviour,
        page: dict[str, Any],
        who: Who = "callers",
        style: _Style = _PLAIN,
    ) -> None:
        endpoint = calls.route(paths[0], behaviour, who=who, error=style.error, bad=style.bad)
        for each in paths:
            for path, params in _known(each, models):
                for method in (verb, "HEAD") if verb == "GET" else (verb,):  # of a HEAD uvicorn leaves out the body
                    if path == each or (method, path) not in direct:  # what a cloud has named wins over a template
                        direct[method, path] = endpoint, params
        if verb == "GET":
            for path in paths:
                app.add_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        for path in paths:
            app.add_api_route(
                path,
                endpoint,
                methods=[verb],
                response_model=None,
                response_class=Response,  # of any kind: what it is says `page`
                operation_id=re.sub("[^a-z0-9]+", "_", f"{verb.lower()}{path}").strip("_"),
                openapi_extra=page,
            )

    served = models[default]
    _add_plain(add, PlainEndpoints(served, models, exposition))
    _add_clouds(add, CloudEndpoints(served.core), routes)
    _add_v1(add, V1Endpoints(models))
    _add_v2(add, V2Endpoints(models))
    app.add_api_websocket_route("/ws/predict", SocketEndpoint(served.core, calls, ending).serve)
    if not routes.open_description:
        page = operation("This page", codes="401 403")
        add("GET", ["/openapi.json"], lambda _: _described(app, served), page)
    app.add_exception_handler(HTTPException, _unrouted)
    app.openapi = lambda: _description(app, served)  # type: ignore[method-assign] # as FastAPI's manual says
    if routes.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(routes.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
        return app
    return _Direct(app, direct)


class _Direct:
    """Routes whose paths are known are looked up; the framework's way to them takes half of a small request's time.

    endpoints: by verb and path, each with the variables of the path.
    """

    def __init__(self, app: FastAPI, endpoints: Mapping[tuple[str, str], tuple[Endpoint, Mapping[str, str]]]) -> None:
        self._app, self._endpoints = app, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        endpoint, params = found
        scope["path_params"] = dict(params)
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def _known(path: str, models: Iterable[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The paths that a route stands for, as far as they are known, with their variables."""
    if "{" not in path:
        yield path, {}
    elif path.count("{") == 1 and "{model}" in path:
        for model in models:
            yield path.replace("{model}", model), {"model": model}


Add = Callable[..., None]
_bare = partial(operation, error="BareError")


def _add_plain(add: Add, plain: PlainEndpoints) -> None:
    add(
        "POST",
        ["/predict"],
        plain.predict,
        operation("Predict one row", takes="PredictRequest", gives="Prediction", codes=ASKING),
    )
    add(
        "POST",
        ["/predict/batch", "/batch_predict"],
        plain.predict_batch,
        operation("Predict many rows", takes="BatchRequest", gives="BatchResponse", codes=ASKING),
    )
    add("GET", ["/health"], plain.health, operation("Whether requests are answered", codes="503"), "anybody")
    add("GET", ["/livez"], plain.live, operation("Liveness"), "anybody")
    add("GET", ["/readyz"], plain.ready, operation("Readiness", codes="503"), "anybody")
    add("GET", ["/metrics"], plain.metrics, operation("Prometheus metrics"), "anybody")
    add("GET", ["/model/info"], plain.model_info, operation("What the model takes and gives", codes="401 403 503"))
    add("POST", ["/model/reload"], plain.reload,
        operation("Look for a new rollout page now", codes="401 403 409 503"), "admins")  # fmt: skip


def _add_clouds(add: Add, clouds: CloudEndpoints, routes: Routes) -> None:
    health = ["/ping", *([routes.health] if routes.health else [])]
    add("GET", health, clouds.ping, operation("Whether requests are answered (SageMaker, Vertex AI)"), "anybody")
    add("POST", ["/invocations"], clouds.invocations,
        operation("Predict (SageMaker)", takes="BatchRequest", codes=ASKING))  # fmt: skip
    if routes.predict:
        add("POST", [routes.predict], clouds.predictions,
            operation("Predict (Vertex AI)", takes="BatchRequest", codes=ASKING))  # fmt: skip


def _add_v1(add: Add, v1: V1Endpoints) -> None:
    for prefix in ("/v1/models/{model}/versions/{version}", "/v1/models/{model}"):
        page = _bare("Predict (TensorFlow Serving)", codes="400 401 403 404 413 429 500 503 504")
        page["requestBody"] = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        add("POST", [f"{prefix}:predict"], v1.predict, page, style=_BARE)
        add(
            "GET",
            [f"{prefix}/metadata"],
            v1.metadata,
            _bare("Signature (TensorFlow Serving)", codes="401 403 404 503"),
            style=_BARE,
        )
        add("GET", [prefix], v1.status,
            _bare("Versions (TensorFlow Serving)", codes="401 403 404 503"), style=_BARE)  # fmt: skip


def _add_v2(add: Add, v2: V2Endpoints) -> None:
    add("GET", ["/v2"], v2.server, _bare("Server (Open Inference Protocol)"), "anybody", _BARE)
    add("GET", ["/v2/health/live"], v2.live, _bare("Liveness (Open Inference Protocol)"), "anybody", _BARE)
    add("GET", ["/v2/health/ready"], v2.ready,
        _bare("Readiness (Open Inference Protocol)", codes="503"), "anybody", _BARE)  # fmt: skip
    for prefix in ("/v2/models/{model}/versions/{version}", "/v2/models/{model}"):
        add(
            "GET",
            [f"{prefix}/ready"],
            v2.model_ready,
            _bare("Readiness of a model (Open Inference Protocol)", codes="404 503"),
            "anybody",
            _BARE,
        )
        page = _bare("Inference (Open Inference Protocol)", codes="400 401 403 404 413 429 500 503 504")
        page["requestBody"] = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        add("POST", [f"{prefix}/infer"], v2.infer, page, style=_BARE)
        add("GET", [prefix], v2.model,
            _bare("Metadata (Open Inference Protocol)", codes="401 403 404 503"), style=_BARE)  # fmt: skip


async def _unrouted(_request: Request, exc: Exception) -> Response:
    """No such route, or not with this verb."""
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    detail = exc.detail if isinstance(exc, HTTPException) else "internal error"
    headers = exc.headers if isinstance(exc, HTTPException) else None
    return json_response({"detail": detail, "error": detail}, status, headers)


async def _described(app: FastAPI, served: Served) -> Response:
    return json_response(_description(app, served))


def _description(app: FastAPI, served: Served) -> dict[str, Any]:
    page = get_openapi(title=app.title, version=app.version, routes=app.routes)
    page["components"] = {"schemas": schemas_of(served.core.in_force if served.core.ready else None)}
    for operations in page["paths"].values():
        for described in operations.values():
            described["responses"] = {
                code: answer for code, answer in described["responses"].items()
                if "HTTPValidationError" not in str(answer)
            }  # fmt: skip
            for parameter in described.get("parameters", []):
                parameter["schema"] = {"type": "string"}
    return page
