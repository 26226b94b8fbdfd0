"""How many CPUs this process may use: not what the host has, but what container and affinity leave."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROC_CGROUP = Path("/proc/self/cgroup")


def cpu_quota(cgroup: Path = CGROUP, proc_cgroup: Path = PROC_CGROUP) -> int:
    """Whole CPUs this process may keep busy, at least 1.

    The smallest of the affinity mask and of the CFS quotas of its cgroup and all its parents: cgroup v2
    `cpu.max`, v1 `cpu.cfs_quota_us`. A fraction is rounded down: a thread more than the quota is throttled.
    """
    limits = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    for folder in _folders(cgroup, proc_cgroup):
        for quota, period in (_v2(folder), _v1(folder)):
            if quota > 0 and period > 0:
                limits.append(quota / period)
    return max(1, int(min(limits)))


def _folders(cgroup: Path, proc_cgroup: Path) -> list[Path]:
    """List every folder that may limit this process; a container often sees its own cgroup as the root."""
    folders = [cgroup, cgroup / "cpu", cgroup / "cpu,cpuacct"]
    for line in _text(proc_cgroup).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [cgroup / "cpu", cgroup / "cpu,cpuacct"] if controllers else [cgroup]
        parts = [part for part in path.split("/") if part not in {"", ".."}]
        for depth in range(1, len(parts) + 1):
            folders += [mount.joinpath(*parts[:depth]) for mount in mounts]
    return folders


def _v2(folder: Path) -> tuple[float, float]:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return _number(quota), _number(period)  # "max" is no limit


def _v1(folder: Path) -> tuple[float, float]:
    return _number(_text(folder / "cpu.cfs_quota_us")), _number(_text(folder / "cpu.cfs_period_us"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
