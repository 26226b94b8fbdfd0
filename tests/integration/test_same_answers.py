"""The same 10,000 customers asked about on every surface: one answer, by the version that their key is given to.

Half of the keys are a canary's. The stream is a worker on the real broker, requests go to a server, files to
`inference-worker score`: processes of their own, all told nothing but where the store is. Each surface has its own
batches, from one row to all. Ray Data and Spark are not here: they need an environment of their own, in which
`tests/clusters/ray_and_spark.py` holds them against `score`.
"""

import json
import pickle
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from made_pages import canary_page, put
from rig import SCHEMAS, WAIT_S, Lane, answers, events_of, write
from test_grpc_serving import serving
from worker_process import ROOT, clean_environment, running_worker, wait_until

from app.embed import arrow_function, load
from app.grpc_api import grpc_predict_v2_pb2 as v2
from app.grpc_api import prediction_pb2 as messages
from app.grpc_api.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from app.grpc_api.prediction_pb2_grpc import PredictionServiceStub
from loadgen.wire import SINGLE_OBJECT

ROWS = 10_000
STABLE, CANARY, REVISION = "1", "2", 2
ROWS_A_REQUEST, ROWS_A_CHUNK, ROWS_A_RECORD_BATCH = 1_000, 3_000, 1_024
SOURCE = ("model_version", "answered_by", "rollout_revision")


@dataclass(frozen=True)
class Customers:
    """Row i of everything is the same one. events: as they went to Kafka, and rows: as they came out of that.

    vectors: (n, width) float64 in the order of the manifest, NaN for what is missing.
    """

    events: list[tuple[int, bytes, bytes]]
    keys: list[str]
    rows: list[dict[str, Any]]
    table: pa.RecordBatch
    vectors: np.ndarray


@dataclass(frozen=True)
class Answered:
    """(n,) each, in the order of the customers. said: who answered each row, as far as the surface says so."""

    predictions: np.ndarray
    probabilities: np.ndarray
    said: dict[str, list[Any]]


@dataclass(frozen=True)
class World:
    """What all surfaces have in common, and what is expected of them; ports are the server's."""

    lane: Lane
    folder: Path
    customers: Customers
    expected: Answered
    tolerance: float
    threshold: float
    http_port: int
    grpc_port: int


def customers_of(lane, features):
    events = events_of(lane.event_stream(), ROWS)
    schema = fastavro.schema.load_schema(SCHEMAS / "churn_event.avsc")
    data = (BytesIO(value[SINGLE_OBJECT.header_size :]) for _, _, value in events)
    rows = [fastavro.schemaless_reader(datum, schema, None) for datum in data]
    names = [feature["field"] for feature in features]
    columns = []
    for feature in features:
        values = [row[feature["field"]] for row in rows]
        if feature["kind"] != "number":
            values = [feature["categories"].index(value) for value in values]
        columns.append(np.array(values, float))  # None becomes NaN
    return Customers(
        events,
        keys=[row["customer_id"] for row in rows],
        rows=[{name: row[name] for name in names} for row in rows],
        table=pa.RecordBatch.from_pylist(rows),
        vectors=np.column_stack(columns),
    )


def by_version(store, customers):
    """What each version alone says about every row: version → probabilities."""
    return {
        version: load(str(store), "churn", version).score(customers.table)["probability"].to_numpy()
        for version in (STABLE, CANARY)
    }


@pytest.fixture(scope="module")
def world(kafka, topics, _three_versions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("same-answers")
    store = Path(shutil.copytree(_three_versions, folder / "store"))
    page = canary_page(STABLE, CANARY, 50, REVISION)
    put(store, page)
    manifest = json.loads((store / "churn" / STABLE / "manifest.json").read_text())
    events, predictions, dead_letters = (topics(f"churn.{kind}", 4) for kind in ("events", "predictions", "dead"))
    lane = Lane(kafka, "churn", (events,), predictions, dead_letters, store)
    customers = customers_of(lane, manifest["inputs"][0]["features"])

    arms = [page.arms[arm] for arm in page.choose([key.encode() for key in customers.keys]).tolist()]
    alone, threshold = by_version(store, customers), manifest["outputs"][0]["threshold"]
    probabilities = np.array([alone[arm.version][row] for row, arm in enumerate(arms)])
    said = ([arm.version for arm in arms], [arm.name for arm in arms], [REVISION] * ROWS)
    expected = Answered((probabilities >= threshold).astype(int), probabilities, dict(zip(SOURCE, said, strict=True)))
    with serving(store, folder) as (_, told):
        ports = told["http_port"], told["grpc_port"]
        wait_until(lambda: ready(ports[0]), "a model")
        yield World(lane, folder, customers, expected, manifest["golden"]["atol"], threshold, *ports)


def ready(port):
    try:
        return bool(asked(port, "/v2/models/churn/ready")["ready"])
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return False


def asked(port, path, page=None):
    """The page that a path answers with; POST if there is something to say."""
    body = None if page is None else json.dumps(page).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=WAIT_S) as answer:
        return json.loads(answer.read())


