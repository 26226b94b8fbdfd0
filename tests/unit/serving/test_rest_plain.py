"""The plain endpoints over a real socket: what is asked, what is answered, and how it is refused."""

import asyncio
from threading import Event

import httpx2
import numpy as np
import pytest
from made_pages import canary_page, stable_page
from rest_world import RestWorld
from small_pipeline import SICK, model_of, tenths

from app.errors import ModelFailed
from app.serving.rest import Routes
from app.serving.rest_calls import RestPolicy
from app.specs import ProbabilitiesOutput


@pytest.fixture(scope="module")
def server():
    with RestWorld() as world:
        yield world


def test_one_row_is_answered_with_everything_there_is_to_know(server):
    answer = server.post("/predict", {"features": {"x": 7.0}, "key": "c"}, headers={"x-request-id": "mine-1"})
    page = answer.json()
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine-1")
    assert page.pop("latency_ms") > 0
    assert page.pop("probabilities") == pytest.approx([0.3, 0.7])
    assert page.pop("confidence") == pytest.approx(0.7)
    assert page == {
        "prediction": 1, "model": "churn", "model_version": "7", "answered_by": "stable", "rollout_revision": 1,
        "request_id": "mine-1",
    }  # fmt: skip


def test_a_vector_is_as_good_as_names(server):
    by_name, by_position = ({"features": {"x": 2.5}}, {"features": [2.5]})
    pages = [server.post("/predict", page).json() for page in (by_name, by_position)]
    assert pages[0]["probabilities"] == pages[1]["probabilities"]


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "snowman-\u2603"])
def test_a_request_id_that_cannot_be_echoed_is_replaced(server, given):
    answer = server.post("/predict", {"features": [1]}, headers={"x-request-id": given.encode()})
    assert len(answer.json()["request_id"]) == 32
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize(
    ("page", "field", "detail"),
    [
        ({"features": {"x": 11}}, "features.x", "x is 11, allowed 0 to 10"),
        ({"features": {"x": "7"}}, "features.x", "x is '7', expected a number"),
        ({"features": {"x": None}}, "features.x", "x is missing"),
        ({"features": {}}, "features.x", "x is missing"),
        ({"features": {"x": 1, "y": 2}}, "features.y", "y is no field of the events, which have id, x"),
        ({"features": [1, 2]}, "features", "features has length 2, allowed 1: x"),
        ({"features": ["a"]}, "features[0]", "features[0] is 'a', expected a number or null"),
        ({"features": [None]}, "features.x", "x is missing"),
        ({"features": 7}, "features", "features is a number, expected an object"),
        ({"features": None}, "features", "features is missing or null, expected an object"),
        ({"features": "x"}, "features", "features is text, expected an object"),
        ({}, "features", "features is missing"),
        ({"features": [1], "feature": 1}, "feature", "feature is not known; known are features, key, version"),
        ({"features": [1], "key": 5}, "key", "key is a number, expected text of at most 1024 characters"),
        ({"features": [1], "key": "k" * 1025}, "key", "key is text, expected text of at most 1024 characters"),
        ({"features": [1], "version": 7}, "version", "version is a number, expected text"),
        ([1], None, "expected a JSON object, found list"),
        (7, None, "expected a JSON object, found int"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_the_field_is_named(server, page, field, detail):
    answer = server.post("/predict", page)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert answer.json()["detail"].startswith(detail)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"features": [NaN]}', b"[" * 100_000, b'{"a":' * 5_000, b'{"features": ["\\ud800"]}'],
    ids=["empty", "cut", "no UTF-8", "NaN", "deep list", "deep object", "surrogate"],
)
def test_what_is_no_json_is_told_so(server, body):
    answer = server.post("/predict", content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("this is no JSON")


def test_a_compressed_body_is_not_taken(server):
    answer = server.post("/predict", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["field"]) == (400, "content-encoding")


def test_each_row_of_a_batch_has_its_answer_or_its_error(server):
    instances = [{"features": {"x": 1.0}, "key": "a"}, {"x": 2.0}, {"x": 12.0}, {"x": SICK}]
    for path in ("/predict/batch", "/batch_predict"):
        page = server.post(path, {"instances": instances}).json()
        assert [row["prediction"] for row in page["predictions"]] == [0, 0, None, None]
        assert page["predictions"][1]["probabilities"] == pytest.approx([0.8, 0.2])
        assert page["predictions"][2]["error"] == {
            "reason": "out_of_range", "field": "x", "message": "x is 12, allowed 0 to 10"
        }  # fmt: skip
        assert page["predictions"][3]["error"]["reason"] == "bad_output"
        assert (page["errors"], page["model_version"]) == (2, "7")
        assert page["request_id"]
        assert page["latency_ms"] > 0


@pytest.mark.parametrize(
    ("page", "field"),
    [
        ({"instances": 5}, "instances"),
        ({}, "instances"),
        ({"instances": [[1], {"x": 1}]}, "instances[0]"),
        ({"instances": [{"x": 1}, 5]}, "instances[1]"),
        ({"instances": [{"features": [1], "kye": "a"}]}, "instances[0].kye"),
        ({"instances": [{"features": [1], "key": 1}]}, "instances[0].key"),
        ({"instances": [[11]]}, "instances[0].features.x"),
        ({"instances": [[1]], "more": 1}, "more"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused_and_the_field_is_named(server, page, field):
    answer = server.post("/predict/batch", page)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_an_empty_batch_is_answered_with_nothing(server):
    assert server.post("/predict/batch", {"instances": []}).json()["predictions"] == []


def test_the_key_decides_who_answers_and_the_version_can_be_named():
    with RestWorld(model_of("7"), model_of("8"), page=canary_page("7", "8", 50, 3)) as world:
        keys = [str(number) for number in range(40)]
        page = world.post("/predict/batch", {"instances": [{"features": [1], "key": key} for key in keys]}).json()
        chosen = world.core.in_force.lineup.page.choose([key.encode() for key in keys])
        assert [row["model_version"] for row in page["predictions"]] == ["78"[arm] for arm in chosen]
        assert page["model_version"] is None
        alone = [world.post("/predict", {"features": [1], "key": key}).json() for key in keys]
        assert [(row["model_version"], row["answered_by"]) for row in alone] == [
            (("7", "stable"), ("8", "canary"))[arm] for arm in chosen
        ]
        assert world.post("/predict", {"features": [1]}).json()["model_version"] == "7"
        assert world.post("/predict", {"features": [1], "version": "8"}).json()["model_version"] == "8"
        refused = world.post("/predict", {"features": [1], "version": "9"})
        assert (refused.status_code, refused.json()["detail"]) == (404, "version '9' is not answering; answering: 7, 8")


def test_each_row_has_the_probabilities_of_its_own_version_and_no_others():
    def three(tensors):
        return {"P": np.concatenate([tenths(tensors)["P"] / 2, np.full((len(tensors["X"]), 1), 0.5)], axis=1)}

    wider = model_of("8", three)
    wider.outputs = (ProbabilitiesOutput(name="P", classes=(0, 1, 2), fields={"label": "class", "p": "confidence"}),)
    with RestWorld(model_of("7"), wider, page=canary_page("7", "8", 50, 3)) as world:
        keys = [str(number) for number in range(40)]
        asked = {"instances": [{"features": [1], "key": key} for key in keys]}
        rows = world.post("/predict/batch", asked).json()["predictions"]
        assert {(row["model_version"], len(row["probabilities"])) for row in rows} == {("7", 2), ("8", 3)}
        assert all(value is not None for row in rows for value in row["probabilities"])
        assert {round(row["confidence"], 3) for row in rows} == {0.9, 0.5}


def test_health_says_what_is_served_and_how_much_was_answered():
    with RestWorld() as world:
        world.post("/predict/batch", {"instances": [[1], [2], [11]]})
        page = world.get("/health").json()
        assert page.pop("uptime_seconds") >= 0
        assert page == {"status": "ok", "model_loaded": True, "model_version": "7", "total_predictions": 2}
        assert world.get("/metrics").text == "# metrics\n"
        assert [world.get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]
        assert ("/predict/batch", "200") in world.calls


def test_while_no_model_is_ready_the_server_lives_and_says_so():
    with RestWorld(ready=False) as world:
        answer = world.post("/predict", {"features": [1]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["detail"] == "model 'churn' is not ready"
        health = world.get("/health")
        assert (health.status_code, health.json()["model_loaded"]) == (503, False)
        found = [world.get(path).status_code for path in ("/livez", "/readyz", "/ping", "/v2/health/ready")]
        assert found == [200, 503, 503, 503]
        world.use(stable_page("7"))
        assert world.post("/predict", {"features": [1]}).status_code == 200


def test_what_the_model_takes_and_gives_is_told(server):
    page = server.get("/model/info").json()
    assert page["features"] == [
        {"field": "x", "kind": "number", "position": 0, "width": 1, "min": 0, "max": 10, "required": True}
    ]
    assert (page["vector_length"], page["rollout"]["answering"][0]["version"]) == (1, "7")
    assert page["outputs"][0]["classes"] == [0, 1]


def test_reloading_is_for_administrators_and_says_what_came_of_it(server):
    def order():
        return server.post("/model/reload", headers={"x-api-key": "boss"})

    assert server.post("/model/reload").status_code == 401
    assert order().json()["status"] == "unchanged"
    server.reload = lambda: server.use(stable_page("7", 5))
    assert (order().json()["status"], order().json()["rollout_revision"]) == ("reloaded", 5)
    server.reload = lambda: "ModelInvalid: golden rows differ"
    refused = order()
    assert (refused.status_code, refused.json()["detail"]) == (409, "model churn: ModelInvalid: golden rows differ")
    server.reload = lambda: None


def test_what_there_is_not_is_404_and_what_is_not_so_is_405(server):
    assert server.get("/nothing").status_code == 404
    assert server.get("/predict").status_code == 405


def test_more_rows_or_bytes_than_allowed_are_413_however_they_are_announced():
    routes = Routes(policy=RestPolicy(body_bytes=1000))
    with RestWorld(routes=routes, most_request_rows=3) as world:
        assert world.post("/predict/batch", {"instances": [[1]] * 4}).status_code == 413
        assert world.post("/predict", content=b"x" * 1001).status_code == 413
        assert world.post("/predict", content=iter([b"x" * 600] * 2)).status_code == 413
        assert world.post("/predict", {"features": [1]}).status_code == 200


def test_more_than_may_wait_is_told_when_to_come_back():
    release = Event()

    def slow(tensors):
        assert release.wait(20)
        return tenths(tensors)

    with RestWorld(model_of("7", slow), most_waiting_rows=1) as world:

        async def crowd():
            async with httpx2.AsyncClient(base_url=world.url, timeout=30, trust_env=False) as client:
                asked = [asyncio.ensure_future(client.post("/predict", json={"features": [1]})) for _ in range(8)]
                await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                release.set()
                return await asyncio.gather(*asked)

        answers = asyncio.run(crowd())
        codes = sorted(answer.status_code for answer in answers)
        assert codes[0] == 200
        assert codes[-1] == 429
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)


def test_what_takes_too_long_is_504():
    release = Event()

    def slow(tensors):
        assert release.wait(20)
        return tenths(tensors)

    with RestWorld(model_of("7", slow), routes=Routes(policy=RestPolicy(answer_s=0.5))) as world:
        assert world.post("/predict", {"features": [1]}).status_code == 504
        release.set()
        assert world.post("/predict", {"features": [2]}).status_code == 200


def test_who_hangs_up_leaves_the_batch():
    release, asked = Event(), Event()

    def slow(tensors):
        asked.set()
        assert release.wait(20)
        return tenths(tensors)

    with RestWorld(model_of("7", slow)) as world:

        async def until(reached):
            async with asyncio.timeout(20):
                while not reached():
                    await asyncio.sleep(0.01)

        async def three():
            async with httpx2.AsyncClient(base_url=world.url, timeout=30, trust_env=False) as client:
                first = asyncio.ensure_future(client.post("/predict", json={"features": [1]}))
                await asyncio.to_thread(asked.wait, 20)
                second = asyncio.ensure_future(client.post("/predict", json={"features": [2]}))
                await until(lambda: len(world.core._batcher))
                second.cancel()
                await until(lambda: ("/predict", "499") in world.calls)
                release.set()
                return await first

        assert asyncio.run(three()).status_code == 200
        assert world.post("/predict", {"features": [3]}).status_code == 200
        seen = np.concatenate([tensors["X"][:, 0] for tensors in world.models[0].seen]).tolist()
        assert 2.0 not in seen


def test_a_model_at_fault_is_500_and_a_fault_of_ours_says_nothing_of_itself():
    model = model_of("7")
    with RestWorld(model) as world:

        def broken(_tensors):
            raise ModelFailed("its weights are gone")

        def unforeseen(_tensors):
            raise KeyError("secret")

        model.answer, model.at_fault = unforeseen, False
        answer = world.post("/predict", {"features": [1]})
        assert (answer.status_code, answer.json()["detail"]) == (500, "internal error")
        model.answer, model.at_fault = broken, True
        assert world.post("/predict", {"features": [1]}).status_code == 500


def test_a_browser_may_not_ask_unless_its_page_is_named():
    origin = {"origin": "https://shop.example"}
    asks = origin | {"access-control-request-method": "POST"}
    with RestWorld() as world:
        assert "access-control-allow-origin" not in world.post("/predict", {"features": [1]}, headers=origin).headers
        assert world.client.options("/predict", headers=asks).status_code == 405
    with RestWorld(routes=Routes(cors_origins=("https://shop.example",))) as world:
        answer = world.client.options("/predict", headers=asks)
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        other = asks | {"origin": "https://other.example"}
        assert world.client.options("/predict", headers=other).status_code == 400
