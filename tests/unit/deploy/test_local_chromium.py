"""The browser for tests: the machine's own, or clear words about what to install."""

import pytest

from deploy.local import chromium as module
from deploy.local.chromium import chromium
from deploy.local.errors import DownloadFailed


@pytest.fixture
def on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        return tmp_path / name

    return put


@pytest.mark.parametrize("name", ["chromium-headless-shell", "chromium", "google-chrome"])
def test_an_installed_one_is_taken_and_needs_nothing_of_ours(on_the_path, name):
    found = chromium() if on_the_path(name) else None
    assert found.executable.name == name
    assert found.environment == {}


@pytest.mark.usefixtures("on_the_path")
def test_without_one_and_without_apt_it_is_said_what_to_install():
    with pytest.raises(DownloadFailed, match="no Chromium here, and no apt-get to fetch it with: install chromium"):
        chromium()


def test_one_that_was_unpacked_is_told_where_its_libraries_and_fonts_are(on_the_path, tmp_path, monkeypatch):
    on_the_path("apt-get")
    libraries = tmp_path / "whole" / "tree" / "usr" / "lib"
    for path in (libraries / "chromium" / "chromium-headless-shell", libraries / "here" / "libogg.so.0"):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr(module, "_fetch_once", lambda name, fetch: tmp_path / "whole")

    found = chromium()
    assert found.executable == libraries / "chromium" / "chromium-headless-shell"
    assert str(libraries / "here") in found.environment["LD_LIBRARY_PATH"]
    assert str(tmp_path / "whole" / "tree") in (tmp_path / "whole" / "fonts.conf").read_text()
