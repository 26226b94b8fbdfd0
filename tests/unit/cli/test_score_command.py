"""`inference-worker score` as it is typed: files, exit status and what is printed included."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.errors import BadSettings, InputDamaged, ModelMissing, SchemaIncompatible
from app.models.model_store import open_store
from app.models.rollout_changes import Order, promote
from app.scoring.local_folder import LocalFolder
from app.train.churn_data import ChurnFormula
from app.wiring import training

pytestmark = pytest.mark.usefixtures("logs_as_they_were")

ROWS = 1_000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Versions 1 and 2 of churn, 1 stable."""
    place = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        training.train("churn", store=str(place), estimator=None, rows=2_000, seed=seed, progress=lambda _: None)
    return place


@pytest.fixture(scope="module")
def customers():
    table = ChurnFormula.load(training.SHIPPED_SCHEMAS).customers(3, 0, ROWS).table
    return pa.Table.from_batches([table.set_column(6, "plan", table["plan"].dictionary_decode())])


@pytest.fixture
def place(tmp_path, customers, monkeypatch):
    pa.parquet.write_table(customers, tmp_path / "rows.parquet", row_group_size=300)
    pa.csv.write_csv(customers, tmp_path / "rows.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(store, source, target, *more):
    """What it prints as JSON. Raises what the command raises."""
    command = ["score", source, target, "--model", "churn", "--store", str(store), "--json", *more]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def answers(folder):
    return pa.parquet.read_table(folder).drop_columns(["predicted_at"])


def test_a_file_becomes_a_data_set_that_any_reader_reads(place, store):
    report = score(store, "rows.parquet", "out", "--key", "customer_id", "--chunk-rows", "400")
    assert (report["answered"], report["rejected"], report["versions"]) == (ROWS, 0, ["1"])
    found = pa.parquet.read_table(place / "out")
    assert found.column_names == [
        *("customer_id", "prediction", "will_churn", "probability", "confidence"),
        *("model_version", "answered_by", "rollout_revision", "predicted_at"),
    ]
    assert found["customer_id"].to_pylist() == [f"cust-{number:08d}" for number in range(ROWS)]
    assert len(list((place / "out").glob("part-*.parquet"))) == 3


def test_who_finds_that_another_has_just_begun_goes_by_its_plan_and_leaves_nothing_aside(place, store, monkeypatch):
    create = LocalFolder.create

    def second(self, name, content):
        if name == "_plan.json":
            create(LocalFolder(place / "out"), name, content)
        return create(self, name, content)

    monkeypatch.setattr(LocalFolder, "create", second)
    assert score(store, "rows.parquet", "out")["answered"] == ROWS
    assert not (place / "out/_tmp").exists()


def test_csv_is_answered_as_parquet_is(place, store):
    score(store, "rows.parquet", "a", "--key", "customer_id")
    report = score(store, "rows.csv", "b", "--key", "customer_id", "--format", "parquet", "--chunk-rows", "333")
    assert report["answered"] == ROWS
    wanted = answers(place / "a")
    found = answers(place / "b").cast(wanted.schema)
    numbers = ["probability", "confidence"]
    assert found.drop_columns(numbers) == wanted.drop_columns(numbers)
    # the rows of a chunk are asked about together, and the chunks are others
    atol = open_store(str(store), place).manifest("churn", "1").golden.atol
    for name in numbers:
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=atol)


def test_csv_becomes_csv_if_nothing_else_is_said(place, store):
    score(store, "rows.csv", "out", "--key", "customer_id")
    assert pa.csv.read_csv(place / "out/part-00000-00000.csv").num_rows == ROWS


def test_a_folder_of_files_is_one_job_and_what_is_hidden_is_left_out(place, store, customers):
    days = place / "days"
    for name in ("day=1/a.parquet", "day=2/b.parquet", "_tmp/c.parquet", ".hidden.parquet", "day=2/readme.txt"):
        (days / name).parent.mkdir(parents=True, exist_ok=True)
        pa.parquet.write_table(customers, days / name)
    report = score(store, "days", "out")
    assert (report["files"], report["answered"]) == (2, 2 * ROWS)


def test_given_again_it_does_nothing_and_given_otherwise_it_is_refused(place, store):
    first = score(store, "rows.parquet", "out")
    part = place / "out/part-00000-00000.parquet"
    before = part.stat().st_mtime_ns
    assert score(store, "rows.parquet", "out") == first
    assert part.stat().st_mtime_ns == before
    with pytest.raises(BadSettings, match="version none, not '2'"):
        score(store, "rows.parquet", "out", "--version", "2")
    with pytest.raises(BadSettings, match=r"rows\.parquet is gone"):
        score(store, "rows.csv", "out", "--format", "parquet")


def test_a_job_goes_on_with_the_rollout_that_it_began_with(place, store):
    mine = shutil.copytree(store, place / "mine")
    score(mine, "rows.parquet", "out", "--chunk-rows", "400")
    for lost in ("part-00000-00001.parquet", "_done/00000-00001.json", "_done/00000-00002.json", "_SUCCESS"):
        (place / "out" / lost).unlink()
    order = Order(open_store(str(mine), place).rollout("churn").history[0].at, "me", "test")
    open_store(str(mine), place).change_rollout("churn", lambda page: promote(page, "2", order), order)
    assert score(mine, "rows.parquet", "out", "--chunk-rows", "400")["answered"] == ROWS
    assert set(answers(place / "out")["model_version"].to_pylist()) == {"1"}
    assert answers(place / "out").num_rows == ROWS


