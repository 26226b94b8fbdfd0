from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.local import artifacts
from deploy.local.errors import DownloadFailed


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(artifacts, "_PAUSE_S", 0.0)
    return tmp_path / "kafka-inference-worker"


def test_what_was_fetched_is_not_fetched_again(cache):
    fetched = []

    def fetch(target):
        fetched.append(target)
        (target / "one.jar").write_text("whole")

    first = artifacts._fetch_once("thing", fetch)
    second = artifacts._fetch_once("thing", fetch)

    assert first == second == cache / "thing"
    assert (first / "one.jar").read_text() == "whole"
    assert len(fetched) == 1


def test_many_at_once_fetch_once(cache):
    fetched = []

    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(lambda _: artifacts._fetch_once("thing", fetched.append), range(8)))

    assert results == {cache / "thing"}
    assert len(fetched) == 1


def test_an_interrupted_download_is_not_taken_for_a_whole_one(cache):
    def interrupted(target):
        (target / "one.jar").write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifacts._fetch_once("thing", interrupted)
    assert not (cache / "thing").exists()

    artifacts._fetch_once("thing", lambda target: (target / "two.jar").write_text("whole"))
    assert [path.name for path in (cache / "thing").iterdir()] == ["two.jar"]


def test_a_download_that_fails_twice_is_tried_a_third_time_from_scratch(cache):
    attempts = []

    def flaky(target):
        attempts.append(list(target.iterdir()))
        (target / "half.jar").touch()
        if len(attempts) < 3:
            raise OSError("connection reset")

    artifacts._fetch_once("thing", flaky)

    assert attempts == [[], [], []]


def test_a_download_that_keeps_failing_names_what_and_why(cache):
    def down(target):
        raise RuntimeError("Artifact not found")

    with pytest.raises(DownloadFailed, match=r"thing .* in 3 attempts: Artifact not found"):
        artifacts._fetch_once("thing", down)
    assert not (cache / "thing").exists()


def test_a_machine_without_nginx_and_without_apt_is_told_to_install_it(cache, monkeypatch):
    monkeypatch.setattr(artifacts.shutil, "which", lambda name, path=None: None)

    with pytest.raises(DownloadFailed, match="install nginx"):
        artifacts.nginx_executable()


def test_a_package_that_cannot_be_had_names_what_was_tried_and_leaves_nothing(cache, monkeypatch):
    def refuses(*order, within, options=()):
        raise RuntimeError(f"apt-get {order[0]}: no network")

    monkeypatch.setattr(artifacts.shutil, "which", lambda name, path=None: "apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(artifacts, "_apt", refuses)

    with pytest.raises(DownloadFailed, match=r"nginx-debian .* in 3 attempts: apt-get update: no network"):
        artifacts.nginx_executable()
    assert not (cache / "nginx-debian").exists()


def test_a_build_that_cannot_fetch_its_sources_says_so_and_leaves_nothing(cache, monkeypatch):
    monkeypatch.setenv("GOPROXY", "off")

    with pytest.raises(DownloadFailed, match=r"toxiproxy-.* in 3 attempts: .*disabled by GOPROXY=off"):
        artifacts.toxiproxy_server()
    assert [path.name for path in cache.iterdir() if not path.name.endswith((".lock", ".partial"))] == []


@pytest.mark.parametrize("program", [artifacts.promtool, artifacts.prometheus_executable])
def test_a_machine_without_prometheus_and_without_apt_is_told_to_install_it(cache, monkeypatch, program):
    monkeypatch.setattr(artifacts.shutil, "which", lambda name, path=None: None)

    with pytest.raises(DownloadFailed, match="install prometheus"):
        program()


def test_the_prometheus_that_is_installed_is_taken(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(artifacts.shutil, "which", lambda name, path=None: f"/usr/bin/{name}")

    assert str(artifacts.prometheus_executable()) == "/usr/bin/prometheus"
    assert not cache.exists()
