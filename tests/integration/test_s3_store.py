"""The model store on a real S3 server: writes that hold under races, and failures that say what is wrong."""

import multiprocessing
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
import yaml
from typer.testing import CliRunner
from worker_process import wait_until

from app.__main__ import cli
from app.errors import BadSettings, ModelInvalid, ModelMissing, NotReachable, RolloutConflict, StoreRefused
from app.models import rollout_changes as changes
from app.models import store_access
from app.models.manifest import ModelCard
from app.models.model_store import ModelStore, open_store
from app.models.objects import Objects
from app.models.runtime import RuntimePolicy, load_model
from app.models.store_access import StoreAccess, open_bucket
from app.settings.reading import settings_of
from deploy.local.object_store import REGION, S3Server
from deploy.local.ports import is_free

# The server is built on first use, which needs the network and two minutes of a core.
pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BUCKET = "models"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket(BUCKET)
        yield server


@pytest.fixture
def own_server(tmp_path):
    """One that may be killed."""
    with S3Server(tmp_path) as server:
        server.make_bucket(BUCKET)
        yield server


@pytest.fixture
def url():
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def access_to(server):
    return StoreAccess(
        endpoint=server.endpoint,
        region=REGION,
        allow_http=True,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
    )


def store_at(server, url, **changed):
    return open_store(url, Path("/"), access=replace(access_to(server), **changed))


@pytest.fixture
def trained(models):
    """The churn model that other tests trained: (its manifest, its files)."""
    stored = open_store(str(models), Path("/")).fetch("churn", "1")
    return stored.manifest, stored.files


def publish(store, trained, times=1):
    card, files = trained
    return [store.publish("churn", card_of(card), files, at=NOW, who="a test") for _ in range(times)]


def card_of(manifest):
    """Without what the store adds."""
    return ModelCard(**{name: getattr(manifest, name) for name in ModelCard.model_fields})


def order(why="because", who="me@here"):
    return changes.Order(datetime.now(UTC), who, why)


def promoted(version, by=None):
    return lambda page: changes.promote(page, version, by or order())


def change_often(url, access, who, times):
    store = open_store(url, Path("/"), access=access)
    for number in range(times):
        by = order(f"{who} {number}", who)
        while True:
            try:
                store.change_rollout(
                    "churn", lambda page, by=by: changes.promote(page, "2" if page.stable == "1" else "1", by), by
                )
                break
            except RolloutConflict:
                continue


def test_what_is_published_is_listed_fetched_and_verified(server, url, trained):
    store = store_at(server, url)
    assert store.models() == []
    manifests = publish(store, trained, times=2)
    assert [manifest.version for manifest in manifests] == ["1", "2"]
    assert (store.models(), store.versions("churn")) == (["churn"], ["1", "2"])
    assert store.rollout("churn").stable == "1"
    model = load_model(store.fetch("churn", "2"), RuntimePolicy())
    assert model.digest == manifests[1].model_digest


def test_an_object_is_created_once_however_many_try(server, url):
    objects = Objects(open_bucket(url, "s3", access_to(server)), url)
    for number in range(10):
        barrier = threading.Barrier(8)

        def create(who, path=f"object-{number}", barrier=barrier):
            barrier.wait()
            return objects.create(path, str(who).encode())

        with ThreadPoolExecutor(8) as people:
            created = list(people.map(create, range(8)))
        assert created.count(True) == 1
        assert objects.read(f"object-{number}").content == str(created.index(True)).encode()


def test_an_object_is_replaced_by_one_of_all_who_saw_the_same(server, url):
    objects = Objects(open_bucket(url, "s3", access_to(server)), url)
    for number in range(10):
        path = f"object-{number}"
        objects.create(path, b"first")
        seen = objects.read(path)
        barrier = threading.Barrier(8)

        def swap(who, path=path, seen=seen, barrier=barrier):
            barrier.wait()
            return objects.replace(path, seen, str(who).encode())

        with ThreadPoolExecutor(8) as people:
            swapped = list(people.map(swap, range(8)))
        assert swapped.count(True) == 1
        assert objects.read(path).content == str(swapped.index(True)).encode()
        assert not objects.replace(path, seen, b"too late")


