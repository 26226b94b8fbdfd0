"""Columns → answers: whose they are, in which order, and that no row is lost."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from fakes import NOW_MS
from hypothesis import given
from hypothesis import strategies as st
from scoring_world import INPUTS, OUTPUTS, fails_on_all, model, scorer, table, value_model
from structlog.testing import capture_logs

from app.errors import BadSettings, ModelFailed, SchemaIncompatible
from app.models.rollout import AbRollout, Arm, CanaryRollout, CanaryStep, RolloutChange
from app.pipeline.features.plan import features_of
from app.pipeline.infer import OutputPolicy, infer
from app.records import Columns
from app.scoring.keys import key_column
from app.scoring.steps import Steps
from app.specs import InputSpec, ProbabilitiesOutput, TensorFeature

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LINE = RolloutChange(revision=4, at=NOW, who="me", why="test", strategy="canary", stable="1")


def canary(percent=50.0):
    steps = (CanaryStep(percent=percent, hold_s=1),)
    return CanaryRollout(
        model="fake", revision=4, stable="1", candidate="2", steps=steps, since=NOW, salt="s", history=(LINE,)
    )


def opposite(tensors):
    first = tensors["X"][:, 0] / 100
    return {"p": np.stack([first, 1 - first], axis=1)}


def both(answer=opposite, page=None, **changes):
    return scorer(page or canary(), {"1": model("1"), "2": model("2", answer, **changes)})


def test_an_answer_has_the_fields_of_the_manifest_and_says_who_gave_it_and_when():
    scored = scorer().score(table([10.0, 90.0]))
    first, second = scored.answers.to_pylist()
    assert (first["prediction"], second["prediction"]) == (0, 1)
    assert second["probability"] == pytest.approx(0.9)
    assert (first["model_version"], first["answered_by"], first["rollout_revision"]) == ("1", "requested", 0)
    assert first["predicted_at"].timestamp() * 1000 == NOW_MS
    assert scored.answers.schema == scorer().schema


def test_a_regression_answers_with_its_value():
    assert scorer(models={"1": value_model()}).score(table([4.0])).answers["amount"].to_pylist() == [8.0]


def test_labels_that_are_text_are_a_column_of_text():
    outputs = (ProbabilitiesOutput(name="p", classes=("no", "yes"), fields={"label": "class", "all": "probabilities"}),)
    answers = scorer(models={"1": model(outputs=outputs)}).score(table([10.0, 90.0])).answers
    assert answers["label"].to_pylist() == ["no", "yes"]
    assert answers["all"].to_pylist()[1] == pytest.approx([0.1, 0.9])


@given(st.lists(st.one_of(st.floats(0, 100), st.sampled_from([-1.0, 101.0, float("nan"), None])), max_size=40))
def test_each_row_is_answered_or_rejected_once_and_in_order(x):
    scored = scorer().score(table(x))
    rejected = [item.row for item in scored.rejected]
    assert sorted([*scored.rows.tolist(), *rejected]) == list(range(len(x)))
    assert scored.rows.tolist() == sorted(scored.rows.tolist())
    assert rejected == sorted(rejected)
    assert scored.answers["probability"].to_numpy() == pytest.approx(
        [np.float32(x[row]) / np.float32(100) for row in scored.rows]
    )


def test_a_rejected_row_has_the_reason_that_the_stream_gives():
    (rejection,) = scorer().score(table([5.0, 101.0])).rejected
    assert (rejection.row, rejection.reason) == (1, "out_of_range")
    assert rejection.message == "x is 101, allowed 0 to 100"


def test_a_table_without_rows_has_no_answers():
    for one in (scorer(), both()):
        scored = one.score(table([]), pa.array([], pa.binary()))
        assert scored.answers.num_rows == 0
        assert scored.answers.schema == one.schema
        assert not scored.rejected


def test_the_steps_are_the_streams_own():
    rows = table([1.0, 50.0, 99.5])
    features = features_of(Columns(rows, np.arange(3)), INPUTS)
    inference = infer(model(), features.tensors, features.rows, OutputPolicy())
    answers = scorer().score(rows).answers
    for name, column in inference.fields.items():
        assert answers[name].to_pylist() == column.tolist()


keys = st.lists(st.one_of(st.binary(max_size=6), st.none()), min_size=1, max_size=40)


@given(keys)
def test_a_key_gets_the_version_that_the_rollout_gives_it_in_the_stream(given_keys):
    page = canary()
    scored = both().score(table([20.0] * len(given_keys)), pa.array(given_keys, pa.binary()))
    chosen = page.choose(given_keys)
    expected = [page.arms[arm].version for arm in chosen.tolist()]
    assert scored.answers["model_version"].to_pylist() == expected
    assert scored.answers["answered_by"].to_pylist() == ["canary" if v == "2" else "stable" for v in expected]
    assert scored.answers["probability"].to_pylist() == pytest.approx([0.8 if v == "2" else 0.2 for v in expected])
    assert set(scored.answers["rollout_revision"].to_pylist()) == {4}


@given(keys, st.randoms())
def test_what_a_row_gets_does_not_depend_on_its_neighbours(given_keys, random):
    rows = list(range(len(given_keys)))
    random.shuffle(rows)
    x = [float(row) for row in range(len(given_keys))]
    straight = both().score(table(x), pa.array(given_keys, pa.binary())).answers
    shuffled = (
        both().score(table([x[row] for row in rows]), pa.array([given_keys[row] for row in rows], pa.binary())).answers
    )
    assert shuffled.to_pylist() == straight.take(pa.array(rows)).to_pylist()


def test_without_keys_stable_answers_all():
    assert set(both().score(table([20.0] * 50)).answers["model_version"].to_pylist()) == {"1"}


def test_the_arms_of_an_experiment_have_their_names():
    variants = (Arm(name="left", version="1", weight=1), Arm(name="right", version="2", weight=1))
    page = AbRollout(model="fake", revision=4, stable="1", variants=variants, salt="s", history=(LINE,))
    given_keys = pa.array([b"%d" % number for number in range(64)])
    answered_by = both(page=page).score(table([20.0] * 64), given_keys).answers["answered_by"].to_pylist()
    assert set(answered_by) == {"left", "right"}


def test_stable_answers_for_a_canary_that_is_at_fault():
    given_keys = pa.array([b"%d" % number for number in range(64)])
    with capture_logs() as logs:
        answers = both(fails_on_all, at_fault=True).score(table([20.0] * 64), given_keys).answers
    assert set(answers["answered_by"].to_pylist()) == {"stable", "fallback"}
    assert set(answers["model_version"].to_pylist()) == {"1"}
    assert [line["event"] for line in logs] == ["model_failed"]


def test_a_stable_version_that_is_at_fault_ends_it():
    with pytest.raises(ModelFailed):
        scorer(models={"1": model("1", fails_on_all, at_fault=True)}).score(table([20.0]))


def test_a_row_that_the_model_fails_on_is_rejected_alone():
    def fails_on_13(tensors):
        if (tensors["X"][:, 0] == 13).any():
            raise ModelFailed("thirteen")
        return share(tensors)

    def share(tensors):
        return {"p": np.stack([1 - tensors["X"][:, 0] / 100, tensors["X"][:, 0] / 100], axis=1)}

    scored = scorer(models={"1": model("1", fails_on_13)}).score(table([12.0, 13.0, 14.0]))
    assert scored.rows.tolist() == [0, 2]
    assert [(item.row, item.reason) for item in scored.rejected] == [(1, "model_error")]


def test_versions_whose_answers_have_other_fields_cannot_share_a_table():
    other = (ProbabilitiesOutput(name="p", classes=(0, 1), fields={"verdict": "class"}),)
    with pytest.raises(SchemaIncompatible, match="fill different fields"):
        both(outputs=other)


def test_a_column_that_is_absent_is_named():
    with pytest.raises(SchemaIncompatible, match="'plan'"):
        scorer().check(pa.schema([("x", pa.float64()), ("y", pa.float64())]))
    with pytest.raises(SchemaIncompatible, match="'plan'"):
        scorer().score(table([1.0]).drop_columns(["plan"]))


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.timestamp("ms"), pa.struct([("a", pa.int32())])])
def test_a_column_of_a_type_that_feeds_no_number_is_named(kind):
    with pytest.raises(SchemaIncompatible, match="'x' is"):
        scorer().check(pa.schema([("x", kind), ("y", pa.float64()), ("plan", pa.string())]))


def test_a_dictionary_that_points_outside_itself_is_an_error_and_no_crash():
    indices = pa.array([0, 70_000_000], pa.int32())
    odd = pa.DictionaryArray.from_arrays(indices, pa.array(["basic"]), safe=False)
    with pytest.raises(BadSettings, match="damaged"):
        scorer().score(table([1.0, 2.0], plan="basic").set_column(2, "plan", odd))


def test_tables_of_other_types_follow_one_another():
    one = scorer()
    whole = table([5.0, 6.0])
    text = whole.set_column(0, "x", pa.array(["5", "6"]))
    words = whole.set_column(2, "plan", whole["plan"].dictionary_encode())
    for rows in (whole, text, words, whole):
        assert one.score(rows).answers["probability"].to_pylist() == pytest.approx([0.05, 0.06])


def test_an_array_field_is_fed_from_lists_of_either_kind():
    pixels = (InputSpec(name="X", features=(TensorFeature(field="pixels", length=2, max=100),)),)
    one = scorer(models={"1": model(inputs=pixels)})
    values = [[10.0, 1.0], [20.0, 1.0]]
    for kind in (pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.int64())):
        rows = pa.RecordBatch.from_pydict({"pixels": pa.array(values, pa.list_(pa.float64())).cast(kind)})
        assert one.score(rows).answers["probability"].to_pylist() == pytest.approx([0.1, 0.2])


def test_keys_are_the_bytes_of_text_and_the_digits_of_numbers():
    columns = {
        "text": pa.array(["a", None]),
        "raw": pa.array([b"\xff", None]),
        "large": pa.array(["a", "b"], pa.large_string()),
        "words": pa.array(["a", "b"]).dictionary_encode(),
        "number": pa.array([17, None], pa.int32()),
        "price": pa.array([1.5, 2.5]),
    }
    rows = pa.RecordBatch.from_pydict(columns)
    found = {name: key_column(rows, name).to_pylist() for name in columns if name != "price"}
    assert found == {
        "text": [b"a", None],
        "raw": [b"\xff", None],
        "large": [b"a", b"b"],
        "words": [b"a", b"b"],
        "number": [b"17", None],
    }
    with pytest.raises(SchemaIncompatible, match="'price' is double"):
        key_column(rows, "price")
    with pytest.raises(SchemaIncompatible, match="no column 'id'"):
        key_column(rows, "id")


def test_an_output_that_the_policy_does_not_take_ends_it_or_rejects_the_row():
    def nonsense(tensors):
        return {"p": np.full((len(tensors["X"]), 2), np.nan, np.float32)}

    models = {"1": model("1", nonsense)}
    (rejection,) = scorer(models=models).score(table([1.0])).rejected
    assert rejection.reason == "bad_output"
    stopping = scorer(models=models, steps=Steps(outputs=OutputPolicy("stop")))
    with pytest.raises(ModelFailed, match="bad_output is stop"):
        stopping.score(table([1.0]))


def test_it_says_which_columns_it_needs_and_which_of_them_repeat():
    assert scorer().fields == ["x", "y", "plan"]
    assert scorer().categories == ["plan"]
    assert [spec.name for spec in OUTPUTS] == ["p"]
