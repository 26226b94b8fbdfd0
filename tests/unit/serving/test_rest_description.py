"""The OpenAPI page is true: what it allows is answered, what it forbids is refused, and nothing breaks the server."""

import schemathesis
from fakes import ManualClock
from hypothesis import HealthCheck, Phase, settings
from rest_world import RestWorld
from schemathesis.checks import CHECKS

from app.serving.gate import Gate
from app.serving.rest import Routes

ASKED = {
    "/predict", "/predict/batch", "/batch_predict", "/health", "/livez", "/readyz", "/model/info",
    "/v1/models/{model}:predict", "/v1/models/{model}", "/v1/models/{model}/metadata",
    "/v2", "/v2/models/{model}", "/v2/models/{model}/infer", "/v2/health/ready", "/v2/health/live", "/ping",
    "/invocations", "/model/reload",
    "/v1/models/{model}/versions/{version}:predict", "/v1/models/{model}/versions/{version}",
    "/v1/models/{model}/versions/{version}/metadata", "/v2/models/{model}/versions/{version}",
    "/v2/models/{model}/versions/{version}/infer", "/v2/models/{model}/versions/{version}/ready",
    "/v2/models/{model}/ready",
}  # fmt: skip
EXAMPLES = {
    "POST": 40,
    "GET": 8,
}  # of each operation: half a minute in all, most of it where there is something to read


def test_the_page_names_every_route_and_the_fields_of_the_model():
    with RestWorld() as world:
        page = world.get("/openapi.json").json()
        assert page["paths"].keys() >= ASKED | {"/metrics"}
        assert page["components"]["schemas"]["Features"]["properties"]["x"] == {
            "type": "number", "minimum": 0, "maximum": 10
        }  # fmt: skip
        example = page["components"]["schemas"]["Features"]["example"]
        assert world.post("/predict", {"features": example}).status_code == 200


def test_whatever_the_page_allows_or_forbids_is_answered_as_it_says():
    with RestWorld() as world:
        schema = schemathesis.openapi.from_url(f"{world.url}/openapi.json")
        checks = [
            CHECKS.get_one(name)
            for name in ("not_a_server_error", "status_code_conformance", "response_schema_conformance")
        ]
        for found in schema.get_all_operations():
            operation = found.ok()
            if operation.path not in ASKED:
                continue

            @settings(
                max_examples=EXAMPLES[operation.method.upper()],
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def asked(case):
                case.call_and_validate(checks=checks)

            _over(operation, asked)()


def _over(operation, asked):
    from hypothesis import given

    return given(case=operation.as_strategy())(asked)


def test_where_the_page_is_not_for_everybody_it_needs_a_key():
    gate = Gate(["caller"], [], None, ManualClock())
    with RestWorld(gate=gate, routes=Routes(open_description=False)) as world:
        assert world.get("/openapi.json").status_code == 401
        assert world.get("/docs").status_code == 404
        page = world.get("/openapi.json", headers={"x-api-key": "caller"}).json()
        assert page["components"]["schemas"]["Features"]["properties"]["x"]["maximum"] == 10