def in_requests(rows):
    return [slice(start, start + rows) for start in range(0, ROWS, rows)]


def of_columns(rows, probability):
    """Answers of rows that say who answered; probability: of churn, of a row."""
    said = {name: [row[name] for row in rows] for name in SOURCE}
    return Answered(np.array([row["prediction"] for row in rows]), np.array([*map(probability, rows)]), said)


# ------------------------------------------------------------------------------------------- the surfaces


def over_kafka(world):
    write(world.lane.kafka, world.lane.inputs[0], world.customers.events)
    with running_worker(world.lane.settings(), world.folder) as worker:
        worker.wait_for_records(ROWS)
        assert worker.stop() == 0
    found = {message.key().decode(): answer for message, answer in answers(world.lane)}
    assert world.lane.verified(sample=500).inputs == ROWS  # and loadgen's own arithmetic gives the same
    return of_columns([found[key] for key in world.customers.keys], lambda row: row["probability"])


def over_rest(world):
    instances = [
        {"features": row, "key": key} for row, key in zip(world.customers.rows, world.customers.keys, strict=True)
    ]
    found = []
    for request in in_requests(ROWS_A_REQUEST):
        found += asked(world.http_port, "/predict/batch", {"instances": instances[request]})["predictions"]
    return of_columns(found, lambda row: row["probabilities"][1])


def over_v1(world):
    customers, found = world.customers, []
    for request in in_requests(2 * ROWS_A_REQUEST):
        page = {"instances": customers.rows[request], "keys": customers.keys[request]}
        found += asked(world.http_port, "/v1/models/churn:predict", page)["predictions"]
    predictions = np.array([row["prediction"] for row in found])
    return Answered(predictions, np.array([row["probabilities"][1] for row in found]), {})


def over_v2(world):
    numbers = [None if np.isnan(number) else number for number in world.customers.vectors.ravel().tolist()]
    features = {"name": "features", "datatype": "FP64", "shape": world.customers.vectors.shape, "data": numbers}
    keys = {"name": "key", "datatype": "BYTES", "shape": [ROWS], "data": world.customers.keys}
    page = asked(world.http_port, "/v2/models/churn/infer", {"inputs": [features, keys]})
    assert (page["model_version"], page["parameters"]["answered_by"]) == (f"{STABLE},{CANARY}", "stable,canary")
    tensors = {tensor["name"]: np.reshape(tensor["data"], tensor["shape"]) for tensor in page["outputs"]}
    return Answered(tensors["prediction"], tensors["probabilities"][:, 1], {})


def over_v2_of_32_bits(world):
    """Numbers as a client has them that knows FP32 only: text with seven digits is what it means."""
    vectors = world.customers.vectors.astype(np.float32)
    numbers = [None if np.isnan(number) else float(str(number)) for number in vectors.ravel()]
    features = {"name": "features", "datatype": "FP32", "shape": vectors.shape, "data": numbers}
    keys = {"name": "key", "datatype": "BYTES", "shape": [ROWS], "data": world.customers.keys}
    page = asked(world.http_port, "/v2/models/churn/infer", {"inputs": [features, keys]})
    tensors = {tensor["name"]: np.reshape(tensor["data"], tensor["shape"]) for tensor in page["outputs"]}
    return Answered(tensors["prediction"], tensors["probabilities"][:, 1], {})


def over_v1_by_version(world):
    """Vectors for a version that the path names: each customer's is asked the one that the rollout gave them."""
    predictions, probabilities = np.zeros(ROWS, int), np.zeros(ROWS)
    for version in (STABLE, CANARY):
        rows = [row for row, name in enumerate(world.expected.said["model_version"]) if name == version]
        instances = [
            [None if np.isnan(number) else number for number in vector]
            for vector in world.customers.vectors[rows].tolist()
        ]
        page = asked(world.http_port, f"/v1/models/churn/versions/{version}:predict", {"instances": instances})
        predictions[rows] = [row["prediction"] for row in page["predictions"]]
        probabilities[rows] = [row["probabilities"][1] for row in page["predictions"]]
    return Answered(predictions, probabilities, {})


def over_batch_predict(world):
    """A call has one key: all customers of an arm are asked about with the key of one of them."""
    customers = world.customers
    predictions, probabilities = np.zeros(ROWS, int), np.zeros(ROWS)
    said = {name: [None] * ROWS for name in SOURCE}
    with grpc.insecure_channel(f"127.0.0.1:{world.grpc_port}") as channel:
        stub = PredictionServiceStub(channel)
        for arm in ("stable", "canary"):
            rows = [row for row, name in enumerate(world.expected.said["answered_by"]) if name == arm]
            instances = [messages.PredictRequest(features=row) for row in customers.vectors[rows].tolist()]
            metadata = [("inference-key", customers.keys[rows[0]])]
            answer, call = stub.BatchPredict.with_call(
                messages.BatchPredictRequest(instances=instances), metadata=metadata, timeout=WAIT_S
            )
            predictions[rows] = answer.predictions
            probabilities[rows] = [each.values[1] for each in answer.probabilities]
            trailing = dict(call.trailing_metadata())
            who = [trailing["inference-model-version"], trailing["inference-answered-by"]]
            for name, value in zip(SOURCE, (*who, int(trailing["inference-rollout-revision"])), strict=True):
                for row in rows:
                    said[name][row] = value
    return Answered(predictions, probabilities, said)


