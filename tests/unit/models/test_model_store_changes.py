"""The rollout page under many hands: every change counts once, none is lost, and nobody reads half a page."""

import fcntl
import json
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rollout_pages import order

from app.errors import ModelInvalid, ModelMissing, NotReachable, RolloutConflict, RolloutRefused, StoreRefused
from app.models import objects as objects_module
from app.models import rollout_changes as changes
from app.models.model_store import ModelStore, open_store
from app.models.objects import FolderObjects

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def published(store, make_card):
    for _ in range(3):
        store.publish("hand", make_card(), {"model.onnx": b"graph"}, at=NOW, who="a test")
    return store


def toggle(by):
    """Between 2 and 3: always possible."""
    return lambda page: changes.promote(page, "3" if page.stable == "2" else "2", by)


def insist(store, by):
    """Until it went through, as a person would."""
    while True:
        try:
            return store.change_rollout("hand", toggle(by), by)
        except RolloutConflict:
            continue


def change_often(url, who, times):
    store = open_store(url, Path("/"))
    for number in range(times):
        insist(store, order(f"{who} {number}", who=who))


class Interrupted(FolderObjects):
    """A folder in which something happens just before a page is replaced, or just after its answer was lost."""

    def __init__(self, root):
        super().__init__(root, create=False)
        self.before_replace = lambda: None
        self.lose_the_answer = False

    def replace(self, path, seen, content):
        happening, self.before_replace = self.before_replace, lambda: None
        happening()
        done = super().replace(path, seen, content)
        if self.lose_the_answer:
            self.lose_the_answer = False
            raise NotReachable("the connection broke")
        return done


@pytest.fixture
def interrupted(published):
    """(the store, what may happen to it)."""
    folder = Interrupted(Path(published.url))
    return ModelStore(folder), folder


def promoted(version, by):
    return lambda page: changes.promote(page, version, by)


class NoPage(FolderObjects):
    """A folder that takes everything but a rollout page."""

    def create(self, path, content):
        if path.endswith("rollout.json"):
            raise NotReachable("the connection broke")
        return super().create(path, content)


def test_a_later_version_needs_no_page_to_be_published(published, make_card):
    store = ModelStore(NoPage(Path(published.url), create=False))
    assert store.publish("hand", make_card(), {"model.onnx": b"graph"}, at=NOW, who="a test").version == "4"
    assert published.rollout("hand").stable == "1"


def test_a_first_version_without_its_page_says_so_and_counts(tmp_path, make_card):
    store = ModelStore(NoPage(tmp_path / "store", create=True))
    with pytest.raises(NotReachable, match=r"version 1 of 'hand' was added, .*promote it: the connection broke"):
        store.publish("hand", make_card(), {"model.onnx": b"graph"}, at=NOW, who="a test")
    assert store.versions("hand") == ["1"]


def test_the_files_of_a_version_outlive_a_power_cut_before_its_manifest_says_that_they_are_there(
    tmp_path, make_card, monkeypatch
):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((place.name, (tmp_path / "store/hand/1/manifest.json").exists()))
        real(descriptor)

    monkeypatch.setattr(objects_module.os, "fsync", fsync)
    store = open_store("store", tmp_path, create=True)
    store.publish("hand", make_card(), {"model.onnx": b"graph", "w.data": b"1"}, at=NOW, who="a test")
    before = [name for name, complete in synced if not complete]
    assert set(before) == {"model.onnx", "w.data", "1", "hand", "store"}
    assert {name for name, complete in synced if complete} >= {"manifest.json", "1", "rollout.json"}


def test_a_change_gives_what_was_and_what_is(published):
    before, after = published.change_rollout("hand", promoted("2", order()), order())
    assert (before.stable, after.stable) == ("1", "2")
    assert published.rollout("hand") == after


def test_processes_that_change_at_once_lose_no_change_and_count_each_once(published):
    spawn = multiprocessing.get_context("spawn")
    each = 30
    people = [spawn.Process(target=change_often, args=(published.url, f"p{i}", each)) for i in range(4)]
    for person in people:
        person.start()
    pages = 0
    while any(person.is_alive() for person in people):
        page = published.rollout("hand")  # never half a page
        assert page.history[-1].revision == page.revision
        pages += 1
    for person in people:
        person.join()
    assert [person.exitcode for person in people] == [0, 0, 0, 0]
    assert pages > 0
    page = published.rollout("hand")
    assert [line.revision for line in page.history] == list(range(1, 4 * each + 2))
    assert sorted(line.why for line in page.history[1:]) == sorted(f"p{i} {n}" for i in range(4) for n in range(each))


