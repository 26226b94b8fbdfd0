"""How the CPUs that a worker process may use are shared out among the runs of its model."""

import pytest
from fakes import PIPELINE

from app.settings.root import Settings
from app.wiring import lanes


def settings_of(processes, models):
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "nowhere:1", "group_id": "g"},
            "worker": {"processes": processes},
            "pipelines": [PIPELINE],
            "models": {"store": "file:///models", **models},
        }
    )


@pytest.mark.parametrize(
    ("cpus", "processes", "per_run", "threads", "at_once"),
    [
        (4, 1, None, 4, 1),
        (4, 1, 1, 1, 4),
        (4, 1, 3, 3, 1),
        (4, 1, 8, 4, 1),
        (4, 2, 1, 1, 2),
        (1, 1, 1, 1, 1),
        (2, 4, None, 1, 1),
    ],
)
def test_cpus_that_one_run_does_not_use_are_for_others(monkeypatch, cpus, processes, per_run, threads, at_once):
    monkeypatch.setattr(lanes, "cpu_quota", lambda: cpus)
    settings = settings_of(processes, {"threads_per_run": per_run})
    policy = lanes.runtime_policy(settings, settings.pipelines[0])
    assert (policy.intra_op_threads, policy.runs_at_once) == (threads, at_once)
    online = lanes.runtime_policy(settings, settings.pipelines[0], online=True)
    assert (online.intra_op_threads, online.runs_at_once) == (max(1, cpus // processes), 1)


def test_on_a_device_there_is_one_run_at_a_time(monkeypatch):
    monkeypatch.setattr(lanes, "cpu_quota", lambda: 4)
    models = {"threads_per_run": 1, "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
    settings = settings_of(1, models)
    policy = lanes.runtime_policy(settings, settings.pipelines[0])
    assert (policy.intra_op_threads, policy.runs_at_once) == (4, 1)