def over_predict_stream(world):
    requests = (
        messages.StreamedPredictRequest(features=row, key=key)
        for row, key in zip(world.customers.vectors.tolist(), world.customers.keys, strict=True)
    )
    with grpc.insecure_channel(f"127.0.0.1:{world.grpc_port}") as channel:
        found = list(PredictionServiceStub(channel).PredictStream(requests, timeout=WAIT_S))
    versions = [answer.model_version for answer in found]
    predictions = np.array([answer.prediction for answer in found])
    return Answered(predictions, np.array([row.probabilities[1] for row in found]), {"model_version": versions})


def over_model_infer(world):
    keys = [key.encode() for key in world.customers.keys]
    framed = b"".join(len(key).to_bytes(4, "little") + key for key in keys)
    tensor = v2.ModelInferRequest.InferInputTensor
    request = v2.ModelInferRequest(
        model_name="churn",
        inputs=[
            tensor(name="features", datatype="FP64", shape=world.customers.vectors.shape),
            tensor(name="key", datatype="BYTES", shape=[ROWS]),
        ],
        raw_input_contents=[world.customers.vectors.tobytes(), framed],
    )
    with grpc.insecure_channel(f"127.0.0.1:{world.grpc_port}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=WAIT_S)
    assert answer.model_version == f"{STABLE},{CANARY}"
    raw = dict(zip((output.name for output in answer.outputs), answer.raw_output_contents, strict=True))
    probabilities = np.frombuffer(raw["probabilities"], np.float32).reshape(ROWS, 2)
    return Answered(np.frombuffer(raw["prediction"], np.int64), probabilities[:, 1], {})


def over_files(world):
    """The command, over a file in the order of the customers."""
    rows, out = world.folder / "rows.parquet", world.folder / "answers"
    pa.parquet.write_table(pa.Table.from_batches([world.customers.table]), rows)
    command = [sys.executable, "-m", "app", "score", rows, out, "--model", "churn", "--store", world.lane.store]
    options = ["--key", "customer_id", "--chunk-rows", ROWS_A_CHUNK]
    subprocess.run([*map(str, command + options)], check=True, cwd=ROOT, env=clean_environment(), timeout=WAIT_S)
    found = {row["customer_id"]: row for row in pa.parquet.read_table(out).to_pylist()}
    return of_columns([found[key] for key in world.customers.keys], lambda row: row["probability"])


def over_an_arrow_function(world):
    """As a cluster has it: sent as bytes, and given one record batch after another."""
    sent = pickle.loads(pickle.dumps(arrow_function(str(world.lane.store), "churn", key="customer_id")))
    rows = pa.Table.from_batches(sent.over(world.customers.table[part] for part in in_requests(ROWS_A_RECORD_BATCH)))
    return of_columns(rows.to_pylist(), lambda row: row["probability"])


SURFACES = {
    "kafka": over_kafka,
    "rest": over_rest,
    "v1": over_v1,
    "v2": over_v2,
    "v2 of 32 bits": over_v2_of_32_bits,
    "v1 by version": over_v1_by_version,
    "grpc BatchPredict": over_batch_predict,
    "grpc PredictStream": over_predict_stream,
    "grpc ModelInfer": over_model_infer,
    "score": over_files,
    "arrow_function": over_an_arrow_function,
}


# ------------------------------------------------------------------------------------------------ the tests


@pytest.mark.parametrize("surface", SURFACES)
def test_each_surface_gives_every_customer_the_same_answer_of_the_same_version(surface, world):
    found, expected = SURFACES[surface](world), world.expected
    for name, values in found.said.items():
        assert values == expected.said[name], f"{name} differs"
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=world.tolerance)
    # between two classes, within the tolerance, either may be said
    clear = np.abs(expected.probabilities - world.threshold) > world.tolerance
    np.testing.assert_array_equal(found.predictions[clear], expected.predictions[clear])
    assert clear.sum() >= ROWS - 10


def test_a_customer_answered_by_the_other_version_would_show_in_its_number(world):
    """So that surfaces which do not say who answered a row are held to the right version as well."""
    alone = by_version(world.lane.store, world.customers)
    assert np.mean(np.abs(alone[STABLE] - alone[CANARY]) > 10 * world.tolerance) > 0.95
    assert len(set(world.customers.keys)) == ROWS
    assert 0.48 < world.expected.said["answered_by"].count("canary") / ROWS < 0.52
