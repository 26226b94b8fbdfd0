"""The plain endpoints: predict, batch, health, what the model is, and reload."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.responses import PlainTextResponse, Response

from app.serving.core import OnlineCore
from app.serving.in_force import InForce
from app.serving.rest_calls import Call, Conflict, json_response
from app.serving.rest_pages import answer_page, answer_pages, many, one, only_version, refusal_of
from app.specs import OneHotFeature, OrdinalFeature, ProbabilitiesOutput


@dataclass(frozen=True, slots=True)
class Served:
    """A model that is served. reload: look at the store now; gives why nothing was taken from there, or None.

    `reload` may take seconds: it is called on a thread.
    """

    core: OnlineCore
    reload: Callable[[], str | None]


class PlainEndpoints:
    """Behaviours for `rest_calls.Calls`. default: what `/predict` asks. models: all, by name."""

    def __init__(self, default: Served, models: Mapping[str, Served], exposition: Callable[[], bytes]) -> None:
        self._default, self._models, self._exposition = default, models, exposition
        self._began = time.monotonic()

    async def predict(self, call: Call) -> Response:
        """One row."""
        core = self._default.core
        question = one(await call.json(core), call.within_s)
        answers = await call.ask(core, question)
        if answers.rejected:
            raise refusal_of(answers)
        page = answer_page(answers)
        page["latency_ms"] = call.latency_ms
        page["request_id"] = call.request_id
        return json_response(page)

    async def predict_batch(self, call: Call) -> Response:
        """Many rows: each has its answer or its error. If no row has an answer, the request is refused."""
        core = self._default.core
        question = many(await call.json(core), core.policy.most_request_rows, call.within_s)
        answers = await call.ask(core, question)
        if answers.rejected and len(answers.rejected) == len(answers):
            raise refusal_of(answers, "instances")
        return json_response(
            {
                "predictions": answer_pages(answers),
                "errors": len(answers.rejected),
                "model_version": only_version(answers),
                "latency_ms": call.latency_ms,
                "request_id": call.request_id,
            }
        )

    async def health(self, _call: Call) -> Response:
        """Whether requests are answered; 503 if not."""
        core = self._default.core
        version = core.in_force.lineup.lanes[0].version if core.ready else None
        page = {
            "status": "ok" if core.ready else "unavailable",
            "model_loaded": core.ready,
            "model_version": version,
            "uptime_seconds": round(time.monotonic() - self._began, 3),
            "total_predictions": sum(served.core.answered_rows for served in self._models.values()),
        }
        return json_response(page, 200 if core.ready else 503)

    async def live(self, _call: Call) -> Response:
        """That the loop turns is all there is to it."""
        return PlainTextResponse("ok\n")

    async def ready(self, _call: Call) -> Response:
        """Whether every model is loaded."""
        waiting = [name for name, served in self._models.items() if not served.core.ready]
        return PlainTextResponse(f"not ready: {', '.join(waiting)}\n" if waiting else "ok\n", 503 if waiting else 200)

    async def metrics(self, _call: Call) -> Response:
        """Prometheus text format."""
        return Response(self._exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def model_info(self, _call: Call) -> Response:
        """What answers, and what it takes and gives."""
        return json_response(info_page(self._default.core.in_force))

    async def reload(self, call: Call) -> Response:
        """Look for a new rollout page now, and take it if it is good; else everything stays as it is."""
        before = {name: _revision(served.core) for name, served in self._models.items()}
        for name, served in self._models.items():
            why = await asyncio.to_thread(served.reload)
            if why is not None:
                raise Conflict(f"model {name}: {why}")
        core = self._default.core
        in_force = core.in_force
        return json_response(
            {
                "status": "reloaded"
                if before != {n: _revision(s.core) for n, s in self._models.items()}
                else "unchanged",
                "model": core.model,
                "model_version": in_force.lineup.lanes[0].version,
                "rollout_revision": in_force.lineup.page.revision,
                "request_id": call.request_id,
            }
        )


def info_page(in_force: InForce) -> dict[str, object]:
    """A model as its callers see it."""
    lineup, events = in_force.lineup, in_force.events
    model = lineup.lanes[0].answerer.model
    features = []
    for position in events.positions:
        feature = position.feature
        page: dict[str, object] = {
            "field": position.field, "kind": feature.kind, "position": position.start, "width": position.width
        }  # fmt: skip
        if isinstance(feature, OneHotFeature | OrdinalFeature):
            page["categories"] = list(feature.categories)
        else:
            page |= {"min": feature.min, "max": feature.max}
        page["required"] = feature.missing == "reject"
        features.append(page)
    outputs = [
        {"name": spec.name, "kind": spec.kind, "classes": list(spec.classes), "threshold": spec.threshold}
        if isinstance(spec, ProbabilitiesOutput)
        else {"name": spec.name, "kind": spec.kind, "min": spec.min, "max": spec.max}
        for spec in model.outputs
    ]
    arms = {(lane.answerer.answered_by, lane.version): lane.answerer.model.digest for lane in lineup.lanes}
    return {
        "model": model.name,
        "model_version": model.version,
        "digest": model.digest,
        "features": features,
        "vector_length": events.width,
        "outputs": outputs,
        "event_schema": model.event_schema,
        "prediction_schema": model.prediction_schema,
        "rollout": {
            "strategy": lineup.page.strategy,
            "revision": lineup.page.revision,
            "answering": [
                {"part": part, "version": version, "digest": digest} for (part, version), digest in arms.items()
            ],
        },
    }


def _revision(core: OnlineCore) -> int | None:
    return core.in_force.lineup.page.revision if core.ready else None
