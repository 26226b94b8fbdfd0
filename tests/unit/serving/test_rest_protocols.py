"""TensorFlow Serving v1, Open Inference Protocol v2 and the contracts of the cloud platforms, over a real socket."""

import time

import pytest
import small_pipeline
from made_pages import canary_page
from rest_world import RestWorld
from small_pipeline import model_of, tenths

from app.avro.datum_writer import DatumWriter
from app.serving.rest import Routes
from app.specs import InputSpec, NumberFeature, ValueOutput

V1, V2 = "/v1/models/churn", "/v2/models/churn"


@pytest.fixture(scope="module")
def server():
    routes = Routes(health="/vertex/health", predict="/vertex/predict")
    models = (model_of("7"), model_of("8", lambda tensors: tenths({"X": tensors["X"] / 2})))
    with RestWorld(*models, page=canary_page("7", "8", 50, 3), routes=routes) as world:
        yield world


def tensor(name, data, datatype="FP64", shape=None):
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def test_v1_answers_rows_by_row(server):
    for instances in ([[1.0], [2.0]], [{"x": 1.0}, {"x": 2.0}], [1.0, 2.0], [{"features": [1.0]}, {"features": [2.0]}]):
        answer = server.post(f"{V1}:predict", {"instances": instances})
        assert answer.status_code == 200
        rows = answer.json()["predictions"]
        assert [row["prediction"] for row in rows] == [0, 0]
        assert rows[1]["probabilities"] == pytest.approx([0.8, 0.2])


def test_v1_answers_columns_by_column(server):
    for inputs in ({"x": [1.0, 7.0]}, {"features": [[1.0], [7.0]]}, [[1.0], [7.0]]):
        outputs = server.post(f"{V1}:predict", {"inputs": inputs}).json()["outputs"]
        assert outputs["prediction"] == [0, 1]
        assert outputs["confidence"] == pytest.approx([0.9, 0.7])


def test_v1_leaves_the_name_of_an_only_output_out(monkeypatch):
    prediction = small_pipeline.schema("Prediction", ("id", "string"), ("p", "double"))
    writer = DatumWriter(small_pipeline.FRAMING, small_pipeline.PREDICTION_HEADER, prediction)
    monkeypatch.setattr(small_pipeline, "WRITER", writer)
    values = model_of("7", lambda tensors: {"V": tensors["X"][:, 0] * 2})
    values.outputs = (ValueOutput(name="V", fields={"p": "value"}),)
    with RestWorld(values) as world:
        assert world.post(f"{V1}:predict", {"instances": [[1.0], [2.5]]}).json() == {"predictions": [2.0, 5.0]}
        assert world.post(f"{V1}:predict", {"inputs": {"x": [1.0, 2.5]}}).json() == {"outputs": [2.0, 5.0]}


def test_v1_takes_a_version_and_keys(server):
    alone = server.post(f"{V1}/versions/8:predict", {"instances": [[4.0]]}).json()["predictions"][0]
    assert alone["probabilities"] == pytest.approx([0.8, 0.2])
    keys = [str(number) for number in range(20)]
    rows = server.post(f"{V1}:predict", {"instances": [[4.0]] * 20, "keys": keys}).json()["predictions"]
    arms = server.core.in_force.lineup.page.choose([key.encode() for key in keys])
    assert [row["probabilities"][1] for row in rows] == pytest.approx([(0.4, 0.2)[arm] for arm in arms])


@pytest.mark.parametrize(
    ("path", "page", "status", "error"),
    [
        (f"{V1}:predict", {}, 400, "expected instances or inputs"),
        (f"{V1}:predict", {"instances": [], "inputs": []}, 400, "expected instances or inputs"),
        (f"{V1}:predict", {"instances": 5}, 400, "instances: expected a list"),
        (f"{V1}:predict", {"inputs": 5}, 400, "inputs: expected a list of rows"),
        (f"{V1}:predict", {"inputs": {"x": [1], "id": []}}, 400, "inputs: the lists differ"),
        (f"{V1}:predict", {"instances": [[1], [11]]}, 400, "instances[1]: x is 11, allowed 0 to 10"),
        (f"{V1}:predict", {"instances": [[1]], "keys": ["a", "b"]}, 400, "keys: expected a list, one for each row"),
        (f"{V1}:predict", {"instances": [[1]], "keys": [1]}, 400, "instances[0].key is a number"),
        ("/v1/models/nope:predict", {"instances": [[1]]}, 404, "Servable not found for request: Latest(nope)"),
        (f"{V1}/versions/9:predict", {"instances": [[1]]}, 404, "version '9' is not answering"),
    ],
)
def test_v1_errors_are_as_tensorflow_serving_has_them(server, path, page, status, error):
    answer = server.post(path, page)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(error)


