"""`docker compose config`, by Docker Compose itself. `make compose-config` runs it: it takes minutes to build."""

import json
import os
import re
import subprocess

import pytest
from compose_services import ROOT, compose
from compose_twin import compose_model, seconds

from deploy.local.artifacts import docker_compose

pytestmark = pytest.mark.timeout(1500)  # the build, on a machine that is busy


def config(*options, **shell):
    done = subprocess.run(
        [docker_compose(), *options], cwd=ROOT, env={**os.environ, **shell}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nor a warning
    return done.stdout


@pytest.mark.parametrize("shell", [{}, {"LOADGEN_EVENTS": "7", "LOADGEN_RATE": "", "PARTITIONS": "3"}])
def test_docker_compose_reads_the_file_as_the_twin_does(shell):
    theirs = json.loads(config("--profile", "*", "config", "--format", "json", **shell))
    ours = compose_model(shell)

    assert ours["services"].keys() == theirs["services"].keys()
    for name, service in theirs["services"].items():
        assert _told(ours["services"][name]) == _told(service), name


def test_without_a_profile_nothing_makes_load():
    assert set(config("config", "--services").split()) == compose()["services"].keys() - {"loadgen"}


def _told(service):
    """What the twin goes by. An entry that says nothing is as good as none."""
    parts = ("image", "entrypoint", "command", "environment", "volumes", "ports", "expose", "depends_on", "healthcheck",
             "stop_grace_period", "user", "tmpfs", "read_only")  # fmt: skip
    return {part: _plain(service[part]) for part in parts if service.get(part)}


def _plain(value):
    """Durations are written in several ways: 1m0s and 60s."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if each not in ({}, None, False)}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return seconds(value) if isinstance(value, str) and re.fullmatch(r"([\d.]+(ms|h|m|s))+", value) else value
