"""`inference-worker serve` over gRPC, as a process of its own: the answers are those of every other surface."""

import contextlib
import errno
import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request

import grpc
import numpy as np
import pyarrow as pa
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from worker_process import LOG_TAIL_LINES, ROOT, Samples, clean_environment, wait_until

from app.embed import load
from app.grpc_api import grpc_predict_v2_pb2 as v2
from app.grpc_api import prediction_pb2 as messages
from app.grpc_api.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from app.grpc_api.prediction_pb2_grpc import PredictionServiceStub
from app.train.churn_data import ChurnFormula
from app.wiring import training

ROWS = 2_000
KEY = "a key for this test"
SERVING = health_pb2.HealthCheckResponse.SERVING


@contextlib.contextmanager
def serving(store, folder, *, options=None, **serving_settings):
    """A server for the length of a block: its process, and what it said when it had started.

    options: of its pipeline.
    """
    config, log = folder / "serve.yaml", folder / "serve.log"
    pipeline = {
        "name": "churn", "input_topics": ["events"], "output_topic": "predictions",
        "dead_letter_topic": "dead-letters", "model": "churn", **(options or {}),
    }  # fmt: skip
    settings = {
        "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "nobody"},
        "pipelines": [pipeline],
        "schemas": {"directory": str(ROOT / "schemas")},
        "models": {"store": str(store)},
        "serving": {"port": 0, "grpc": {"port": 0}, **serving_settings},
        "log": {"format": "json"},
    }
    config.write_text(yaml.safe_dump(settings))

    def started():
        assert process.poll() is None, "it has ended"
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "started"]

    with log.open("wb") as output:
        command = [sys.executable, "-m", "app", "serve", "--config", config]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=clean_environment(), cwd=ROOT)
    try:
        yield process, wait_until(started, "the server to start")[0]
    except BaseException as exc:
        exc.add_note("\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]))
        raise
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def churn_store(tmp_path_factory):
    """A model store with version 1 of churn."""
    store = tmp_path_factory.mktemp("churn-store")
    training.train("churn", store=str(store), estimator=None, rows=2_000, seed=0, progress=lambda _: None)
    return store


@pytest.fixture(scope="module")
def server(churn_store, tmp_path_factory):
    with serving(churn_store, tmp_path_factory.mktemp("grpc"), access={"api_keys": KEY}) as (process, told):
        with grpc.insecure_channel(f"127.0.0.1:{told['grpc_port']}") as channel:
            stub = PredictionServiceStub(channel)
            wait_until(lambda: stub.HealthCheck(messages.HealthRequest(), wait_for_ready=True).model_loaded, "a model")
        yield process, told


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server[1]['grpc_port']}") as channel:
        yield channel


@pytest.fixture(scope="module")
def customers(churn_store):
    """(their events, the same as vectors in the order of the manifest, the probabilities that the library gives)."""
    table = ChurnFormula.load(ROOT / "schemas").customers(5, 0, ROWS).table
    manifest = json.loads((churn_store / "churn" / "1" / "manifest.json").read_text())
    columns = []
    for feature in manifest["inputs"][0]["features"]:
        column = table.column(feature["field"])
        if feature["kind"] == "number":
            columns.append(column.cast(pa.float64()).fill_null(float("nan")).to_numpy())
        else:
            columns.append(np.array([feature["categories"].index(value) for value in column.to_pylist()], float))
    answers = load(str(churn_store), "churn").score(table).to_pydict()
    return table, np.column_stack(columns), np.array(answers["probability"])


METADATA = [("x-api-key", KEY)]


def test_every_way_to_ask_gives_the_librarys_answers(channel, customers):
    _, vectors, expected = customers
    prediction, inference = PredictionServiceStub(channel), GRPCInferenceServiceStub(channel)
    rows = [messages.PredictRequest(features=row) for row in vectors.tolist()]

    batch = prediction.BatchPredict(messages.BatchPredictRequest(instances=rows), metadata=METADATA)
    singly = [prediction.Predict(row, metadata=METADATA).probabilities[1] for row in rows[:100]]
    streamed = [
        answer.probabilities[1]
        for answer in prediction.PredictStream(
            (messages.StreamedPredictRequest(features=row) for row in vectors.tolist()), metadata=METADATA
        )
    ]
    tensor = v2.ModelInferRequest.InferInputTensor(name="features", datatype="FP64", shape=vectors.shape)
    inferred = inference.ModelInfer(
        v2.ModelInferRequest(model_name="churn", inputs=[tensor], raw_input_contents=[vectors.tobytes()]),
        metadata=METADATA,
    )
    raw = dict(zip((output.name for output in inferred.outputs), inferred.raw_output_contents, strict=True))

    for found in (
        [row.values[1] for row in batch.probabilities],
        streamed,
        np.frombuffer(raw["probabilities"], np.float32).reshape(-1, 2)[:, 1],
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(singly, expected[:100], atol=1e-5)
    assert list(batch.predictions) == (expected >= 0.5).astype(int).tolist()


def test_without_the_key_nothing_is_predicted(channel):
    with pytest.raises(grpc.RpcError) as failed:
        PredictionServiceStub(channel).Predict(messages.PredictRequest(features=[0.0]))
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_calls_are_in_the_metrics_of_the_server(channel, server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server[1]['http_port']}/metrics", timeout=10) as answer:
        metrics = Samples(answer.read().decode())
    assert metrics.total("inference_requests_total", surface="grpc") >= 1


def is_refused(port):
    with contextlib.closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_until_a_model_is_there_connections_are_refused_which_a_proxy_understands(churn_store, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    with serving(store, tmp_path) as (process, told):
        port = told["grpc_port"]
        wait_until(lambda: "not_ready" in (tmp_path / "serve.log").read_text(), "the server to look for its model")
        assert is_refused(port)
        shutil.copytree(churn_store / "churn", store / "churn")
        wait_until(lambda: not is_refused(port), "gRPC to be there")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:  # the first call of all is answered
            assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == SERVING
            assert PredictionServiceStub(channel).HealthCheck(messages.HealthRequest()).model_loaded
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_server_that_is_told_to_end_before_it_has_a_model_ends_with_0(tmp_path):
    with serving(tmp_path / "nothing", tmp_path) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_grpc_address_that_is_taken_is_told_at_start_with_status_2(tmp_path):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(AssertionError, match="it has ended"), serving(tmp_path, tmp_path, grpc={"port": port}):
            pass
    said = (tmp_path / "serve.log").read_text()
    assert f"grpc: cannot listen on 127.0.0.1:{port}" in " ".join(said.split())
    assert "Traceback" not in said


def test_a_server_that_is_told_to_end_answers_what_it_has_read_and_ends_with_0(churn_store, tmp_path):
    with (
        serving(churn_store, tmp_path) as (process, told),
        grpc.insecure_channel(f"127.0.0.1:{told['grpc_port']}") as channel,
    ):
        stub = PredictionServiceStub(channel)
        wait_until(lambda: stub.HealthCheck(messages.HealthRequest(), wait_for_ready=True).model_loaded, "a model")
        sent = iter(
            lambda: messages.StreamedPredictRequest(features=[]), None
        )  # a client that sends for ever: each row is rejected
        answers = stub.PredictStream(sent)
        assert next(answers).rejected.reason == "bad_shape"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as failed:
            for _ in answers:
                pass
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert process.wait(30) == 0