def test_publishers_at_the_same_time_get_versions_of_their_own(server, url, trained):
    with ThreadPoolExecutor(4) as people:
        manifests = list(people.map(lambda _: publish(store_at(server, url), trained)[0], range(4)))
    assert sorted(manifest.version for manifest in manifests) == ["1", "2", "3", "4"]
    store = store_at(server, url)
    assert store.versions("churn") == ["1", "2", "3", "4"]
    assert store.rollout("churn").revision == 1


def test_processes_that_change_at_once_lose_no_change_and_count_each_once(server, url, trained):
    store = store_at(server, url)
    publish(store, trained, times=2)
    spawn = multiprocessing.get_context("spawn")
    each = 20
    people = [spawn.Process(target=change_often, args=(url, access_to(server), f"p{i}", each)) for i in range(2)]
    for person in people:
        person.start()
    while any(person.is_alive() for person in people):
        page = store.rollout("churn")  # never half a page
        assert page.history[-1].revision == page.revision
    for person in people:
        person.join()
    assert [person.exitcode for person in people] == [0, 0]
    page = store.rollout("churn")
    assert [line.revision for line in page.history] == list(range(1, 2 * each + 2))
    assert sorted(line.why for line in page.history[1:]) == sorted(f"p{i} {n}" for i in range(2) for n in range(each))


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
    bucket = open_bucket(url, "s3", access_to(server))
    bucket.put("churn/1/model.onnx", trained[1]["model.onnx"] + b"\0")
    with pytest.raises(ModelInvalid, match=r"model\.onnx"):
        load_model(store.fetch("churn", "1"), RuntimePolicy())


@pytest.mark.parametrize("wrong", ["secret_access_key", "access_key_id"])
def test_wrong_credentials_are_named_in_the_servers_words(server, url, wrong):
    store = store_at(server, url, **{wrong: "nonsense"})
    for ask in (store.models, lambda: store.rollout("churn")):
        with pytest.raises(StoreRefused, match=r"cannot (list|read) s3://models/\w+\S*: \w+: ") as refused:
            ask()
        assert "\n" not in str(refused.value)
        assert server.secret_access_key not in str(refused.value)


def test_no_credentials_at_all_are_named(server, url, monkeypatch):
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # no cloud's machine is here
    store = store_at(server, url, access_key_id=None, secret_access_key=None)
    with pytest.raises(StoreRefused, match=r"no credentials: neither models\.store_options nor the environment"):
        store.models()


def test_a_bucket_that_does_not_exist_is_named(server, trained):
    store = store_at(server, "s3://nowhere/models")
    with pytest.raises(ModelMissing, match="there is no such bucket or folder: NoSuchBucket"):
        store.rollout("churn")
    with pytest.raises(ModelMissing, match="NoSuchBucket"):
        publish(store, trained)


def test_http_has_to_be_allowed(server, url):
    store = store_at(server, url, allow_http=False)
    with pytest.raises((NotReachable, BadSettings)):
        store.models()


