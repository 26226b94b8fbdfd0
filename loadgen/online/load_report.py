"""What a run found: figures as plain data, and as tables."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loadgen.errors import BadOption
from loadgen.latency import LatencySummary, TimelinePoint, summarize, timeline
from loadgen.online.load_log import Outcomes
from loadgen.online.load_plan import LoadPlan
from loadgen.online.target import ANSWERED, Target
from loadgen.verdict import FORMAT

Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a run may show and still pass. failed: share of the requests. p99_ms: of the answered ones."""

    failed: float = 0.0
    p99_ms: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.failed <= 1:
            raise BadOption("--allow-failed: a share, 0 to 1")
        if self.p99_ms is not None and not self.p99_ms > 0:
            raise BadOption("--max-p99: milliseconds, more than 0")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One run. Latency is from the intended send time to the whole answer, of requests that were answered.

    seconds: from the first intended time to the last end. behind_max_ms, behind_p99_ms: how late requests
    left us against their intended times: if these are large, the load generator was the slow one.
    failed: requests by what became of them, without the answered ones. complaints: why the run did not pass.
    """

    target: str
    loop: str
    rows_per_request: int
    requests: int
    answered: int
    failed: dict[str, int]
    seconds: float
    answered_per_s: float
    rows_per_s: float
    behind_p99_ms: float
    behind_max_ms: float
    versions: dict[str, int]
    latency: LatencySummary | None
    timeline: tuple[TimelinePoint, ...]
    complaints: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Nothing to complain about."""
        return not self.complaints


def judge(plan: LoadPlan, target: Target, outcomes: Outcomes, allowed: Allowed) -> LoadResult:
    """Return the figures of a run."""
    requests = len(outcomes.ended_ms)
    answered = outcomes.is_word(ANSWERED)
    latency = (outcomes.ended_ms - outcomes.intended_ms)[answered]
    summary = summarize(latency, "received")
    counts = np.bincount(outcomes.outcome, minlength=len(outcomes.words))
    failed = {word: int(count) for word, count in zip(outcomes.words, counts, strict=True) if word != ANSWERED}
    first, last = (outcomes.intended_ms.min(), outcomes.ended_ms.max()) if requests else (0.0, 0.0)
    seconds = float(last - first) / 1000.0
    behind = np.maximum(outcomes.sent_ms - outcomes.intended_ms, 0.0) if requests else np.zeros(1)
    per_s = float(answered.sum()) / seconds if seconds > 0 else 0.0
    return LoadResult(
        target=target.description,
        loop=f"closed, {plan.callers} callers" if plan.pace.unpaced else f"open, {_pace(plan)}",
        rows_per_request=target.rows,
        requests=requests,
        answered=int(answered.sum()),
        failed=dict(sorted(failed.items())),
        seconds=round(seconds, 3),
        answered_per_s=round(per_s, 1),
        rows_per_s=round(per_s * target.rows, 1),
        behind_p99_ms=round(float(np.percentile(behind, 99)), 3),
        behind_max_ms=round(float(behind.max()), 3),
        versions=outcomes.versions,
        latency=summary,
        timeline=tuple(timeline(outcomes.ended_ms[answered], latency)),
        complaints=tuple(_complaints(requests, failed, summary, allowed)),
    )


def _pace(plan: LoadPlan) -> str:
    pace = plan.pace
    return f"{pace.rate:g}/s" if pace.profile == "constant" else f"{pace.profile} {pace.rate:g} to {pace.peak:g}/s"


def _complaints(
    requests: int, failed: Mapping[str, int], latency: LatencySummary | None, allowed: Allowed
) -> list[str]:
    found = []
    lost = sum(failed.values())
    if requests == 0:
        found.append("nothing was measured: the run ended before the warm-up did")
    elif lost > allowed.failed * requests:
        found.append(f"{lost:,} of {requests:,} requests failed, allowed is a share of {allowed.failed:g}")
    if allowed.p99_ms is not None and latency is not None and latency.p99 > allowed.p99_ms:
        found.append(f"p99 is {latency.p99:g} ms, allowed are {allowed.p99_ms:g} ms")
    return found


def load_page(command: str, started_at: str, result: LoadResult) -> dict[str, Any]:
    """One result file."""
    return {
        "format": FORMAT,
        "command": command,
        "started_at": started_at,
        "load": asdict(result) | {"passed": result.passed},
    }


def load_sections(load: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    """Headings, each with rows of name and value, of a page's "load"."""
    asked = [
        ("target", load["target"]),
        ("loop", load["loop"]),
        ("requests", f"{load['requests']:,} of {load['rows_per_request']:,} rows"),
        ("seconds", f"{load['seconds']:.2f}"),
        ("behind the schedule", f"p99 {load['behind_p99_ms']:.1f} ms, max {load['behind_max_ms']:.1f} ms"),
    ]
    came = [
        ("answered", f"{load['answered']:,}"),
        ("answered per second", f"{load['answered_per_s']:,.0f}"),
        ("rows per second", f"{load['rows_per_s']:,.0f}"),
        *((f"failed: {word}", f"{count:,}") for word, count in load["failed"].items()),
        *((f"by version {version}", f"{count:,}") for version, count in load["versions"].items()),
    ]
    found = [("Asked", asked), ("Answers", came)]
    if load["latency"]:
        names = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99_9": "p99.9", "max": "max"}
        rows = [(label, f"{load['latency'][name]:,.2f} ms") for name, label in names.items()]
        found.append(("Latency, intended send to whole answer", rows))
    return found


def load_line(load: Mapping[str, Any]) -> str:
    """Return the result in one line."""
    if load["passed"]:
        return f"passed: {load['answered']:,} of {load['requests']:,} requests answered"
    return "FAILED: " + "; ".join(load["complaints"])
