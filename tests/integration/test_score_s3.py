"""A scoring job from bucket to bucket, on a real S3 server."""

import json
import logging
import subprocess
import sys

import obstore
import pyarrow as pa
import pyarrow.parquet
import pytest
import structlog
from typer.testing import CliRunner
from worker_process import clean_environment

from app.__main__ import cli
from app.errors import BadSettings, StorageUnavailable
from app.models.store_access import StoreAccess, open_bucket
from app.train.churn_data import ChurnFormula
from app.wiring import training
from deploy.local.object_store import S3Server

# The server is built on first use, which needs the network and two minutes of a core.
pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

ROWS = 5_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("data")
        yield server


@pytest.fixture(autouse=True)
def _logs_as_they_were():
    handlers = logging.getLogger().handlers
    yield
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()


@pytest.fixture
def bucket(server, monkeypatch):
    """The bucket, which `score` finds by the environment."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_bucket("s3://data", "s3", StoreAccess())


@pytest.fixture(scope="module")
def customers():
    return ChurnFormula.load(training.SHIPPED_SCHEMAS).customers(9, 0, ROWS).table


def put(bucket, path, table):
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.Table.from_batches([table]), sink, row_group_size=700)
    obstore.put(bucket, path, sink.getvalue().to_pybytes())


def order(models, source, target, chunk_rows=1_000):
    """The words of the command."""
    command = ["score", source, target, "--model", "churn", "--store", str(models), "--key", "customer_id", "--json"]
    return [*command, "--chunk-rows", str(chunk_rows)]


def score(models, source, target):
    done = CliRunner().invoke(cli, order(models, source, target), catch_exceptions=False)
    return json.loads(done.stdout)


def answers(bucket, prefix):
    found = sorted(item["path"] for item in obstore.list(bucket, prefix).collect())
    parts = [path for path in found if "/part-" in path and "_rejected" not in path]
    return pa.concat_tables(
        pa.parquet.read_table(pa.BufferReader(bytes(obstore.get(bucket, path).bytes()))) for path in parts
    )


def test_a_job_from_bucket_to_bucket_answers_as_one_on_this_machine(bucket, customers, models, tmp_path):
    put(bucket, "day/1/a.parquet", customers.slice(0, 3_000))
    put(bucket, "day/2/b.parquet", customers.slice(3_000))
    pa.parquet.write_table(pa.Table.from_batches([customers]), tmp_path / "rows.parquet")
    here = score(models, str(tmp_path / "rows.parquet"), str(tmp_path / "out"))
    report = score(models, "s3://data/day", "s3://data/answers/one")
    assert report["answered"] == here["answered"] == ROWS
    there = answers(bucket, "answers/one").drop_columns(["predicted_at"])
    assert there == pa.parquet.read_table(tmp_path / "out").drop_columns(["predicted_at"])


def test_a_job_that_lost_its_end_goes_on_with_what_is_missing(bucket, customers, models):
    put(bucket, "again/a.parquet", customers)
    score(models, "s3://data/again/a.parquet", "s3://data/answers/two")
    kept = obstore.head(bucket, "answers/two/part-00000-00000.parquet")["e_tag"]
    for lost in ("_SUCCESS", "_done/00000-00003.json", "_done/00000-00004.json", "part-00000-00004.parquet"):
        obstore.delete(bucket, f"answers/two/{lost}")
    assert score(models, "s3://data/again/a.parquet", "s3://data/answers/two")["answered"] == ROWS
    assert obstore.head(bucket, "answers/two/part-00000-00000.parquet")["e_tag"] == kept
    ids = answers(bucket, "answers/two")["customer_id"].to_pylist()
    assert ids == [f"cust-{number:08d}" for number in range(ROWS)]


def test_two_processes_at_one_job_end_well_and_every_row_is_there_once(bucket, server, customers, models):
    put(bucket, "shared/a.parquet", customers)
    words = order(models, "s3://data/shared", "s3://data/answers/four", chunk_rows=100)
    command, environment = [sys.executable, "-m", "app", *words], clean_environment(**server.environment)
    jobs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    printed = [job.communicate()[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert [json.loads(said)["answered"] for said in printed] == [ROWS, ROWS]
    ids = answers(bucket, "answers/four")["customer_id"].to_pylist()
    assert ids == [f"cust-{number:08d}" for number in range(ROWS)]


def test_what_is_not_there_or_does_not_answer_is_said(bucket, customers, models, monkeypatch):
    for source, said in (("s3://data/nothing", "there are no"), ("s3://nowhere/rows", "there is no such bucket")):
        with pytest.raises(BadSettings, match=said):
            score(models, source, "s3://data/answers/three")
    put(bucket, "day/a.parquet", customers)
    with pytest.raises(BadSettings, match="is within"):
        score(models, "s3://data/day", "s3://data/day/answers")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageUnavailable):
        score(models, "s3://data/day", "s3://data/answers/three")
