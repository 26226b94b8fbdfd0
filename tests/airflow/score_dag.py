"""The DAG of `deploy/airflow` under a real Airflow: `make test-airflow`, in an environment of its own.

Not in `make test`: Airflow pins what it runs with, a hundred packages that nothing else here needs.
"""

import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CalledProcessError
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("default")  # Airflow's


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("churn_score", ROOT / "deploy/airflow/churn_score.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_airflow_takes_it_for_a_dag_of_one_task_that_is_tried_again(module):
    dag = module.churn_score()
    (task,) = dag.tasks
    assert (dag.dag_id, dag.schedule, dag.catchup, dag.max_active_runs) == ("churn_score", "30 2 * * *", False, 1)
    assert (task.task_id, task.retries) == ("score", 4)


@pytest.mark.parametrize(("status", "outcome"), [(0, None), (1, "CalledProcessError"), (2, "AirflowFailException")])
def test_what_the_task_makes_of_an_exit_status(module, status, outcome, monkeypatch, tmp_path):
    program = tmp_path / "worker"
    program.write_text(f'#!/bin/sh\necho "$@"\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setattr(module, "BIN", str(program))
    run = SimpleNamespace(run_after=datetime(2026, 11, 21, 2, 30, tzinfo=UTC))
    monkeypatch.setattr(module, "get_current_context", lambda: {"dag_run": run})
    score = module.churn_score().tasks[0].python_callable
    if outcome is None:
        assert score().startswith("score s3://events/churn/day=2026-11-20 s3://answers/churn/day=2026-11-20 ")
    else:
        with pytest.raises((CalledProcessError, AirflowFailException)) as caught:
            score()
        assert type(caught.value).__name__ == outcome
