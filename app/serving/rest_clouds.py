"""What the cloud platforms ask of a container.

Amazon SageMaker: `GET /ping` and `POST /invocations`, JSON or CSV, see
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html. Google Vertex AI: routes and port
that it names in `AIP_…`, `instances` in and `predictions` out, see
https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements.
"""

import re

from starlette.responses import Response

from app.answering.answers import Answers
from app.serving.core import OnlineCore
from app.serving.question import Question
from app.serving.refusals import BadRequest
from app.serving.rest_calls import Call, Malformed, json_object, json_response
from app.serving.rest_pages import answer_page, answer_pages, check_rows, many, one, refusal_of

# What Python takes beside it, 50_000 and letters of other scripts, no other reader of CSV does.
NUMBER = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf(inity)?)", re.ASCII | re.IGNORECASE
)


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
            answers = await call.ask(core, Question(vectors=self._csv(body), within_s=call.within_s))
            _check(answers, "line")
            if "application/json" in call.request.headers.get("accept", ""):
                return json_response({"predictions": answer_pages(answers)})
            return Response("".join(f"{label}\n" for label in answers.predictions.tolist()), media_type="text/csv")
        page = json_object(body)
        if "instances" in page:
            answers = await call.ask(core, many(page, core.policy.most_request_rows, call.within_s))
            _check(answers, "instances")
            return json_response({"predictions": answer_pages(answers)})
        answers = await call.ask(core, one(page, call.within_s))
        _check(answers, "")
        return json_response(answer_page(answers))

    async def predictions(self, call: Call) -> Response:
        """`instances` → `predictions`, whole or not at all."""
        core = self._core
        question = many(await call.json(core), core.policy.most_request_rows, call.within_s)
        answers = await call.ask(core, question)
        _check(answers, "instances")
        return json_response({"predictions": answer_pages(answers)})

    def _csv(self, body: bytes) -> list[object]:
        """A row for each line; nothing between two commas is missing. Raises BadRequest."""
        most = self._core.policy.most_request_rows
        lines = body.count(b"\n") + (not body.endswith(b"\n"))
        check_rows(lines, most, "line")
        if body.count(b",") > most * self._core.in_force.events.width:
            raise BadRequest("line: more values than any rows have", field="line", too_large=True)
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise Malformed("this is no UTF-8 text") from None
        return [_row(number, line) for number, line in enumerate(text.removesuffix("\n").split("\n"))] if text else []


def _row(number: int, line: str) -> list[float | None]:
    cells = [cell.strip(" \t\r") for cell in line.split(",")]
    for cell in cells:
        if cell and not NUMBER.fullmatch(cell):
            raise BadRequest(f"line[{number}]: {cell[:64]!r} is no number", field=f"line[{number}]")
    return [float(cell) if cell else None for cell in cells]


def _check(answers: Answers, where: str) -> None:
    if answers.rejected:
        raise refusal_of(answers, where)
