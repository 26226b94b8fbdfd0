"""`inference-worker score --config`: by the pipeline's handler and its fallback chain, as the worker answers."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from made_pages import put, stable_page
from typer.testing import CliRunner

from app.__main__ import cli
from app.embed import arrow_function, load
from app.errors import BadSettings, HandlerFailed, HandlerInvalid, SchemaIncompatible
from app.train.churn_data import ChurnFormula
from app.wiring import training
from app.wiring.pipeline_steps import steps_of

pytestmark = pytest.mark.usefixtures("logs_as_they_were")

ROOT = Path(__file__).parents[3]
WHERE = "tests.integration.churn_handler"
ROWS = 1_000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Versions 1 and 2 of churn; 2 is stable, 1 was before."""
    place = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        training.train("churn", store=str(place), estimator=None, rows=2_000, seed=seed, progress=lambda _: None)
    put(place, stable_page("2", 2, previous="1"))
    return place


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with rows, worked in; handlers can be imported."""
    table = ChurnFormula.load(training.SHIPPED_SCHEMAS).customers(3, 0, ROWS).table
    plans = table["plan"].dictionary_decode()
    pa.parquet.write_table(pa.Table.from_batches([table.set_column(6, "plan", plans)]), tmp_path / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    return tmp_path


def settings(place, store, *pipelines):
    """A settings file with these pipelines: options, each beside what every pipeline has."""
    common = {"dead_letter_topic": "c", "model": "churn"}
    topics = [{"name": f"p{at}", "input_topics": [f"a{at}"], "output_topic": f"b{at}"} for at in range(len(pipelines))]
    sections = [common | own | options for own, options in zip(topics, pipelines, strict=True)]
    file = place / "worker.yaml"
    page = {
        "models": {"store": str(store)},
        "schemas": {"directory": str(ROOT / "schemas")},
        "kafka": {"group_id": "g"},
        "pipelines": sections,
    }
    file.write_text(json.dumps(page))
    return file


def score(config, out, *more, source="rows.parquet"):
    """What it prints as JSON. Raises what the command raises."""
    command = ["score", source, out, "--model", "churn", "--config", str(config), "--keep", "age", "--json", *more]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def rows_in(folder):
    return pa.parquet.read_table(folder).to_pylist() if folder.exists() else []


def handler(name, **more):
    return {"handler": f"{WHERE}:{name}", **more}


def test_files_are_answered_by_the_handler_and_what_it_does_not_want_is_in_the_side_file(place, store):
    from tests.integration.churn_handler import TROUBLES, UNSURE  # importable since `place`

    config = settings(place, store, handler("Choosy"))
    report = score(config, "out", "--chunk-rows", "300")
    by_manifest = load(str(store), "churn").score(pa.parquet.read_table("rows.parquet").to_batches()[0]).to_pylist()
    ages = pa.parquet.read_table("rows.parquet")["age"].to_pylist()
    expected = {row: TROUBLES[age] for row, age in enumerate(ages) if age in TROUBLES}
    for row, answer in enumerate(by_manifest):
        if row not in expected and abs(answer["probability"] - 0.5) < UNSURE:
            expected[row] = ("output", "out_of_range")
    side = rows_in(place / "out/_rejected")
    assert {row["rejected_row"]: (row["rejected_stage"], row["rejected_reason"]) for row in side} == expected
    assert len(set(expected.values())) == 5
    found = rows_in(place / "out")
    kept = [answer for row, answer in enumerate(by_manifest) if row not in expected]
    assert [row["probability"] for row in found] == pytest.approx([row["probability"] for row in kept], abs=1e-6)
    assert {(row["model_version"], row["answered_by"]) for row in found} == {("2", "stable")}
    assert (report["answered"], report["rejected"]) == (len(kept), len(expected))


def test_an_arrow_function_and_the_library_answer_by_the_handler_too(place, store):
    steps = steps_of(settings(place, store, handler("Choosy")), "churn")
    rows = pa.parquet.read_table("rows.parquet").to_batches()[0]
    answers = arrow_function(str(store), "churn", steps=steps)(rows)
    assert load(str(store), "churn", steps=steps).score(rows).drop_columns("predicted_at") == answers.drop_columns(
        "predicted_at"
    )
    ages = rows["age"].to_numpy()
    reasons = np.array(answers["rejected_reason"].to_pylist())
    assert set(reasons[ages == 20]) == {"expired"}
    assert set(reasons[ages == 77]) == {"model_error"}
    assert answers["rejected_reason"].null_count > ROWS * 0.7


def test_a_row_of_the_library_may_leave_fields_out_that_events_have(place, store):
    steps = steps_of(settings(place, store, handler("SameAsManifest")), "churn")
    row = {"age": 30, "income": 1e4, "tenure_months": 2, "monthly_charges": 30.0, "plan": "basic"}
    with_handler, without = (load(str(store), "churn", steps=each).predict([row])[0] for each in (steps, None))
    assert with_handler["probability"] == pytest.approx(without["probability"], abs=1e-6)
    assert with_handler["rejected_reason"] is None


def test_a_job_is_the_same_job_only_with_the_same_handler_and_chain(place, store):
    score(settings(place, store, handler("SameAsManifest")), "out")
    with pytest.raises(BadSettings, match=r"holds a job with handler '.*SameAsManifest', not '.*Choosy'"):
        score(settings(place, store, handler("Choosy")), "out")
    with pytest.raises(BadSettings, match="holds a job with fallback 'stop', not 'previous, stop'"):
        score(settings(place, store, handler("SameAsManifest", fallback={"previous": True})), "out")
    with pytest.raises(BadSettings, match=r"holds a job with handler .*, not none"):
        score(settings(place, store, {}), "out")


def test_a_version_whose_handler_breaks_is_answered_for_by_the_previous_one(place, store):
    score(settings(place, store, handler("BreaksInSecond", fallback={"previous": True})), "out")
    assert {(row["model_version"], row["answered_by"]) for row in rows_in(place / "out")} == {("1", "fallback")}
    with pytest.raises(HandlerFailed, match="the handler is at fault"):
        score(settings(place, store, handler("BreaksInSecond")), "other")
    report = score(settings(place, store, handler("BreaksInSecond", on_model_failure="dead_letter")), "third")
    assert (report["answered"], report["rejected"]) == (0, ROWS)


def test_a_previous_version_that_is_gone_keeps_nobody_from_answering(place, store):
    put(store, stable_page("2", 3, previous="9"))
    try:
        report = score(settings(place, store, handler("SameAsManifest", fallback={"previous": True})), "out")
    finally:
        put(store, stable_page("2", 2, previous="1"))
    assert (report["answered"], report["versions"]) == (ROWS, ["2"])


def test_a_handler_that_refuses_a_version_is_a_bad_start_and_nothing_is_begun(place, store):
    with pytest.raises(HandlerInvalid, match="no licence for version 2"):
        score(settings(place, store, handler("Unwilling")), "out")
    assert not (place / "out/_plan.json").exists()


def test_a_file_without_any_column_of_the_events_is_refused(place, store):
    pa.parquet.write_table(pa.table({"weight": [1.0]}), "odd.parquet")
    config = settings(place, store, handler("SameAsManifest"))
    command = ["score", "odd.parquet", "out", "--model", "churn", "--config", str(config)]
    with pytest.raises(SchemaIncompatible, match="has no column customer_id, age"):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    del command[-2:]
    with pytest.raises(SchemaIncompatible, match="has no column age, income"):
        CliRunner().invoke(cli, [*command, "--store", str(store)], catch_exceptions=False)


def test_pipelines_that_answer_differently_by_one_model_have_to_be_told_apart(place, store):
    config = settings(place, store, handler("SameAsManifest"), {})
    with pytest.raises(BadSettings, match="pipelines p0, p1 do not answer by 'churn' in the same way"):
        score(config, "out")
    with pytest.raises(BadSettings, match="no pipeline 'p9' with the model 'churn'"):
        score(config, "out", "--pipeline", "p9")
    assert score(config, "a", "--pipeline", "p0")["answered"] == ROWS
    assert score(config, "b", "--pipeline", "p1")["answered"] == ROWS
    same = settings(place, store, {}, {})
    assert score(same, "c")["answered"] == ROWS


def test_a_pipeline_without_settings_is_refused(place, store):
    command = ["score", "rows.parquet", "out", "--model", "churn", "--store", str(store), "--pipeline", "p0"]
    with pytest.raises(BadSettings, match="--config, which is not given"):
        CliRunner().invoke(cli, command, catch_exceptions=False)


@pytest.mark.parametrize(("options", "said"), [((), "stop"), (("--bad-output", "reject"), "dead_letter")])
def test_bad_outputs_are_the_pipelines_business_unless_the_command_says(place, store, options, said):
    score(settings(place, store, {"bad_output": "stop"}), "out", *options)
    assert json.loads((place / "out/_plan.json").read_text())["bad_output"] == said


def test_csv_is_answered_by_the_handler_as_parquet_is(place, store):
    rows = pa.parquet.read_table("rows.parquet")
    pa.csv.write_csv(rows, "rows.csv")
    config = settings(place, store, handler("Choosy"))
    reports = [score(config, out, "--format", "parquet", source=f"rows.{out}") for out in ("parquet", "csv")]
    assert reports[0]["answered"] == reports[1]["answered"]
    found = [pa.parquet.read_table(out).drop_columns(["predicted_at", "age"]).to_pylist() for out in ("parquet", "csv")]
    assert found[0] == found[1]
