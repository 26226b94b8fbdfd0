"""The worker's settings for one run: its topics, what it is tuned to, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadgen.errors import BadOption

MODEL = "churn"
WORKER_BATCH = 512


@dataclass(frozen=True, slots=True)
class Lane:
    """The topics and the group of one run. Every run has outputs and a group of its own."""

    bootstrap: str
    input: str
    output: str
    dead_letters: str
    group: str


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a user would set for the purpose at hand.

    batch: the worker's max_records; None is each contender's own. wait_s: for a batch to fill. linger_ms: of the
    peers' producers (the worker chooses its own). commit_s: between the peers' commits.
    checkpoint_s: of quixstreams, whose sinks see a batch when it is committed. worker: further settings of the
    worker, by dotted path.
    """

    wait_s: float = 0.01
    linger_ms: float = 5.0
    commit_s: float = 0.1
    checkpoint_s: float = 0.1
    batch: int | None = None
    worker: Mapping[str, Any] = field(default_factory=dict)


def worker_settings(mode: str, lane: Lane, store: Path, schemas: Path, tuning: Tuning) -> dict[str, Any]:
    """The worker's settings file. What is not here is at its default: validation, provenance, metrics, dead letters."""
    settings = {
        "kafka": {"bootstrap_servers": lane.bootstrap, "group_id": lane.group},
        "worker": {"instance_id": lane.group},
        "schemas": {"directory": str(schemas.absolute())},
        "pipelines": [
            {
                "name": MODEL,
                "input_topics": [lane.input],
                "output_topic": lane.output,
                "dead_letter_topic": lane.dead_letters,
                "model": MODEL,
                "batch": {"max_records": tuning.batch or WORKER_BATCH, "max_wait_s": tuning.wait_s},
            }
        ],
        "delivery": {"mode": mode},
        "models": {"store": f"file://{store.absolute()}"},
        "http": {"port": 0},
        "log": {"format": "json"},
    }
    for path, value in tuning.worker.items():
        _put(settings, path, value)
    return settings


def _put(settings: dict[str, Any], path: str, value: Any) -> None:  # noqa: ANN401 - what YAML can hold
    """Set one value; `pipelines` is the only one there. Raises BadOption for a path through what is no section."""
    *sections, name = path.split(".")
    at: Any = settings
    for section in sections:
        at = at.setdefault(section, {})
        at = at[0] if isinstance(at, list) else at
        if not isinstance(at, dict):
            raise BadOption(f"the worker's settings: {section} in {path} is no section")
    at[name] = value
    if name == "slo_s":
        at.pop("max_wait_s", None)  # the worker takes one of them
