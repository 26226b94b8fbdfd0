"""One handler on every surface: the worker on the real broker, REST, gRPC, files, and what is sent to a cluster.

It rejects some customers, fails on others in each way there is, is slow with some, and both versions of a canary have
one; each surface has to give every customer the same answer of the same version, or the same reason.
"""

import json
import pickle
import shutil
import subprocess
import sys
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
import yaml
from made_pages import canary_page, put
from rig import SCHEMAS, WAIT_S, Lane, answers, events_of, write
from test_grpc_serving import serving
from test_odd_models import letters_by_offset
from test_same_answers import asked, ready
from worker_process import ROOT, clean_environment, running_worker, wait_until

from app.embed import arrow_function, load
from app.grpc_api import prediction_pb2 as messages
from app.grpc_api.prediction_pb2_grpc import PredictionServiceStub
from app.wiring.pipeline_steps import steps_of
from loadgen.wire import SINGLE_OBJECT

ROWS = 2_000
HANDLER = "tests.integration.churn_handler:Choosy"
STABLE, CANARY = "1", "2"


@dataclass(frozen=True)
class World:
    """What all surfaces have in common. expected: by key, see `answered`."""

    lane: Lane
    folder: Path
    events: list[tuple[int, bytes, bytes]]
    rows: list[dict[str, Any]]
    vectors: np.ndarray
    expected: dict[str, tuple[Any, ...]]
    http_port: int
    grpc_port: int

    @property
    def keys(self):
        return [row["customer_id"] for row in self.rows]

    @property
    def table(self):
        return pa.RecordBatch.from_pylist(self.rows)


def answered(version, prediction, probability):
    """An outcome; that of a row without an answer is its reason alone."""
    return version, int(prediction), float(probability)


def expectations(store, page, rows):
    """By the manifest alone, row by row; the troubles of the handler are put in by hand."""
    from tests.integration.churn_handler import TROUBLES, UNSURE

    table = pa.RecordBatch.from_pylist(rows)
    alone = {version: load(str(store), "churn", version).score(table).to_pylist() for version in (STABLE, CANARY)}
    expected = {}
    for at, (row, arm) in enumerate(zip(rows, page.choose([row["customer_id"].encode() for row in rows]), strict=True)):
        answer = alone[page.arms[arm].version][at]
        if row["age"] in TROUBLES:
            expected[row["customer_id"]] = TROUBLES[row["age"]][1:]
        elif abs(answer["probability"] - 0.5) < UNSURE:
            expected[row["customer_id"]] = ("out_of_range",)
        else:
            expected[row["customer_id"]] = answered(
                answer["model_version"], answer["prediction"], answer["probability"]
            )
    return expected


@pytest.fixture(scope="module")
def world(kafka, topics, _three_versions, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))  # where the handler is
        folder = tmp_path_factory.mktemp("handlers-same-answers")
        store = Path(shutil.copytree(_three_versions, folder / "store"))
        page = canary_page(STABLE, CANARY, 50, 2)
        put(store, page)
        features = json.loads((store / "churn" / STABLE / "manifest.json").read_text())["inputs"][0]["features"]
        events_topic, predictions, dead = (topics(f"churn.{kind}", 4) for kind in ("events", "predictions", "dead"))
        lane = Lane(kafka, "churn", (events_topic,), predictions, dead, store)
        events = events_of(lane.event_stream(), ROWS)
        schema = fastavro.schema.load_schema(SCHEMAS / "churn_event.avsc")
        data = (BytesIO(value[SINGLE_OBJECT.header_size :]) for _, _, value in events)
        rows = [fastavro.schemaless_reader(datum, schema, None) for datum in data]
        with serving(store, folder, options={"handler": HANDLER}) as (_, told):
            wait_until(lambda: ready(told["http_port"]), "a model")
            yield World(
                lane, folder, events, rows, vectors_of(rows, features), expectations(store, page, rows),
                told["http_port"], told["grpc_port"],
            )  # fmt: skip


def vectors_of(rows, features):
    """(n, width) in the order of the manifest, a category as its index, NaN for what is missing."""
    columns = []
    for feature in features:
        values = [row[feature["field"]] for row in rows]
        if feature["kind"] != "number":
            values = [feature["categories"].index(value) for value in values]
        columns.append(np.array(values, float))
    return np.column_stack(columns)


