"""What the cloud platforms ask of a container.

Amazon SageMaker: `GET /ping` and `POST /invocations`, JSON or CSV, see
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html. Google Vertex AI: routes and port
that it names in `AIP_…`, `instances` in and `predictions` out, see
https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements.
"""

from starlette.responses import Response

from app.answering.answers import Answers
from app.serving.core import OnlineCore, Question
from app.serving.refusals import BadRequest
from app.serving.rest_calls import Call, Malformed, json_object, json_response
from app.serving.rest_pages import answer_page, answer_pages, many, one, refusal_of


class CloudEndpoints:
    """Behaviours for `rest_calls.Calls`."""

    def __init__(self, core: OnlineCore) -> None:
        self._core = core

    async def ping(self, _call: Call) -> Response:
        """An empty 200 once requests are answered."""
        return Response(status_code=200 if self._core.ready else 503)

    async def invocations(self, call: Call) -> Response:
        """JSON as `/predict` and `/predict/batch` take it, by what it has; `text/csv`, a vector in each line."""
        core = self._core
        kind = call.request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind not in {"application/json", "text/csv"}:
            raise Malformed(
                f"content-type: {kind[:100]!r} is neither application/json nor text/csv", field="content-type"
            )
        with core.coming():
            body = await call.body()
        if kind == "text/csv":
            answers = await call.ask(core, Question(vectors=_csv(body), within_s=call.within_s))
            _check(answers, "line")
            if "application/json" in call.request.headers.get("accept", ""):
                return json_response({"predictions": answer_pages(answers)})
            return Response("".join(f"{label}\n" for label in answers.predictions.tolist()), media_type="text/csv")
        page = json_object(body)
        if "instances" in page:
            answers = await call.ask(core, many(page, call.within_s))
            _check(answers, "instances")
            return json_response({"predictions": answer_pages(answers)})
        answers = await call.ask(core, one(page, call.within_s))
        _check(answers, "")
        return json_response(answer_page(answers))

    async def predictions(self, call: Call) -> Response:
        """`instances` → `predictions`, whole or not at all."""
        answers = await call.ask(self._core, many(await call.json(self._core), call.within_s))
        _check(answers, "instances")
        return json_response({"predictions": answer_pages(answers)})


def _check(answers: Answers, where: str) -> None:
    if answers.rejected:
        raise refusal_of(answers, where)


def _csv(body: bytes) -> list[object]:
    """A row for each line that is not empty; nothing between two commas is missing. Raises BadRequest."""
    try:
        lines = body.decode().splitlines()
    except UnicodeDecodeError:
        raise Malformed("this is no UTF-8 text") from None
    rows: list[object] = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            rows.append([float(text) if text.strip() else None for text in line.split(",")])
        except ValueError as exc:
            raise BadRequest(f"line[{number}]: {str(exc)[:200]}", field=f"line[{number}]") from None
    return rows