def test_v1_has_status_and_metadata(server):
    states = server.get(V1).json()["model_version_status"]
    assert [(state["version"], state["state"]) for state in states] == [("7", "AVAILABLE"), ("8", "AVAILABLE")]
    assert len(server.get(f"{V1}/versions/8").json()["model_version_status"]) == 1
    assert server.get(f"{V1}/versions/9").status_code == server.get("/v1/models/nope").status_code == 404
    page = server.get(f"{V1}/metadata").json()
    signature = page["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert page["model_spec"]["name"] == "churn"
    assert signature["inputs"]["features"]["tensor_shape"]["dim"][1]["size"] == "1"
    assert signature["outputs"].keys() == {"prediction", "probabilities", "confidence"}


@pytest.mark.parametrize(
    "inputs",
    [
        [tensor("features", [1.0, 7.0], shape=[2, 1])],
        [tensor("features", [[1.0], [7.0]], "FP32", [2, 1])],
        [tensor("X", [1, 7], "INT64", [2, 1])],
        [tensor("x", [1, 7], "UINT8")],
        [tensor("x", [1, 7], "FP16", [2, 1]), tensor("id", ["a", "b"], "BYTES")],
    ],
)
def test_v2_answers_tensors_with_tensors(server, inputs):
    page = server.post(f"{V2}/infer", {"id": "mine", "inputs": inputs}).json()
    outputs = {output["name"]: output for output in page["outputs"]}
    assert (page["model_name"], page["model_version"], page["id"]) == ("churn", "7", "mine")
    assert (outputs["prediction"]["datatype"], outputs["prediction"]["data"]) == ("INT64", [0, 1])
    assert outputs["probabilities"]["shape"] == [2, 2]
    assert outputs["probabilities"]["data"] == pytest.approx([0.9, 0.1, 0.3, 0.7])


def test_v2_takes_a_version_keys_and_which_outputs(server):
    request = {"inputs": [tensor("x", [4.0])], "outputs": [{"name": "confidence"}]}
    page = server.post(f"{V2}/versions/8/infer", request).json()
    assert [output["name"] for output in page["outputs"]] == ["confidence"]
    assert page["model_version"] == "8"
    keys = [str(number) for number in range(20)]
    inputs = [tensor("x", [4.0] * 20), tensor("key", keys, "BYTES")]
    outputs = server.post(f"{V2}/infer", {"inputs": inputs}).json()["outputs"]
    arms = server.core.in_force.lineup.page.choose([key.encode() for key in keys])
    assert outputs[1]["data"][1::2] == pytest.approx([(0.4, 0.2)[arm] for arm in arms])


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ({}, "inputs: expected a list of tensors"),
        ({"inputs": []}, "inputs: expected a list of tensors"),
        ({"inputs": [5]}, "inputs[0]: expected an object with a name"),
        ({"inputs": [tensor("x", [1], "FP8")]}, "inputs[0].datatype: 'FP8' is none of BOOL"),
        ({"inputs": [tensor("x", [1], shape=[-1])]}, "inputs[0].shape: "),
        ({"inputs": [tensor("x", [1], shape=[1] * 33)]}, "inputs[0].shape: "),
        ({"inputs": [tensor("x", [1, 2], shape=[3])]}, "inputs[0].data: 2 elements, shape [3] has 3"),
        ({"inputs": [tensor("x", ["1"])]}, "inputs[0].data: '1' is no element of FP64"),
        ({"inputs": [tensor("x", [[1], 2], shape=[2])]}, "inputs[0].data: list is no element of FP64"),
        ({"inputs": [tensor("x", [300], "UINT8")]}, "inputs[0].data: "),
        ({"inputs": [tensor("x", [1.5], "INT64")]}, "inputs[0].data: 1.5 is no element of INT64"),
        ({"inputs": [tensor("x", [1]), tensor("x", [1])]}, "inputs[1]: there is another 'x'"),
        ({"inputs": [tensor("y", [1])]}, "y is no input; inputs are features, key, id, x"),
        ({"inputs": [tensor("x", [1]), tensor("id", ["a", "b"], "BYTES")]}, "inputs: they have"),
        ({"inputs": [tensor("key", ["a"], "BYTES")]}, "inputs: 'features', or one for each field, is needed"),
        ({"inputs": [tensor("x", [1]), tensor("key", [1])]}, "key: a tensor of BYTES"),
        ({"inputs": [tensor("features", ["a"], "BYTES", [1, 1])]}, "features: a tensor of numbers"),
        ({"inputs": [tensor("features", [1, 2], shape=[1, 2])]}, "inputs[0]: features has length 2, allowed 1: x"),
        ({"inputs": [tensor("features", [], shape=[0, 1])]}, "inputs: they have no rows"),
        ({"inputs": [tensor("x", [11.0])]}, "inputs[0]: x is 11, allowed 0 to 10"),
        ({"inputs": [tensor("x", [None])]}, "inputs[0]: x is missing"),
        ({"inputs": [tensor("x", [1])], "outputs": [{"name": "y"}]}, "outputs: there is no 'y'"),
        ({"inputs": [tensor("x", [1])], "outputs": 5}, "outputs: expected a list"),
        ({"inputs": [tensor("x", [1])], "id": 5}, "id: expected text"),
    ],
)
def test_v2_errors_name_the_tensor(server, page, error):
    answer = server.post(f"{V2}/infer", page)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(error)


