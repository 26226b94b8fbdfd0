"""The core as a library: a version from a store, without Kafka, a server or a settings file."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from app.embed import arrow_function, load
from app.errors import BadSettings, ModelInvalid, ModelMissing
from app.models.model_store import open_store
from app.models.rollout_changes import Order, promote, start_canary
from app.wiring import training

EVENT = {
    "customer_id": "cust-1",
    "age": 42,
    "income": 52_000.0,
    "tenure_months": 12,
    "monthly_charges": 70.5,
    "total_charges": None,
    "plan": "basic",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Versions 1 and 2 of churn, 1 stable."""
    place = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        training.train("churn", store=str(place), estimator=None, rows=2_000, seed=seed, progress=lambda _: None)
    return str(place)


def test_a_row_is_answered_with_the_version_that_is_in_force(store):
    (answer,) = load(store, "churn").predict([EVENT])
    assert (answer["model_version"], answer["answered_by"], answer["rollout_revision"]) == ("1", "stable", 1)
    assert 0 < answer["probability"] < 1
    assert answer["rejected_reason"] is None


def test_a_version_can_be_named(store):
    (answer,) = load(store, "churn", "2").predict([EVENT])
    assert (answer["model_version"], answer["answered_by"]) == ("2", "requested")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("age", 17, "out_of_range"),
        ("age", "old", "not_finite"),
        ("age", 10**400, "out_of_range"),
        ("income", float("nan"), "not_finite"),
        ("income", None, "missing_value"),
        ("plan", "gold", "unknown_category"),
        ("plan", 3, "unknown_category"),
    ],
)
def test_a_row_that_cannot_be_predicted_says_why_and_its_neighbours_are_answered(store, field, value, reason):
    good, bad, last = load(store, "churn").predict([EVENT, EVENT | {field: value}, EVENT])
    assert bad["rejected_reason"] in {reason, "not_finite"}
    assert bad["probability"] is None
    assert good["probability"] == last["probability"] is not None


def test_no_rows_are_no_answers_and_unknown_fields_are_left_out(store):
    churn = load(store, "churn")
    assert churn.predict([]) == []
    assert churn.predict([EVENT | {"colour": "red"}])[0]["prediction"] in {0, 1}


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}])
def test_values_that_no_column_can_hold_are_refused_by_field(store, value):
    with pytest.raises(BadSettings, match="income"):
        load(store, "churn").predict([EVENT, EVENT | {"income": value}])


def test_what_is_not_there_is_named(store):
    with pytest.raises(ModelMissing, match="'dogs'"):
        load(store, "dogs")
    with pytest.raises(ModelMissing, match="'9'"):
        load(store, "churn", "9")
    with pytest.raises(ModelMissing, match="no model store"):
        load(f"{store}/nowhere", "churn")


def test_a_function_answers_by_the_page_that_it_was_made_with(store, tmp_path):
    shutil.copytree(store, tmp_path, dirs_exist_ok=True)
    made = arrow_function(str(tmp_path), "churn")
    order = Order(datetime(2026, 1, 2, tzinfo=UTC), "me", "test")
    open_store(str(tmp_path), tmp_path).change_rollout("churn", lambda page: promote(page, "2", order), order)
    rows = pa.RecordBatch.from_pylist([EVENT])
    assert made(rows)["model_version"].to_pylist() == ["1"]
    assert arrow_function(str(tmp_path), "churn")(rows)["model_version"].to_pylist() == ["2"]


def test_a_key_gets_the_version_that_a_canary_gives_it(store, tmp_path):
    shutil.copytree(store, tmp_path, dirs_exist_ok=True)
    order = Order(datetime(2026, 1, 2, tzinfo=UTC), "me", "test")
    models = open_store(str(tmp_path), tmp_path)
    _, page = models.change_rollout("churn", lambda page: start_canary(page, "2", [(50, 60)], order), order)
    events = [EVENT | {"customer_id": f"cust-{number}"} for number in range(40)]
    answers = load(str(tmp_path), "churn").predict(events, key="customer_id")
    chosen = page.choose([event["customer_id"].encode() for event in events])
    assert [answer["answered_by"] for answer in answers] == [page.arms[arm].name for arm in chosen]
    assert {answer["model_version"] for answer in answers} == {"1", "2"}
    assert {answer["model_version"] for answer in load(str(tmp_path), "churn").predict(events)} == {"1"}


def test_a_version_that_is_not_what_it_was_is_refused(store):
    made = arrow_function(store, "churn", "1")
    changed = type(made.load)(
        **{name: getattr(made.load, name) for name in made.load.__slots__} | {"digests": (("1", "0" * 16),)}
    )
    with pytest.raises(ModelInvalid, match="it was 0000"):
        changed()


def test_neither_kafka_nor_a_server_is_imported(store):
    script = (
        "import sys; from app.embed import load; import json;"
        f"load({store!r}, 'churn').predict([{EVENT!r}]);"
        "print([name for name in ('confluent_kafka', 'fastapi', 'starlette', 'uvicorn', 'grpc', 'sklearn', 'redis')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