def over_kafka(world):
    lane = world.lane
    write(lane.kafka, lane.inputs[0], world.events)
    with running_worker(lane.settings(pipeline={"handler": HANDLER}), world.folder) as worker:
        worker.wait_for_records(ROWS)
        assert worker.stop() == 0
    found = {
        message.key().decode(): answered(answer["model_version"], answer["prediction"], answer["probability"])
        for message, answer in answers(lane)
    }
    at = {}
    for partition, key, _ in world.events:
        at[partition, sum(where[0] == partition for where in at)] = key.decode()
    letters = letters_by_offset(lane)
    assert not found.keys() & {at[where] for where in letters}
    return found | {at[where]: (letter["inference.reason"],) for where, letter in letters.items()}


def over_rest(world):
    instances = [
        {"features": {name: value for name, value in row.items() if name != "event_time"}, "key": row["customer_id"]}
        for row in world.rows
    ]
    found = asked(world.http_port, "/predict/batch", {"instances": instances})["predictions"]
    return {
        key: (page["error"]["reason"],)
        if "error" in page
        else answered(page["model_version"], page["prediction"], page["probabilities"][1])
        for key, page in zip(world.keys, found, strict=True)
    }


def over_grpc(world):
    requests = (
        messages.StreamedPredictRequest(features=row, key=key)
        for row, key in zip(world.vectors.tolist(), world.keys, strict=True)
    )
    with grpc.insecure_channel(f"127.0.0.1:{world.grpc_port}") as channel:
        found = list(PredictionServiceStub(channel).PredictStream(requests, timeout=WAIT_S))
    return {
        key: (page.rejected.reason,)
        if page.HasField("rejected")
        else answered(page.model_version, page.prediction, page.probabilities[1])
        for key, page in zip(world.keys, found, strict=True)
    }


def config_of(world):
    config = world.folder / "score.yaml"
    config.write_text(yaml.safe_dump(world.lane.settings(pipeline={"handler": HANDLER})))
    return config


def over_files(world):
    rows, out = world.folder / "rows.parquet", world.folder / "answers"
    pa.parquet.write_table(pa.Table.from_batches([world.table]), rows)
    command = [sys.executable, "-m", "app", "score", rows, out, "--model", "churn", "--config", config_of(world)]
    options = ["--key", "customer_id", "--chunk-rows", 700]
    subprocess.run([*map(str, command + options)], check=True, cwd=ROOT, env=clean_environment(), timeout=WAIT_S)
    return of_columns(pa.parquet.read_table(out).to_pylist()) | {
        row["customer_id"]: (row["rejected_reason"],) for row in pa.parquet.read_table(out / "_rejected").to_pylist()
    }


def over_an_arrow_function(world):
    steps = steps_of(config_of(world), "churn")
    made = arrow_function(str(world.lane.store), "churn", key="customer_id", keep=("customer_id",), steps=steps)
    sent = pickle.loads(pickle.dumps(made))
    return of_columns(
        pa.Table.from_batches(sent.over(world.table[at : at + 512] for at in range(0, ROWS, 512))).to_pylist()
    )


def of_columns(rows):
    return {
        row["customer_id"]: (row["rejected_reason"],)
        if row.get("rejected_reason")
        else answered(row["model_version"], row["prediction"], row["probability"])
        for row in rows
    }


SURFACES = {
    "kafka": over_kafka,
    "rest": over_rest,
    "grpc": over_grpc,
    "score": over_files,
    "arrow_function": over_an_arrow_function,
}


@pytest.mark.parametrize("surface", SURFACES)
def test_each_surface_gives_every_customer_the_answer_or_the_reason_of_the_same_handler(surface, world):
    found = SURFACES[surface](world)
    assert found.keys() == world.expected.keys()
    differ = {key: (found[key], there) for key, there in world.expected.items() if not same(found[key], there)}
    assert differ == {}


def same(found, expected):
    """Probabilities to the tolerance of the shipped manifests: batches are of other sizes."""
    return len(found) == len(expected) and all(
        one == pytest.approx(other, abs=1e-5) for one, other in zip(found, expected, strict=True)
    )


def test_the_handler_has_all_its_troubles_here(world):
    reasons = {what[0] for what in world.expected.values() if len(what) == 1}
    assert reasons == {"expired", "model_error", "bad_shape", "not_finite", "out_of_range"}
    assert {what[0] for what in world.expected.values() if len(what) > 1} == {STABLE, CANARY}