def test_v2_has_health_and_metadata(server):
    assert server.get("/v2").json()["name"] == "inference-worker"
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    page = server.get(V2).json()
    assert (page["name"], page["versions"], page["inputs"][0]["shape"]) == ("churn", ["7", "8"], [-1, 1])
    found = [server.get(f"{V2}{path}").status_code for path in ("/ready", "/versions/8/ready", "/versions/9/ready")]
    assert found == [200, 200, 503]
    assert server.get("/v2/models/nope").json()["error"] == "there is no model 'nope', there are churn"
    assert [server.get(f"/v2/models/nope{path}").status_code for path in ("", "/ready")] == [404, 404]


def test_sagemaker_is_answered_in_what_it_sends(server):
    assert (server.get("/ping").status_code, server.get("/ping").content) == (200, b"")
    csv = {"content-type": "text/csv"}
    assert server.post("/invocations", content="1.0\n7.0\n", headers=csv).text == "0\n1\n"
    page = server.post("/invocations", content="7.0", headers=csv | {"accept": "application/json"}).json()
    assert page["predictions"][0]["prediction"] == 1
    assert server.post("/invocations", {"features": [7]}).json()["prediction"] == 1
    assert len(server.post("/invocations", {"instances": [[7], [1]]}).json()["predictions"]) == 2


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/csv", b"1.0,2.0", 422),
        ("text/csv", b"one", 422),
        ("text/csv", b"\xff", 400),
        ("text/csv", b",", 422),
        ("application/x-npy", b"", 400),
        ("application/json", b'{"instances": [[11]]}', 422),
        ("application/json", b"{", 400),
    ],
)
def test_sagemaker_is_told_what_is_wrong(server, kind, body, status):
    answer = server.post("/invocations", content=body, headers={"content-type": kind})
    assert (answer.status_code, "detail" in answer.json()) == (status, True)


def test_what_vertex_calls_its_routes_wins_over_paths_of_our_own():
    with RestWorld(model_of("7"), routes=Routes(health=V1, predict=f"{V1}:predict")) as world:
        answer = world.post(f"{V1}:predict", {"instances": [[1.0]], "parameters": {"of": "vertex"}})
        assert answer.status_code == 200
        assert b"model_version_status" not in world.get(V1).content


def test_vertex_is_answered_where_it_asks(server):
    assert server.get("/vertex/health").status_code == 200
    answer = server.post("/vertex/predict", {"instances": [[1], {"x": 7}], "parameters": {}})
    assert answer.status_code == 422, "rows of one kind only"
    page = server.post("/vertex/predict", {"instances": [[1], [7]], "parameters": {"a": 1}}).json()
    assert [row["prediction"] for row in page["predictions"]] == [0, 1]
    assert server.post("/vertex/predict", {"instances": [[1], [11]]}).status_code == 422


