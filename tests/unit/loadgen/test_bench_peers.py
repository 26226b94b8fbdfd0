"""The job of the peers is the worker's job: the same events, the same model, the same probability."""

import io
import json

import fastavro
import numpy as np
import pytest

from app.wiring import training
from loadgen.bench.peers.job import HEADER_SIZE, PREDICTION, Job, PeerSettings
from loadgen.features import model_inputs
from loadgen.kafka_client import KafkaOptions
from loadgen.pacing import Pace
from loadgen.produce_plan import ProducePlan
from loadgen.producing import Extent
from loadgen.schema_source import SchemaOptions, SchemaSource

SCHEMAS = training.SHIPPED_SCHEMAS
EVENTS = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    training.train("churn", store=str(folder), estimator=None, rows=1_000, seed=0, progress=lambda _: None)
    return folder / "churn" / "1"


@pytest.fixture
def job(store):
    return Job(PeerSettings("nowhere:1", "in", "out", "group", store, SCHEMAS, 500, 0.01, 5.0, 0.1))


def sent():
    """Framed events, and what is in them."""
    options = SchemaOptions(SCHEMAS)
    plan = ProducePlan("churn", "events", KafkaOptions("nowhere:1"), options, Pace(), Extent(EVENTS))
    chunk = plan.event_stream().chunk(0, np.full(EVENTS, 1_760_000_000_000, np.int64))
    schema = SchemaSource(options).directory.current("churn_event").parsed
    read = [fastavro.schemaless_reader(io.BytesIO(value[HEADER_SIZE:]), schema) for value in chunk.values]
    return chunk.values, read


def test_features_are_those_of_the_independent_checker(job, store):
    _, events = sent()
    manifest = json.loads((store / "manifest.json").read_text())

    assert any(event["total_charges"] is None for event in events)
    assert job.model.features(events).tolist() == model_inputs(manifest, events)["X"].tolist()


def test_every_event_is_answered_under_its_key_with_the_models_probability(job):
    values, events = sent()

    answers = job.answer(values)

    schema = fastavro.parse_schema(PREDICTION)
    predictions = [fastavro.schemaless_reader(io.BytesIO(value[HEADER_SIZE:]), schema) for _, value in answers]
    assert [key.decode() for key, _ in answers] == [event["customer_id"] for event in events]
    assert [prediction["customer_id"] for prediction in predictions] == [event["customer_id"] for event in events]
    expected = job.model.probabilities(job.model.features(events)).tolist()
    assert [prediction["probability"] for prediction in predictions] == expected
    assert all(prediction["will_churn"] == (prediction["probability"] >= 0.5) for prediction in predictions)


def test_an_event_of_another_schema_ends_the_peer(job):
    with pytest.raises(ValueError, match="another schema"):
        job.answer([b"\xc3\x01" + bytes(50)])
