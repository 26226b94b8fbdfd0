"""What a worker under measurement counts of itself, from its /metrics; found by what it logged at its start."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from loadgen.bench.peer_process import ContenderFailed

ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Scrape:
    """at_s: on the monotonic clock. totals: sample name → the sum of its series, buckets left out."""

    at_s: float
    totals: Mapping[str, float]

    def total(self, name: str) -> float:
        """Of the series with this name; 0 if there is none."""
        return self.totals.get(name, 0.0)


@dataclass(frozen=True, slots=True)
class Batches:
    """Micro-batches between two scrapes. mean_records is None if there was none."""

    mean_records: float | None
    per_s: float


def scrape(log: Path) -> Scrape:
    """The metrics of the worker that writes this log. Raises ContenderFailed if it does not serve them."""
    port = _port(log)
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
    except (OSError, HTTPException) as error:
        raise ContenderFailed(f"http://127.0.0.1:{port}/metrics: {error}") from error
    return Scrape(time.monotonic(), totals(text))


def totals(text: str) -> dict[str, float]:
    """Sample name → sum, of the text format as the worker writes it: no timestamps."""
    found: dict[str, float] = defaultdict(float)
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if not line or line.startswith("#") or name.endswith("_bucket"):
            continue
        with suppress(ValueError):
            value = float(line.rpartition(" ")[2])
            found[name] += value
    return dict(found)


def batches_between(before: Scrape, after: Scrape) -> Batches:
    """How many micro-batches were finished, and how large they were."""
    count = after.total("inference_batch_records_count") - before.total("inference_batch_records_count")
    records = after.total("inference_batch_records_sum") - before.total("inference_batch_records_sum")
    seconds = after.at_s - before.at_s
    return Batches(round(records / count, 2) if count > 0 else None, round(count / seconds, 2) if seconds > 0 else 0.0)


def _port(log: Path) -> int:
    with suppress(OSError):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict) and told.get("event") == "started":
                    return int(told["http_port"])
    raise ContenderFailed(f"no line in {log} says that the worker started")
