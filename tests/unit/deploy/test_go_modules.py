"""Files of Go modules, from a module proxy that is a folder: what is taken is what was pinned, or nothing."""

import json
import zipfile

import pytest

from deploy.local.go_modules import extract

MODULE = "example.com/thing@v1.0.0"
DIGEST = "h1:OgTv43nmDWRLxlh0iOlmyNcLQE8TxqN6+HG5di/AJ5U="  # of what the fixture makes


@pytest.fixture
def proxy(tmp_path, monkeypatch):
    """A proxy with one module, and a digest that is not pinned anywhere but here."""
    folder = tmp_path / "proxy/example.com/thing/@v"
    folder.mkdir(parents=True)
    (folder / "v1.0.0.info").write_text(json.dumps({"Version": "v1.0.0", "Time": "2026-01-01T00:00:00Z"}))
    (folder / "v1.0.0.mod").write_text("module example.com/thing\n")
    with zipfile.ZipFile(folder / "v1.0.0.zip", "w") as archive:
        archive.writestr(f"{MODULE}/go.mod", "module example.com/thing\n")
        archive.writestr(f"{MODULE}/deep/file.yaml", "kind: Thing\n")
    monkeypatch.setenv("GOPROXY", f"file://{tmp_path}/proxy")
    monkeypatch.setenv("GONOSUMDB", "example.com")  # which knows it as little as anybody


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.mark.usefixtures("proxy")
def test_a_file_of_the_module_that_is_pinned_is_taken_and_nothing_else_is_left(target):
    extract(MODULE, DIGEST, {"deep/file.yaml": target / "file.yaml"})

    assert [path.name for path in target.iterdir()] == ["file.yaml"]
    assert (target / "file.yaml").read_text() == "kind: Thing\n"


@pytest.mark.usefixtures("proxy")
def test_a_module_that_is_not_as_it_was_when_it_was_pinned_is_refused(target):
    with pytest.raises(RuntimeError, match=r"thing@v1\.0\.0 is h1:.*, expected h1:another"):
        extract(MODULE, "h1:another", {"deep/file.yaml": target / "file.yaml"})
    assert not (target / "file.yaml").exists()


@pytest.mark.usefixtures("proxy")
def test_a_file_that_the_module_does_not_have_is_named(target):
    with pytest.raises(RuntimeError, match=r"has no file deep/other\.yaml"):
        extract(MODULE, DIGEST, {"deep/other.yaml": target / "other.yaml"})


@pytest.mark.usefixtures("proxy")
def test_a_module_that_nobody_has_is_an_error_with_what_the_toolchain_says(target):
    with pytest.raises(RuntimeError, match="nobody"):
        extract("example.com/nobody@v1.0.0", DIGEST, {"file": target / "file"})