def test_threads_that_change_at_once_lose_no_change_either(published):
    with ThreadPoolExecutor(8) as people:
        list(people.map(lambda i: change_often(published.url, f"t{i}", 20), range(8)))
    page = published.rollout("hand")
    assert [line.revision for line in page.history] == list(range(1, 162))
    assert len({line.why for line in page.history}) == 161


def test_a_lost_race_says_who_was_quicker_and_changes_nothing(interrupted):
    store, folder = interrupted
    other = order("a hunch", who="bob@laptop")
    folder.before_replace = lambda: store.change_rollout("hand", promoted("3", other), other)
    with pytest.raises(RolloutConflict, match=r"bob@laptop made revision 2 .*\(a hunch\); in force is stable 3"):
        store.change_rollout("hand", promoted("2", order()), order())
    assert store.rollout("hand").stable == "3"


def test_what_a_person_orders_is_tried_again_on_top_of_what_a_program_did(interrupted):
    store, folder = interrupted
    program = order("step is over", who="watch", automatic=True)
    folder.before_replace = lambda: store.change_rollout("hand", promoted("3", program), program)
    before, after = store.change_rollout("hand", promoted("2", order()), order())
    assert (before.stable, after.stable, after.revision) == ("3", "2", 3)


def test_what_a_program_orders_is_not_tried_again(interrupted):
    store, folder = interrupted
    program = order("step is over", who="watch", automatic=True)
    folder.before_replace = lambda: store.change_rollout("hand", promoted("3", order()), order())
    with pytest.raises(RolloutConflict):
        store.change_rollout("hand", promoted("2", program), program)
    assert store.rollout("hand").stable == "3"


def test_a_change_meant_for_another_revision_is_refused(published):
    published.change_rollout("hand", promoted("2", order()), order())
    with pytest.raises(RolloutConflict, match="revision 2 of 'hand' is in force, not 1: me@here made revision 2"):
        published.change_rollout("hand", promoted("3", order()), order(), seen=1)
    assert published.rollout("hand").revision == 2


def test_a_change_that_went_through_though_its_answer_was_lost_counts_once(interrupted):
    store, folder = interrupted
    folder.lose_the_answer = True
    _, after = store.change_rollout("hand", promoted("2", order()), order())
    assert store.rollout("hand") == after
    assert after.revision == 2


def test_a_refused_change_writes_nothing(published):
    page = Path(published.url, "hand", "rollout.json")
    before = page.read_bytes()
    with pytest.raises(RolloutRefused):
        published.change_rollout("hand", promoted("1", order()), order())
    with pytest.raises(ModelMissing, match=r"no version '8' in .*; versions there: 1, 2, 3"):
        published.change_rollout("hand", promoted("8", order()), order())
    assert page.read_bytes() == before


def test_a_rollback_to_a_version_that_is_gone_is_refused(published):
    published.change_rollout("hand", promoted("2", order()), order())
    Path(published.url, "hand", "1", "manifest.json").unlink()
    with pytest.raises(ModelMissing, match="no version '1'"):
        published.change_rollout("hand", lambda page: changes.roll_back(page, order()), order())


def test_a_broken_page_is_not_overwritten(published):
    page = Path(published.url, "hand", "rollout.json")
    page.write_text("{")
    with pytest.raises(ModelInvalid):
        published.change_rollout("hand", promoted("2", order()), order())
    assert page.read_text() == "{"


def test_a_lock_left_by_a_killed_process_is_free(published):
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    holder = spawn.Process(target=hold_for_ever, args=(Path(published.url, "hand", "rollout.lock"), ready))
    holder.start()
    assert ready.wait(60)
    holder.kill()
    holder.join()
    published.change_rollout("hand", promoted("2", order()), order())


def hold_for_ever(lock, ready):
    with lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        ready.set()
        threading.Event().wait()


