"""The model store on Microsoft's emulator of Azure's blobs, and on our own of Google's buckets: `make test-buckets`.

S3 has a real server, in CI (tests/integration/test_s3_store.py).
"""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from google_bucket import GoogleBuckets

from app.errors import BadSettings, ModelInvalid, ModelMissing, NotReachable, RolloutConflict, StoreRefused
from app.models import rollout_changes as changes
from app.models import store_access
from app.models.data_bucket import DataBucket
from app.models.manifest import ModelCard
from app.models.model_store import open_store
from app.models.objects import Objects
from app.models.runtime import RuntimePolicy, load_model
from app.models.store_access import open_bucket
from app.wiring import training
from tests.buckets.azurite import Azurite

pytestmark = pytest.mark.timeout(1_200)  # Azurite is fetched on first use

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BUCKET = "models"
PEOPLE, ROUNDS = 8, 10
SERVERS = {"azure": Azurite, "google": GoogleBuckets}


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory):
    with SERVERS[request.param](tmp_path_factory.mktemp(request.param)) as server:
        server.make_bucket(BUCKET)
        yield server


@pytest.fixture
def url(server):
    return f"{server.scheme}://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small churn model: (its card, its files)."""
    store = str(tmp_path_factory.mktemp("trained"))
    training.train("churn", store=store, estimator=None, rows=2_000, seed=0, progress=lambda _: None)
    stored = open_store(store, Path("/")).fetch("churn", "1")
    return ModelCard(**{name: getattr(stored.manifest, name) for name in ModelCard.model_fields}), stored.files


def store_at(server, url, **changed):
    return open_store(url, Path("/"), access=replace(server.access, **changed))


def objects_at(server, url):
    return Objects(open_bucket(url, server.scheme, server.access), url)


def publish(store, trained, times=1):
    return [store.publish("churn", trained[0], trained[1], at=NOW, who="a test") for _ in range(times)]


def order(why="because"):
    return changes.Order(datetime.now(UTC), "me@here", why)


def at_once(act):
    """What it gave to each of several people who began together."""
    barrier = threading.Barrier(PEOPLE)

    def one(who):
        barrier.wait()
        return act(who)

    with ThreadPoolExecutor(PEOPLE) as people:
        return list(people.map(one, range(PEOPLE)))


def test_what_is_published_is_listed_fetched_and_verified(server, url, trained):
    store = store_at(server, url)
    assert store.models() == []
    manifests = publish(store, trained, times=2)
    assert [manifest.version for manifest in manifests] == ["1", "2"]
    assert (store.models(), store.versions("churn")) == (["churn"], ["1", "2"])
    assert store.rollout("churn").stable == "1"
    model = load_model(store.fetch("churn", "2"), RuntimePolicy())
    assert model.digest == manifests[1].model_digest
    assert np.isfinite(next(iter(model.run({"X": np.ones((1, 8), np.float32)}).values()))).all()


def test_an_object_is_created_once_however_many_try(server, url):
    objects = objects_at(server, url)
    for number in range(ROUNDS):
        path = f"object-{number}"
        created = at_once(lambda who, path=path: objects.create(path, str(who).encode()))
        assert created.count(True) == 1
        assert objects.read(path).content == str(created.index(True)).encode()


def test_an_object_is_replaced_by_one_of_all_who_saw_the_same(server, url):
    objects = objects_at(server, url)
    for number in range(ROUNDS):
        path = f"object-{number}"
        assert objects.create(path, b"first")
        seen = objects.read(path)
        swapped = at_once(lambda who, path=path, seen=seen: objects.replace(path, seen, str(who).encode()))
        assert swapped.count(True) == 1
        assert objects.read(path).content == str(swapped.index(True)).encode()
        assert not objects.replace(path, seen, b"too late")


def test_changes_at_once_are_all_in_the_history_and_each_once(server, url, trained):
    publish(store_at(server, url), trained, times=2)

    def change(who):
        store, by = store_at(server, url), order(str(who))
        while True:
            try:
                return store.change_rollout("churn", lambda page: flipped(page, by), by)
            except RolloutConflict:
                continue

    at_once(change)
    page = store_at(server, url).rollout("churn")
    assert [line.revision for line in page.history] == list(range(1, PEOPLE + 2))
    assert sorted(line.why for line in page.history[1:]) == [str(who) for who in range(PEOPLE)]


def flipped(page, by):
    return changes.promote(page, "2" if page.stable == "1" else "1", by)


def test_publishers_at_the_same_time_get_versions_of_their_own(server, url, trained):
    found = at_once(lambda _: publish(store_at(server, url), trained)[0].version)
    assert sorted(found, key=int) == [str(number) for number in range(1, PEOPLE + 1)]
    assert store_at(server, url).rollout("churn").revision == 1


def test_a_removed_version_leaves_nothing_and_one_in_use_stays(server, url, trained):
    store = store_at(server, url)
    publish(store, trained, times=3)
    assert store.remove("churn", "2")
    assert not store.remove("churn", "1")
    assert store.versions("churn") == ["1", "3"]
    assert [one.version for one in store.stored_versions("churn")] == ["1", "3"]


def test_files_that_were_changed_in_the_bucket_are_refused_by_their_digest(server, url, trained):
    store = store_at(server, url)
    publish(store, trained)
    open_bucket(url, server.scheme, server.access).put("churn/1/model.onnx", trained[1]["model.onnx"] + b"\0")
    with pytest.raises(ModelInvalid, match=r"model\.onnx"):
        load_model(store.fetch("churn", "1"), RuntimePolicy())


def test_a_bucket_that_does_not_exist_is_named_in_one_line(server, trained):
    store = store_at(server, f"{server.scheme}://nowhere/models")
    with pytest.raises(ModelMissing, match="there is no such bucket or folder") as missing:
        store.rollout("churn")
    with pytest.raises(ModelMissing, match="there is no such bucket or folder"):
        publish(store, trained)
    assert "\n" not in str(missing.value)


def test_a_wrong_key_is_named_in_the_servers_words(server, url):
    if server.scheme != "az":
        return  # our emulator of Google's asks nobody who they are
    store = store_at(server, url, account_key="bm9uc2Vuc2U=")
    with pytest.raises(StoreRefused, match=r"cannot list az://models/\w+: AuthorizationFailure: ") as refused:
        store.models()
    assert "\n" not in str(refused.value)


def test_a_server_that_is_gone_is_named(server, url, monkeypatch):
    monkeypatch.setitem(store_access.RETRIES, "max_retries", 1)
    with SERVERS_BY_SCHEME[server.scheme](server.directory / "own") as own:
        own.make_bucket(BUCKET)
        store = store_at(own, url)
        assert store.models() == []
        own.kill()
        with pytest.raises(NotReachable, match=f"cannot list {server.scheme}://models/"):
            store.models()


SERVERS_BY_SCHEME = {kind.scheme: kind for kind in SERVERS.values()}


@pytest.mark.parametrize("server", ["azure"], indirect=True)  # ours would say of tags what we made it say
def test_a_file_of_rows_is_listed_and_read_and_refused_once_it_is_another(server, url):
    bucket = DataBucket(open_bucket(url, server.scheme, server.access), url)
    assert bucket.put_new("rows.csv", b"a\n1\n")
    [stored] = bucket.stored()
    assert bucket.open(stored.name, stored.state).read() == b"a\n1\n"
    bucket.put_new("other.csv", b"b\n2\n")
    [other, _] = bucket.stored()
    with pytest.raises(BadSettings, match="has changed"):
        bucket.open(stored.name, other.state)
