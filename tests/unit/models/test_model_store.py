"""The model store: versions are whole or do not count, and names never leave the folder."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadSettings, ModelInvalid, ModelMissing
from app.models.model_store import MAX_JSON_BYTES, open_store

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FILES = {"model.onnx": b"graph"}


@pytest.fixture
def publish(store, make_card):
    def publish(model="hand", files=FILES, **changes):
        return store.publish(model, make_card(**changes), files, at=NOW, who="a test")

    return publish


def path_of(store, *parts) -> Path:
    return Path(store.url).joinpath(*parts)


def test_versions_are_counted_from_one(store, publish):
    assert [publish().version for _ in range(3)] == ["1", "2", "3"]
    assert store.versions("hand") == ["1", "2", "3"]


def test_ten_comes_after_nine(store, publish):
    for _ in range(10):
        publish()
    assert store.versions("hand")[-2:] == ["9", "10"]


def test_what_is_published_is_what_is_fetched(store, publish):
    manifest = publish(files={"model.onnx": b"graph", "weights.data": b"numbers"})
    stored = store.fetch("hand", "1")
    assert stored.manifest == manifest
    assert stored.files == {"model.onnx": b"graph", "weights.data": b"numbers"}
    assert manifest.model_digest == "eef93e1d14482804"  # pragma: allowlist secret


def test_the_first_version_becomes_stable_and_later_ones_promote_nothing(store, publish):
    publish()
    first = store.rollout("hand")
    publish()
    assert store.rollout("hand") == first
    assert (first.revision, first.strategy, first.stable) == (1, "stable", "1")
    assert (first.history[-1].who, first.history[-1].at) == ("a test", NOW)


def test_models_have_versions_and_rollouts_of_their_own(store, publish):
    publish()
    publish("other")
    assert store.models() == ["hand", "other"]
    assert store.rollout("other").stable == "1"


def test_a_half_written_version_does_not_count_and_its_number_is_not_used_again(store, publish):
    publish()
    path_of(store, "hand", "2").mkdir()
    path_of(store, "hand", "2", "model.onnx").write_bytes(b"half")
    assert store.versions("hand") == ["1"]
    assert publish().version == "3"
    assert path_of(store, "hand", "2", "model.onnx").read_bytes() == b"half"


def test_a_publisher_who_was_overtaken_takes_the_next_number(store, publish, monkeypatch):
    publish()
    publish()
    monkeypatch.setattr(type(store), "stored_versions", lambda self, model: [])  # it looked before the others wrote
    assert publish().version == "3"


def test_folders_that_are_not_versions_are_ignored(store, publish):
    publish()
    for name in ("0", "01", "latest", "-1", "1e3"):
        path_of(store, "hand", name).mkdir()
        path_of(store, "hand", name, "manifest.json").write_text("{}")
    path_of(store, "Bad Name", "1").mkdir(parents=True)
    path_of(store, "Bad Name", "1", "manifest.json").write_text("{}")
    path_of(store, "loose.txt").write_text("")
    assert store.versions("hand") == ["1"]
    assert store.models() == ["hand"]


def test_a_missing_model_or_version_lists_what_exists(store, publish):
    publish()
    publish()
    with pytest.raises(ModelMissing, match=r"no model 'churn' in .*; models there: hand"):
        store.manifest("churn", "1")
    with pytest.raises(ModelMissing, match=r"no version '7' in .*; versions there: 1, 2"):
        store.fetch("hand", "7")
    with pytest.raises(ModelMissing, match="models there: hand"):
        store.rollout("churn")


def test_an_empty_store_says_so(store):
    with pytest.raises(ModelMissing, match="there are no models"):
        store.manifest("churn", "1")


def test_a_model_whose_rollout_is_gone_is_named(store, publish):
    publish()
    path_of(store, "hand", "rollout.json").unlink()
    with pytest.raises(ModelMissing, match=r"hand/rollout.json does not exist"):
        store.rollout("hand")


def test_a_listed_file_that_is_missing_is_named(store, publish):
    publish(files={"model.onnx": b"graph", "weights.data": b"numbers"})
    path_of(store, "hand", "1", "weights.data").unlink()
    with pytest.raises(ModelInvalid, match=r"weights\.data is missing"):
        store.fetch("hand", "1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2"}, "describes model 'hand' version 2"),
        ({"model": "churn"}, "describes model 'churn' version 1"),
        ({"format": 2}, "format: Input should be 1"),
        ({"surprise": True}, "surprise: Extra inputs are not permitted"),
        ({"digest": {}}, "model.onnx is not listed"),
        ({"digest": {"../../etc/passwd": "sha256:" + "0" * 64}}, "digest"),  # pragma: allowlist secret
        ({"digest": {"model.onnx": "md5:abc"}}, "digest"),
        ({"digest": {"model.onnx": "sha256:" + "0" * 64, "ops.so": "sha256:" + "0" * 64}}, "digest"),
        ({"golden": {"inputs": {"X": [[1, 2]]}, "outputs": {"probabilities": [[1, 0]]}}}, "have 2 numbers"),
        ({"golden": {"inputs": {"X": []}, "outputs": {"probabilities": []}}}, "golden"),
        ({"golden": {"inputs": {"X": [["1e999"]]}, "outputs": {"probabilities": [[1, 0]]}}}, "golden"),
    ],
)
def test_a_manifest_that_is_not_as_it_should_be_is_refused_by_name(store, publish, change, message):
    publish()
    path = path_of(store, "hand", "1", "manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelInvalid, match=message):
        store.fetch("hand", "1")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b'{"format": NaN}', b"\0" * 9])
@pytest.mark.parametrize("page", ["1/manifest.json", "rollout.json"])
def test_a_broken_page_is_refused_not_a_crash(store, publish, page, content):
    publish()
    path_of(store, "hand", page).write_bytes(content)
    with pytest.raises(ModelInvalid, match=page):
        store.manifest("hand", "1") if "manifest" in page else store.rollout("hand")


def test_a_huge_page_is_refused_before_it_is_read(store, publish):
    publish()
    with path_of(store, "hand", "1", "manifest.json").open("wb") as page:
        page.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(ModelInvalid, match=f"allowed {MAX_JSON_BYTES}"):
        store.manifest("hand", "1")


def test_a_rollout_of_another_model_is_refused(store, publish):
    publish()
    publish("other")
    path_of(store, "hand", "rollout.json").write_bytes(path_of(store, "other", "rollout.json").read_bytes())
    with pytest.raises(ModelInvalid, match="is of model 'other'"):
        store.rollout("hand")


HOSTILE = ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "A", "x\n", "\0", "%2e%2e", "é", "a" * 65, "~", "-x"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_leave_the_folder_is_never_a_model(store, publish, name):
    publish()
    before = sorted(Path(store.url).parent.rglob("*"))
    with pytest.raises(ModelInvalid, match="cannot be the name"):
        publish(name)
    with pytest.raises(ModelMissing):
        store.manifest(name, "1")
    with pytest.raises(ModelMissing):
        store.manifest("hand", name)
    assert sorted(Path(store.url).parent.rglob("*")) == before


@pytest.mark.parametrize("name", [*HOSTILE, "manifest.json", "ops.so", ".onnx", "../model.onnx"])
def test_only_graphs_and_their_tensors_can_be_published(store, publish, name):
    with pytest.raises(ModelInvalid, match="cannot be the name"):
        publish(files=FILES | {name: b""})
    assert store.models() == []


def test_a_version_needs_a_graph(publish):
    with pytest.raises(ModelInvalid, match=r"needs model\.onnx"):
        publish(files={"weights.data": b""})


@pytest.mark.parametrize("url", ["file://var/my models", "file://var/my%20models", "var/my models"])
def test_a_relative_store_is_relative_to_the_base_that_is_given(tmp_path, url, monkeypatch):
    monkeypatch.chdir("/")
    assert open_store(url, tmp_path, create=True).url == str(tmp_path / "var" / "my models")
    assert (tmp_path / "var" / "my models").is_dir()


def test_an_absolute_store_is_where_it_says(tmp_path):
    assert open_store(f"file://{tmp_path}", Path("/elsewhere")).url == str(tmp_path)


def test_a_store_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelMissing, match=f"no model store at {tmp_path}/none"):
        open_store("file://none", tmp_path)


def test_a_scheme_we_do_not_speak_is_named(tmp_path):
    with pytest.raises(BadSettings, match="'ftp', allowed are file://, s3://, gs://, az://"):
        open_store("ftp://bucket/models", tmp_path)


@given(
    page=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_no_json_crashes_the_reader(tmp_path_factory, page):
    folder = tmp_path_factory.mktemp("store")
    (folder / "hand" / "1").mkdir(parents=True)
    (folder / "hand" / "1" / "manifest.json").write_text(json.dumps(page))
    with pytest.raises(ModelInvalid):
        open_store(str(folder), folder).manifest("hand", "1")