def test_credentials_of_the_environment_are_enough(server, url, trained, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(url, Path("/"))
    publish(store, trained)
    assert store.models() == ["churn"]


def test_a_server_killed_in_mid_change_is_named_and_the_page_is_whole(own_server, url, trained, monkeypatch):
    monkeypatch.setitem(store_access.RETRIES, "max_retries", 1)
    store = store_at(own_server, url)
    publish(store, trained, times=2)

    def killing(page):
        own_server.kill()
        return changes.promote(page, "2", order())

    with pytest.raises(NotReachable, match=r"cannot (write|list|read) s3://"):
        store.change_rollout("churn", killing, order())
    comes_back(own_server)
    page = store.rollout("churn")
    assert (page.stable, page.revision) == ("1", 1)
    store.change_rollout("churn", promoted("2"), order())
    assert store.rollout("churn").stable == "2"


def test_a_frozen_server_is_named_within_the_time_outs(own_server, url, trained, monkeypatch):
    patient = store_at(own_server, url)
    publish(patient, trained, times=2)
    monkeypatch.setattr(store_access, "READ_TIMEOUT", timedelta(seconds=0.3))
    monkeypatch.setitem(store_access.RETRIES, "max_retries", 1)
    store = store_at(own_server, url)
    own_server.process.suspend()
    try:
        with pytest.raises(NotReachable, match=r"cannot read s3://.*rollout\.json"):
            store.rollout("churn")
    finally:
        own_server.process.resume()
    assert patient.rollout("churn").revision == 1


def comes_back(server):
    """At the address it had: its clients have no other."""
    port = urlsplit(server.endpoint).port
    wait_until(lambda: is_free(port), f"port {port} to be free again")
    server.start()
    assert urlsplit(server.endpoint).port == port


class AnswersGetLost(Objects):
    """The server is killed right after it replaced the page, before it could say so; and comes back."""

    def __init__(self, url, server):
        super().__init__(open_bucket(url, "s3", access_to(server)), url)
        self._server = server

    def replace(self, path, seen, content):
        assert super().replace(path, seen, content)
        self._server.kill()
        comes_back(self._server)
        raise NotReachable("the connection broke")


def test_a_change_whose_answer_was_lost_with_the_server_counts_once(own_server, url, trained):
    publish(store_at(own_server, url), trained, times=2)
    ModelStore(AnswersGetLost(url, own_server)).change_rollout("churn", promoted("2"), order())
    page = store_at(own_server, url).rollout("churn")
    assert (page.stable, page.revision) == ("2", 2)


def test_a_publisher_whose_server_dies_added_no_version(own_server, url, trained, monkeypatch):
    monkeypatch.setitem(store_access.RETRIES, "max_retries", 1)
    store = store_at(own_server, url)
    publish(store, trained)
    create = store._objects.create

    def killing(path, content):
        if path.endswith("manifest.json"):
            own_server.kill()
        return create(path, content)

    monkeypatch.setattr(store._objects, "create", killing)
    with pytest.raises(NotReachable, match=r"cannot write .*manifest\.json"):
        publish(store, trained)
    comes_back(own_server)
    monkeypatch.undo()
    assert store.versions("churn") == ["1"]
    assert [one.version for one in store.stored_versions("churn") if not one.complete] == ["2"]
    assert publish(store, trained)[0].version == "3"


def test_the_commands_work_on_a_bucket_that_a_settings_file_names(server, url, trained, tmp_path):
    publish(store_at(server, url), trained, times=2)
    (tmp_path / "key").write_text(server.secret_access_key + "\n")
    options = {"endpoint": server.endpoint, "region": REGION, "allow_http": True, "access_key_id": server.access_key_id}
    secret = {"secret_access_key_file": "key"}  # pragma: allowlist secret
    settings = {
        "pipelines": [{"name": "churn", "input_topics": ["in"], "output_topic": "out", "dead_letter_topic": "dead",
                       "model": "churn"}],
        "models": {"store": url, "store_options": options | secret},
    }  # fmt: skip
    (tmp_path / "worker.yaml").write_text(yaml.safe_dump(settings))

    def run(*command):
        done = CliRunner().invoke(cli, ["models", *command, "--config", str(tmp_path / "worker.yaml"), "--json"])
        assert done.exit_code == 0, done.output
        return orjson.loads(done.stdout)

    assert run("list")[0]["versions"] == ["1", "2"]
    assert all(verdict["verified"] for verdict in run("verify", "churn"))
    assert run("promote", "churn", "2", "--why", "better")["after"]["stable"] == "2"
    assert run("rollback", "churn")["after"]["stable"] == "1"
    assert settings_of(settings | {"schemas": {"directory": "."}} | {
        "models": {"store": url, "store_options": options | {"secret_access_key": server.secret_access_key}}
    }).model_dump(mode="json")["models"]["store_options"]["secret_access_key"] == "**********"  # fmt: skip


def test_objects_outlive_the_server(own_server, url, trained):
    store = store_at(own_server, url)
    publish(store, trained)
    own_server.stop()
    comes_back(own_server)
    assert store.versions("churn") == ["1"]
    assert store.rollout("churn").stable == "1"