def test_a_lock_that_a_frozen_process_keeps_is_named_in_the_end(published, monkeypatch):
    monkeypatch.setattr(objects_module, "LOCK_TIMEOUT_S", 0.05)
    lock = Path(published.url, "hand", "rollout.lock")
    with lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(NotReachable, match=r"rollout\.lock has been locked for more than 0\.05 s"):
            published.change_rollout("hand", promoted("2", order()), order())
    published.change_rollout("hand", promoted("2", order()), order())


def test_a_draft_left_by_a_killed_process_does_no_harm(published):
    Path(published.url, "hand", "rollout.draft").write_text("half a pa")
    published.change_rollout("hand", promoted("2", order()), order())
    assert published.rollout("hand").stable == "2"
    assert published.versions("hand") == ["1", "2", "3"]


def test_lines_that_leave_the_page_are_kept_beside_it(published, monkeypatch):
    monkeypatch.setattr(changes, "MAX_LINES", 6)
    monkeypatch.setattr(changes, "LINES_LEFT", 3)
    for number in range(20):
        insist(published, order(f"change {number}"))
    kept = [line.revision for line in published.rollout("hand").history]
    pages = sorted(Path(published.url, "hand", "history").iterdir(), key=lambda file: int(file.stem.split("-")[0]))
    archived = [line["revision"] for file in pages for line in json.loads(file.read_text())]
    assert archived + kept == list(range(1, 22))


def test_a_version_in_use_is_not_removed(published):
    assert not published.remove("hand", "1")
    assert not published.remove("hand", "3", keep=frozenset({"3"}))
    assert published.versions("hand") == ["1", "2", "3"]


def test_a_removed_version_leaves_nothing(published):
    assert published.remove("hand", "2")
    assert published.versions("hand") == ["1", "3"]
    assert not list(Path(published.url).glob("hand/2/*"))
    with pytest.raises(ModelMissing, match="versions there: 1, 3"):
        published.fetch("hand", "2")


def test_a_version_whose_removal_has_begun_cannot_be_promoted(published):
    Path(published.url, "hand", "2", "removed").write_bytes(b"")
    assert published.versions("hand") == ["1", "3"]
    with pytest.raises(ModelMissing, match="no version '2'"):
        published.change_rollout("hand", promoted("2", order()), order())


def test_a_promotion_that_met_a_removal_is_withdrawn(interrupted):
    store, folder = interrupted
    folder.before_replace = lambda: store.remove("hand", "2")  # the promoter has looked already
    with pytest.raises(ModelMissing, match="no version '2'"):
        store.change_rollout("hand", promoted("2", order()), order())
    page = store.rollout("hand")
    assert (page.stable, page.revision) == ("1", 3)
    assert "withdrawn" in page.history[-1].why


def test_a_removal_that_met_a_promotion_is_called_off(published):
    folder = Interrupted(Path(published.url))
    create = folder.create

    def promote_then_create(path, content):
        published.change_rollout("hand", promoted("2", order()), order())
        return create(path, content)

    folder.create = promote_then_create
    assert not ModelStore(folder).remove("hand", "2")
    assert published.fetch("hand", "2").manifest.version == "2"
    assert published.rollout("hand").stable == "2"


def test_nothing_is_removed_while_the_rollout_cannot_be_read(published):
    Path(published.url, "hand", "rollout.json").write_text("{")
    with pytest.raises(ModelInvalid):
        published.remove("hand", "2")
    assert published.versions("hand") == ["1", "2", "3"]


def test_a_folder_that_may_not_be_written_is_named(published, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(objects_module, "_write_durably", refuse)  # root may write anywhere
    with pytest.raises(StoreRefused, match=r"cannot write .*rollout\.json: .*Permission denied"):
        published.change_rollout("hand", promoted("2", order()), order())


def test_readers_of_a_page_that_is_replaced_all_the_time_find_whole_pages(published):
    over = threading.Event()
    seen = set()

    def read():
        while not over.is_set():
            page = published.rollout("hand")
            seen.add(page.revision)
            assert len(page.history) == page.revision

    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(read) for _ in range(2)]
        for number in range(100):
            insist(published, order(f"change {number}"))
        over.set()
        for one in reading:
            one.result()
    assert len(seen) > 1