def test_a_version_can_be_named(place, store):
    report = score(store, "rows.parquet", "out", "--version", "2")
    assert (report["versions"], report["revision"]) == (["2"], 0)
    assert set(answers(place / "out")["answered_by"].to_pylist()) == {"requested"}


def test_bad_rows_go_to_the_side_file_with_reasons(place, store):
    lines = (place / "rows.csv").read_text().splitlines()
    lines[3] = lines[3].replace("basic", "gold").replace("standard", "gold").replace("premium", "gold")
    lines[5] = "cust,1"
    lines[7] = "cust-x,old,1,1,1,1,basic"
    (place / "rows.csv").write_text("\n".join(lines))
    report = score(store, "rows.csv", "out", "--key", "customer_id", "--format", "parquet")
    assert (report["answered"], report["rejected"]) == (ROWS - 3, 3)
    side = pa.parquet.read_table(place / "out/_rejected/part-00000-00000.parquet").to_pylist()
    assert sorted(row["rejected_reason"] for row in side) == ["bad_frame", "not_finite", "unknown_category"]
    assert all(row["rejected_file"].endswith("rows.csv") for row in side)


def test_a_settings_file_can_name_the_store(place, store):
    (place / "worker.yaml").write_text(
        f"models: {{store: '{store}'}}\n"
        "pipelines:\n"
        "  - {name: churn, input_topics: [a], output_topic: b, dead_letter_topic: c, model: churn}\n"
    )
    command = ["score", "rows.parquet", "out", "--model", "churn", "--config", "worker.yaml"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert "1,000 rows answered, 0 rejected, by churn version 1, rollout revision 1" in done.stdout


def test_line_breaks_in_cells_are_for_the_asking_and_a_job_keeps_to_what_was_asked(place, store):
    lines = (place / "rows.csv").read_text().splitlines()
    (place / "odd.csv").write_text("\n".join([*lines[:6], '"' + lines[6].replace('"', ""), *lines[7:]]) + "\n")
    report = score(store, "odd.csv", "out", "--format", "parquet")
    assert (report["answered"], report["rejected"]) == (ROWS - 1, 1)
    with pytest.raises(BadSettings, match="holds a job with multiline False, not True"):
        score(store, "odd.csv", "out", "--format", "parquet", "--multiline")
    with pytest.raises((BadSettings, InputDamaged), match="a quote is opened and never closed"):
        score(store, "odd.csv", "other", "--format", "parquet", "--multiline")


@pytest.mark.parametrize(
    ("source", "target", "more", "error", "said"),
    [
        ("nowhere.parquet", "out", (), BadSettings, "there is no"),
        ("empty", "out", (), BadSettings, "there are no .parquet or .csv files"),
        ("mixed", "out", (), BadSettings, ".csv and .parquet files; one kind at a time"),
        ("notes.txt", "out", (), BadSettings, "rows come as .parquet or .csv"),
        ("rows.parquet", "rows.csv", (), BadSettings, "is a file"),
        (".", "out", (), BadSettings, "is within"),
        ("rows.parquet", "ftp://host/out", (), BadSettings, "has the scheme 'ftp'"),
        ("rows.parquet", "out", ("--key", "id"), SchemaIncompatible, "has no column id"),
        ("rows.parquet", "out", ("--keep", "plans"), SchemaIncompatible, "has no column plans"),
        ("rows.parquet", "out", ("--version", "9"), ModelMissing, "no version '9'"),
        ("short.csv", "out", (), SchemaIncompatible, "has no column income"),
        ("broken.parquet", "out", (), BadSettings, "broken.parquet cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(place, store, source, target, more, error, said):
    (place / "empty").mkdir()
    (place / "mixed").mkdir()
    for name in ("rows.csv", "rows.parquet"):
        (place / "mixed" / name).write_bytes((place / name).read_bytes())
    (place / "notes.txt").write_text("hello")
    (place / "short.csv").write_text("age,plan\n1,basic\n")
    (place / "broken.parquet").write_bytes((place / "rows.parquet").read_bytes()[:-20])
    with pytest.raises(error) as caught:
        score(store, source, target, *more)
    assert said in str(caught.value)
    assert not (place / "out").exists()


def test_what_follows_from_a_settings_file_with_a_store_beside_it_is_refused(place, store):
    with pytest.raises(BadSettings, match="choose one"):
        score(store, "rows.parquet", "out", "--config", "worker.yaml")


@pytest.mark.parametrize("more", [("--delimiter", ";;"), ("--chunk-rows", "0"), ("--format", "orc")])
def test_a_word_that_means_nothing_is_refused_as_usual(place, more):
    done = CliRunner().invoke(cli, ["score", "rows.parquet", "out", "--model", "churn", *more])
    assert done.exit_code == 2
