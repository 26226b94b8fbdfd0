"""Models of other frameworks: converted, compared with the original on held-out rows, and published, or refused."""

import json

import joblib
import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from conversion_world import NOW, binary, many, regression, rows_of, spec_of
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from app.errors import BadSettings, ModelInvalid
from app.models.adopt import AdoptPolicy, ModelSpec, adopt_model, read_spec
from app.models.held_out import HeldOut
from app.models.model_store import open_store
from app.models.runtime import RuntimePolicy, load_model
from app.models.sandbox import Source

TRAINED = rows_of(400, seed=1)
HELD_OUT = rows_of(300, seed=2)
TWO = (TRAINED[:, 0] + TRAINED[:, 1] ** 2 > 0.7).astype(int)
THREE = (TRAINED[:, 0] > 0).astype(int) + (TRAINED[:, 1] > 0.5)
NUMBER = 3 * TRAINED[:, 0] + TRAINED[:, 1]


def sklearn_model(estimator, labels):
    def save(folder):
        joblib.dump(estimator.fit(TRAINED, labels), folder / "model.joblib")
        return Source(folder / "model.joblib", "sklearn", trusted=True)

    return save


def lightgbm_model(objective, labels, **more):
    def save(folder):
        options = {"objective": objective, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, **more}
        lightgbm.train(options, lightgbm.Dataset(TRAINED, labels), 15).save_model(folder / "model.txt")
        return Source(folder / "model.txt", "lightgbm")

    return save


def xgboost_model(objective, labels, suffix, **more):
    def save(folder):
        data = xgboost.DMatrix(TRAINED, labels, feature_names=["age", "income", "a", "b"])
        xgboost.train({"objective": objective, "nthread": 1, **more}, data, 15).save_model(folder / f"model{suffix}")
        return Source(folder / f"model{suffix}", "xgboost")

    return save


CASES = {
    "a forest": (sklearn_model(RandomForestClassifier(21, random_state=0), TWO), binary()),
    "a pipeline": (sklearn_model(make_pipeline(StandardScaler(), LogisticRegression()), THREE), many("classes")),
    "a boosted regression": (sklearn_model(HistGradientBoostingRegressor(max_iter=20), NUMBER), regression()),
    "LightGBM, two classes": (lightgbm_model("binary", TWO), binary()),
    "LightGBM, three classes": (lightgbm_model("multiclass", THREE, num_class=3), many("by_class")),
    "LightGBM, a number": (lightgbm_model("regression", NUMBER), regression()),
    "XGBoost, two classes": (xgboost_model("binary:logistic", TWO, ".json"), binary()),
    "XGBoost, three classes": (xgboost_model("multi:softprob", THREE, ".ubj", num_class=3), many("by_class")),
    "XGBoost, a number": (xgboost_model("reg:squarederror", NUMBER, ".json"), regression()),
}


def adopt(store, source, output, rows=None, **changes):
    spec = spec_of(output).model_copy(update=changes)
    policy = AdoptPolicy(tolerance=1e-5)
    return adopt_model(
        source, spec, rows or HeldOut({"X": HELD_OUT}), store, "brought", policy=policy, at=NOW, who="me"
    )


@pytest.fixture(scope="module", params=CASES)
def adopted(request, tmp_path_factory):
    """One model of each kind in a store of its own, and what came of it."""
    folder = tmp_path_factory.mktemp("adopted")
    save, output = CASES[request.param]
    store, source = open_store("store", folder, create=True), save(folder)
    return store, source, output, adopt(store, source, output)


def test_its_onnx_twin_answers_as_the_original_does(adopted):
    store, _, output, done = adopted
    assert done.agreement.rows == len(HELD_OUT)
    assert done.agreement.max_difference <= 1e-5
    assert done.agreement.same_class == 1.0
    loaded = load_model(store.fetch("brought", "1"), RuntimePolicy())
    answers = loaded.run({"X": HELD_OUT})[output.name]
    assert answers.reshape(len(HELD_OUT), -1)[:16] == pytest.approx(np.array(golden(done)), abs=1e-5)


def golden(done):
    (rows,) = done.manifest.golden.outputs.values()
    return rows


@pytest.fixture
def forest(tmp_path):
    return CASES["a forest"][0](tmp_path)


def test_the_manifest_says_where_it_came_from_and_that_its_source_was_trusted(store, forest):
    labels = (HELD_OUT[:, 0] + HELD_OUT[:, 1] ** 2 > 0.7).astype(int)
    manifest = adopt(store, forest, binary(), HeldOut({"X": HELD_OUT}, labels), metrics={"auc": 0.9}).manifest
    facts = manifest.training
    assert (facts["framework"], facts["source"]) == ("sklearn", "model.joblib")
    assert facts["source_digest"].startswith("sha256:")
    assert "--trust-pickle was given" in facts["trusted_input"]
    assert facts["confined_by"].startswith("resources")
    assert manifest.metrics["auc"] == 0.9
    assert manifest.metrics["conversion_max_difference"] <= 1e-5
    assert 0.7 < manifest.metrics["accuracy"] <= 1


def test_a_pickle_nobody_vouches_for_is_not_opened(store, forest):
    with pytest.raises(BadSettings, match="can hold code that runs when it is loaded: only with --trust-pickle"):
        adopt(store, Source(forest.path, "sklearn"), binary())


