"""The model store on a bucket of Google's: by its generation an object is created once and replaced by who saw it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google_bucket import GoogleBuckets

from app.errors import BadSettings, ModelMissing, NotReachable, StoreRefused
from app.models import store_access
from app.models.model_store import open_store
from app.models.objects import Found, Objects
from app.models.store_access import StoreAccess, open_bucket

URL = "gs://models/here"
PEOPLE = 8


@pytest.fixture
def server(tmp_path):
    with GoogleBuckets(tmp_path / "google") as server:
        server.make_bucket("models")
        yield server


@pytest.fixture
def objects(server):
    return Objects(open_bucket(URL, "gs", server.access), URL)


def at_once(act):
    barrier = threading.Barrier(PEOPLE)

    def one(who):
        barrier.wait()
        return act(who)

    with ThreadPoolExecutor(PEOPLE) as people:
        return list(people.map(one, range(PEOPLE)))


def test_an_object_is_created_only_where_no_generation_is(server, objects):
    created = at_once(lambda who: objects.create("churn/1/manifest.json", str(who).encode()))
    assert created.count(True) == 1
    assert objects.read("churn/1/manifest.json").content == str(created.index(True)).encode()
    assert {wanted for method, _, wanted in server.asked if method == "PUT"} == {"0"}


def test_a_page_is_replaced_only_in_the_generation_that_was_seen(server, objects):
    objects.create("churn/rollout.json", b"first")
    seen = objects.read("churn/rollout.json")
    assert seen.version is not None
    swapped = at_once(lambda who: objects.replace("churn/rollout.json", seen, str(who).encode()))
    assert swapped.count(True) == 1
    assert objects.read("churn/rollout.json").content == str(swapped.index(True)).encode()
    assert {wanted for method, _, wanted in server.asked if method == "PUT"} == {"0", seen.version}


def test_without_a_generation_to_go_by_nothing_is_written(server, objects):
    objects.create("page", b"first")
    with pytest.raises(StoreRefused, match="nothing to tell a changed object by"):
        objects.replace("page", Found(b"first"), b"second")
    assert objects.read("page").content == b"first"


def test_objects_are_listed_below_a_prefix_and_gone_when_they_are_deleted(objects):
    for path in ("churn/1/model.onnx", "churn/2/model.onnx", "churny/1/model.onnx", "a b/ü.json"):
        objects.create(path, b"x")
    assert [one.parts for one in objects.listed("churn")] == [
        ("churn", "1", "model.onnx"),
        ("churn", "2", "model.onnx"),
    ]
    assert ("a b", "ü.json") in [one.parts for one in objects.listed()]
    objects.delete(["churn/1/model.onnx", "never/there"])
    assert objects.read("churn/1/model.onnx") is None


def test_a_bucket_that_does_not_exist_is_named(server):
    store = open_store("gs://nowhere/models", Path("/"), access=server.access)
    with pytest.raises(ModelMissing, match="there is no such bucket or folder: NoSuchBucket"):
        store.rollout("churn")


def test_a_server_that_is_gone_is_named(server, objects, monkeypatch):
    monkeypatch.setitem(store_access.RETRIES, "max_retries", 0)
    gone = Objects(open_bucket(URL, "gs", server.access), URL)
    server.kill()
    with pytest.raises(NotReachable, match="cannot list gs://models/here"):
        gone.listed()


@pytest.mark.parametrize("content", ["", "{}", "no JSON", '{"client_email": 7}'])
def test_an_account_file_that_is_none_is_a_bad_setting(tmp_path, content):
    file = tmp_path / "account.json"
    file.write_text(content)
    with pytest.raises(BadSettings, match="cannot be opened"):
        open_bucket(URL, "gs", StoreAccess(service_account_file=file))
