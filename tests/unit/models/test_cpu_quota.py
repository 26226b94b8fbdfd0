"""The CPU quota: the smallest limit that holds, whichever cgroup version says so."""

import os

import pytest

from app.models.cpu_quota import cpu_quota


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.fixture
def cgroup(tmp_path):
    def make(files, proc=""):
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / "proc").write_text(proc)
        return cpu_quota(tmp_path / "cgroup", tmp_path / "proc")

    return make


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "garbage"}, 8),
        ({"cpu.max": "100000 0"}, 8),
        ({"cpu.max": ""}, 8),
    ],
)
def test_the_container_limit_holds_where_there_is_one(cgroup, files, expected):
    assert cgroup(files) == expected


def test_a_parent_limits_its_children(cgroup):
    files = {"pods/cpu.max": "400000 100000", "pods/worker/cpu.max": "max 100000"}
    assert cgroup(files, "0::/pods/worker\n") == 4


def test_the_first_version_is_found_under_its_controller(cgroup):
    files = {"cpu,cpuacct/pods/cpu.cfs_quota_us": "200000", "cpu,cpuacct/pods/cpu.cfs_period_us": "100000"}
    assert cgroup(files, "12:memory:/pods\n4:cpu,cpuacct:/pods\n") == 2


def test_a_path_out_of_the_mount_is_not_followed(cgroup):
    assert cgroup({"cpu.max": "300000 100000"}, "0::/../../x\n") == 3


def test_this_machine_leaves_at_least_one():
    assert cpu_quota() >= 1