def test_only_what_can_be_code_is_marked_as_trusted(adopted):
    _, source, _, done = adopted
    assert source.trusted == (source.framework == "sklearn") == ("trusted_input" in done.manifest.training)


def test_classes_in_another_order_are_refused(store, forest):
    with pytest.raises(ModelInvalid, match=r"its classes are \[0, 1\], the spec says \[1, 0\]"):
        adopt(store, forest, binary(classes=(1, 0)))
    assert store.models() == []


@pytest.mark.parametrize(
    ("case", "output", "complaint"),
    [
        ("a boosted regression", binary(), "has no predict_proba"),
        ("LightGBM, two classes", many("p"), "no output|gives 1 numbers a row, output 'p' has 3"),
        ("XGBoost, a number", binary(), "no output 'probabilities', it has variable"),
    ],
)
def test_a_model_of_another_kind_than_the_spec_says_is_refused(case, output, complaint, store, tmp_path):
    with pytest.raises(ModelInvalid, match=complaint):
        adopt(store, CASES[case][0](tmp_path), output)
    assert store.models() == []


def test_other_columns_than_it_was_trained_on_are_refused(store, tmp_path):
    source = CASES["XGBoost, two classes"][0](tmp_path)
    rows = HeldOut({"X": HELD_OUT[:, :3].copy()})
    with pytest.raises(ModelInvalid, match="trained on 4 columns, the features of 'X' make 3"):
        adopt(store, source, binary(), rows, inputs=spec_of(binary(), width=3).inputs)


def test_a_difference_above_the_tolerance_is_refused_with_its_size(store, tmp_path):
    source = CASES["XGBoost, a number"][0](tmp_path)
    policy = AdoptPolicy(tolerance=1e-12)  # float32 cannot
    with pytest.raises(ModelInvalid, match=r"differ.* by .*e-0[5-8].*allowed 1e-12"):
        adopt_model(
            source, spec_of(regression()), HeldOut({"X": HELD_OUT}), store, "brought", policy=policy, at=NOW, who="me"
        )
    assert store.models() == []


@pytest.mark.parametrize("tolerance", [0, -1, 0.2, float("nan"), float("inf")])
def test_a_tolerance_that_makes_no_sense_is_refused(tolerance):
    with pytest.raises(BadSettings, match="tolerance is"):
        AdoptPolicy(tolerance=tolerance)


@pytest.mark.parametrize("name", ["m.exe", "m.txt", "missing.joblib"])
def test_a_file_that_cannot_be_such_a_model_is_refused_before_a_process_is_started(name, tmp_path):
    if name != "missing.joblib":
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadSettings, match=r"a sklearn model is a file|is not a file"):
        Source(tmp_path / name, "sklearn", trusted=True).check()


def test_an_absent_framework_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("app.models.sandbox.find_spec", lambda name: None)
    (tmp_path / "m.pt2").write_bytes(b"")
    with pytest.raises(BadSettings, match=r"needs torch, onnxscript, which is not.*kafka-inference-worker\[pytorch\]"):
        Source(tmp_path / "m.pt2", "pytorch", trusted=True).check()


@pytest.mark.parametrize(
    ("suffix", "framework", "content"),
    [
        (".txt", "lightgbm", b""),
        (".txt", "lightgbm", b"tree\nversion=v4\nnum_class=-1\n"),
        (".json", "xgboost", b'{"learner": 7}'),
        (".ubj", "xgboost", b"\x00" * 64),
    ],
)
def test_a_broken_file_is_refused_with_the_frameworks_words(suffix, framework, content, store, tmp_path):
    (tmp_path / f"broken{suffix}").write_bytes(content)
    with pytest.raises(ModelInvalid, match=f"broken{suffix}: "):
        adopt(store, Source(tmp_path / f"broken{suffix}", framework), binary())
    assert store.models() == []


def test_a_spec_is_a_manifest_without_what_the_worker_finds_out(tmp_path):
    page = spec_of(binary()).model_dump(mode="json", exclude_none=True)
    (tmp_path / "spec.json").write_text(json.dumps(page))
    assert read_spec(tmp_path / "spec.json") == spec_of(binary())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the page: Input should be"),
        ("[1, 2]", "the page: Input should be"),
        ("data: x\n", "event_schema: Field required"),
        ("golden: {}\n", "Field required|golden: Extra inputs"),
        ("a: [", "cannot read"),
        ("a: &a [*a]\nb: *b", "cannot read"),
        ("\x00", "cannot read"),
        ("!!python/object/apply:os.system ['true']", "cannot read"),
    ],
)
def test_a_spec_that_is_none_is_refused(text, complaint, tmp_path):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(BadSettings, match=complaint):
        read_spec(tmp_path / "spec.yaml")


def test_a_missing_spec_is_refused(tmp_path):
    with pytest.raises(BadSettings, match="cannot read"):
        read_spec(tmp_path / "none.yaml")


def test_the_graph_keeps_only_the_output_of_the_spec(adopted):
    store, _, output, _ = adopted
    graph = onnx.load_from_string(store.fetch("brought", "1").files["model.onnx"]).graph
    assert [found.name for found in graph.output] == [output.name]


def test_a_spec_has_all_that_a_model_card_has_but_the_golden_rows():
    from app.models.manifest import ModelCard

    assert ModelSpec.model_fields.keys() == ModelCard.model_fields.keys() - {"golden"}