MANY = 1_000_001


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/predict/batch", b'{"instances":[' + b",".join([b"[]"] * MANY) + b"]}", "application/json"),
        ("/vertex/predict", b'{"instances":[' + b",".join([b"0"] * MANY) + b"]}", "application/json"),
        (f"{V1}:predict", b'{"instances":[' + b",".join([b"0"] * MANY) + b"]}", "application/json"),
        (f"{V1}:predict", b'{"inputs":{"x":[' + b",".join([b"0"] * MANY) + b"]}}", "application/json"),
        (
            f"{V2}/infer",
            b'{"inputs":[{"name":"x","datatype":"INT8","shape":[%d],"data":[%s]}]}' % (MANY, b",".join([b"1"] * MANY)),
            "application/json",
        ),
        (
            f"{V2}/infer",
            b'{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[%s]}]}' % b",".join([b"[]"] * MANY),
            "application/json",
        ),
        ("/invocations", b"1\n" * MANY, "text/csv"),
        ("/invocations", b"1," * MANY, "text/csv"),
    ],
    ids=["batch", "vertex", "v1 rows", "v1 columns", "v2", "v2 nested", "csv", "one line of csv"],
)
def test_more_rows_than_are_taken_are_refused_before_anything_is_made_of_them(server, path, body, kind):
    before = sum(fact.rows for fact in server.seen.batches)
    began = time.process_time()
    answer = server.post(path, content=body, headers={"content-type": kind})
    assert answer.status_code == 413
    assert time.process_time() - began < 1.5, "of which the client has its part"
    assert sum(fact.rows for fact in server.seen.batches) == before


@pytest.mark.parametrize("shape", [[2**31 - 1], [2**31 - 1, 2**31 - 1], [1, 2**30], [10_001]])
def test_a_tensor_that_says_it_is_too_large_is_refused_by_what_it_says(server, shape):
    answer = server.post(f"{V2}/infer", {"inputs": [tensor("x", [1], shape=shape)]})
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("inputs[0].shape: ")


def test_a_path_that_is_known_and_one_that_is_matched_are_answered_alike(server):
    page = {"inputs": [tensor("x", [1.0], "FP64", [1])]}
    known, matched = (server.post(f"{V2}{version}/infer", page) for version in ("", "/versions/7"))
    assert (known.status_code, matched.status_code) == (200, 200)
    assert known.json()["outputs"] == matched.json()["outputs"]
    assert server.post("/v2/models/other/infer", page).status_code == 404
    assert server.get(f"{V2}/infer").status_code == 405


@pytest.mark.parametrize("name", ["x", "features"])
def test_a_number_of_32_bits_is_the_decimal_that_was_meant(name):
    bound = (InputSpec(name="X", features=(NumberFeature(field="x", min=0.7, max=10),)),)
    with RestWorld(model_of("7", inputs=bound)) as world:
        for kind in ("FP64", "FP32"):
            page = {"inputs": [tensor(name, [0.7], kind, [1, 1])]}
            assert world.post(f"{V2}/infer", page).status_code == 200, kind


def test_a_version_that_does_not_answer_has_no_metadata_either(server):
    for path in (f"{V1}/versions/999/metadata", f"{V1}/versions/999", f"{V2}/versions/999"):
        assert server.get(path).status_code == 404, path
    assert server.get(f"{V1}/versions/8/metadata").json()["model_spec"]["version"] == "8"


@pytest.mark.parametrize(
    ("body", "line"),
    [("1_0\n", 0), ("1\n\n2\n", 1), ("1\x0b2\n", 0), ("1\n٣\n", 1), ("0x1\n", 0), ("1\u20282\n", 0), ("\n", 0)],
)
def test_csv_is_numbers_between_commas_and_a_row_in_each_line(server, body, line):
    answer = server.post("/invocations", content=body.encode(), headers={"content-type": "text/csv"})
    assert answer.status_code == 422
    assert answer.json()["field"].startswith(f"line[{line}]")


def test_what_is_asked_with_get_may_be_asked_with_head(server):
    for path in ("/health", "/livez", "/readyz", "/ping", "/v2/health/ready", V1):
        answer = server.client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
