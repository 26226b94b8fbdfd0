"""A scoring job that is killed with SIGKILL again and again, or that two processes do: no row is lost or twice."""

import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from worker_process import clean_environment, wait_until

from app.train.churn_data import ChurnFormula
from app.wiring import training

ROWS, CHUNK = 30_000, 300  # so many chunks that the first is long over before the job is
BAD = 500  # every so many rows is one that has no answer


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder for each format, with the same customers in two files."""
    place = tmp_path_factory.mktemp("rows")
    customers = ChurnFormula.load(training.SHIPPED_SCHEMAS).customers(5, 0, ROWS).table
    ages = customers["age"].to_numpy().copy()
    ages[::BAD] = 7
    customers = customers.set_column(1, "age", pa.array(ages)).set_column(
        6, "plan", customers["plan"].dictionary_decode()
    )
    for number, half in enumerate((customers.slice(0, ROWS // 2), customers.slice(ROWS // 2))):
        table = pa.Table.from_batches([half])
        for kind in ("parquet", "csv"):
            (place / kind).mkdir(exist_ok=True)
        pa.parquet.write_table(table, place / f"parquet/{number}.parquet", row_group_size=3_500)
        pa.csv.write_csv(table, place / f"csv/{number}.csv")
    return place


def start(source, target, store):
    command = [sys.executable, "-m", "app", "score", source, target, "--model", "churn", "--store", store]
    command += ["--key", "customer_id", "--format", "parquet", "--chunk-rows", str(CHUNK)]
    return subprocess.Popen([*map(str, command)], env=clean_environment())


def parts(folder):
    return len(list(folder.glob("part-*")))


def assert_each_row_is_there_once(out):
    answered = pa.parquet.read_table(out)["customer_id"].to_pylist()
    rejected = pa.parquet.read_table(out / "_rejected")["customer_id"].to_pylist()
    assert rejected == [f"cust-{number:08d}" for number in range(0, ROWS, BAD)]
    assert answered == [f"cust-{number:08d}" for number in range(ROWS) if number % BAD]
    assert not (out / "_tmp").exists()


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_killed_job_goes_on_and_every_row_is_there_once(kind, rows, models, tmp_path):
    out, ended = tmp_path / "out", []
    while 0 not in ended:
        due = parts(out) + 3 if len(ended) < 2 else ROWS
        with start(rows / kind, out, models) as process:
            wait_until(lambda: parts(out) >= due or process.poll() is not None, "more parts")  # noqa: B023
            process.kill()
        ended.append(process.returncode)
    assert ended[0] == -signal.SIGKILL
    assert set(ended) == {-signal.SIGKILL, 0}
    assert_each_row_is_there_once(out)


def test_two_processes_at_one_job_end_well_and_every_row_is_there_once(rows, models, tmp_path):
    out = tmp_path / "out"
    with start(rows / "parquet", out, models) as first, start(rows / "parquet", out, models) as second:
        pass
    assert (first.returncode, second.returncode) == (0, 0)
    assert_each_row_is_there_once(out)
