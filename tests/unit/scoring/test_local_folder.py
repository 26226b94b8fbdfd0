"""Part files appear whole or not at all, and never take the place of one another."""

import os
import shutil
import threading

import pytest

from app.errors import BadSettings, NotReachable
from app.scoring.local_folder import LocalFolder


@pytest.fixture
def folder(tmp_path):
    return LocalFolder(tmp_path / "out")


def test_what_is_created_can_be_read_and_is_listed(folder):
    assert folder.create("part-0", b"one")
    assert folder.create("_done/0", b"{}")
    assert folder.read("part-0") == b"one"
    assert folder.names() == {"part-0", "_done/0"}


def test_nothing_is_there_before_the_first_file(folder, tmp_path):
    assert folder.names() == set()
    assert folder.read("part-0") is None
    assert not (tmp_path / "out").exists()


def test_a_second_file_of_a_name_changes_nothing(folder):
    assert folder.create("part-0", b"one")
    assert not folder.create("part-0", b"two")
    assert folder.read("part-0") == b"one"


def test_of_many_at_the_same_time_one_creates_the_file(folder):
    gate, won = threading.Barrier(8), []

    def create(number):
        gate.wait()
        if folder.create("part-0", b"%d" % number * 1000):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = won
    assert folder.read("part-0") == b"%d" % winner * 1000


def test_put_replaces(folder):
    folder.put("side", b"one")
    folder.put("side", b"two")
    assert folder.read("side") == b"two"


def test_what_a_killed_writer_left_is_not_listed_and_goes(folder, tmp_path):
    folder.create("part-0", b"one")
    left = tmp_path / "out/_tmp/somebody"
    left.mkdir()
    (left / "writer").touch()  # nobody holds it any more
    (left / "draft").write_bytes(b"half")
    assert folder.names() == {"part-0"}
    folder.tidy()
    assert not (tmp_path / "out/_tmp").exists()
    assert folder.create("part-1", b"two")


def test_who_ends_first_takes_nothing_from_another_that_still_writes(folder, tmp_path):
    other = LocalFolder(tmp_path / "out")
    folder.create("part-0", b"one")

    def place(draft, target):
        folder.tidy()  # between the draft and its link
        os.link(draft, target)
        return True

    other._write("part-1", b"two", place)
    assert folder.names() == {"part-0", "part-1"}
    other.tidy()
    assert not (tmp_path / "out/_tmp").exists()


def test_a_folder_that_a_killed_writer_had_just_made_goes_too(folder, tmp_path):
    (tmp_path / "out/_tmp/somebody").mkdir(parents=True)
    folder.create("part-0", b"one")
    folder.tidy()
    assert not (tmp_path / "out/_tmp").exists()


def test_a_writer_whose_new_folder_is_gone_before_it_is_locked_makes_it_anew(folder, tmp_path, monkeypatch):
    opened, tries = os.open, []

    def late(path, *more):
        if str(path).endswith("writer") and not tries:
            tries.append(path)
            LocalFolder(tmp_path / "out").tidy()
        return opened(path, *more)

    monkeypatch.setattr("os.open", late)
    assert folder.create("part-0", b"one")
    assert tries


def test_who_tidies_goes_on_where_another_was_quicker(folder, tmp_path, monkeypatch):
    remove = shutil.rmtree

    def too_late(path):
        remove(path)
        remove(path)

    monkeypatch.setattr("shutil.rmtree", too_late)
    for number in range(3):
        LocalFolder(tmp_path / "out").create(f"part-{number}", b"one")  # and its lock goes with it
    folder.tidy()
    assert not (tmp_path / "out/_tmp").exists()


def test_a_writer_whose_folder_is_being_tidied_away_makes_it_anew(folder, tmp_path, monkeypatch):
    writer, remove = LocalFolder(tmp_path / "out"), shutil.rmtree
    writer._drafts.mkdir(parents=True)
    (writer._drafts / "writer").touch()  # and not locked yet
    writing = threading.Thread(target=writer.create, args=("part-0", b"one"))

    def meanwhile(path):
        writing.start()
        writing.join(0.1)
        remove(path)

    monkeypatch.setattr("shutil.rmtree", meanwhile)
    folder.tidy()
    writing.join()
    assert writer.create("part-1", b"two")
    assert writer.names() == {"part-0", "part-1"}


def test_nothing_is_left_aside_when_a_file_is_there(folder, tmp_path):
    folder.create("part-0", b"one")
    folder.create("part-0", b"two")
    folder.put("side", b"one")
    assert [path.name for path in (tmp_path / "out/_tmp").rglob("*") if path.is_file()] == ["writer"]


def test_names_are_listed_without_a_look_at_drafts_which_others_may_tidy_away(folder, monkeypatch):
    folder.create("part-0", b"one")
    scandir = os.scandir

    def outside(path):
        assert "_tmp" not in os.fspath(path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", outside)
    assert folder.names() == {"part-0"}


def test_a_file_in_the_place_of_an_inner_folder_is_refused_and_not_taken_for_the_name(folder):
    folder.create("_done", b"a file")
    with pytest.raises(BadSettings, match=r"cannot write .*_done/0: File exists"):
        folder.create("_done/0", b"{}")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(BadSettings, match="is a file"):
        LocalFolder(tmp_path / "out")


def test_a_disk_that_is_full_is_an_error_by_name_and_leaves_no_file(folder, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotReachable, match=r"part-0: No space left on device"):
        folder.create("part-0", b"one")
    assert folder.names() == set()
