"""Airflow: each night the customers of the day are scored, once their events are there.

A retry is the same command, and goes on where the killed one was: the folder of answers has the date. Exit status 2 is
a bad start (settings, model, columns), which another try would not mend: the task fails at once.

`inference-worker` need not be in Airflow's own environment; BIN says where it is. For a pod instead of a process, put
the same command into a KubernetesPodOperator.
"""

import os
import subprocess
from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

BIN = os.environ.get("INFERENCE_WORKER", "inference-worker")
EVENTS = os.environ.get("CHURN_EVENTS", "s3://events/churn")
ANSWERS = os.environ.get("CHURN_ANSWERS", "s3://answers/churn")
MODELS = os.environ.get("CHURN_MODELS", "s3://models/production")
BAD_START = 2


def command(day: str) -> list[str]:
    """The one command of a day."""
    source, target = f"{EVENTS}/day={day}", f"{ANSWERS}/day={day}"
    return [BIN, "score", source, target, "--model", "churn", "--store", MODELS, "--key", "customer_id", "--json"]


@dag(
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["inference"],
    doc_md=__doc__,
)
def churn_score() -> None:
    """One task: score yesterday."""

    @task(retries=4, retry_delay=timedelta(minutes=2), execution_timeout=timedelta(hours=4))
    def score() -> str:
        day = (get_current_context()["dag_run"].run_after - timedelta(days=1)).strftime("%Y-%m-%d")
        done = subprocess.run(command(day), stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - no shell
        if done.returncode == BAD_START:
            raise AirflowFailException("inference-worker could not start; its log says what is wrong")
        done.check_returncode()
        return done.stdout

    score()


churn_score()
