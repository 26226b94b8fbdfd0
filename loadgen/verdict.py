"""What a verification found, as plain data."""

from dataclasses import asdict, dataclass
from typing import Any

from loadgen.latency import LatencySummary, TimelinePoint
from loadgen.prediction_log import Answer
from loadgen.producing import Produced
from loadgen.score_check import ScoreCheck
from loadgen.violations import MEANINGS, Violation

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Predictions against the known truth."""

    known: int
    correct: int

    @property
    def share(self) -> float:
        """Correct ones among those whose truth is known."""
        return self.correct / self.known if self.known else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verification. timed_out: outcomes were still arriving, or missing, when the time was over.

    before_window: outcomes of input records from before the run (or that retention removed); not judged.
    """

    pipeline: str
    delivery: str
    inputs: int
    tombstones: int
    poison: dict[str, int]
    predictions: int
    dead_letters: dict[str, int]
    before_window: int
    violations: tuple[Violation, ...]
    answers: tuple[tuple[Answer, int], ...]
    latency: LatencySummary | None
    timeline: tuple[TimelinePoint, ...]
    predictions_per_s: float
    accuracy: Accuracy | None
    score: ScoreCheck | None
    timed_out: bool
    seconds: float

    @property
    def passed(self) -> bool:
        """No law was broken."""
        return not self.violations


def verdict_page(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict for a JSON report."""
    page = asdict(verdict)
    page["passed"] = verdict.passed
    page["answers"] = [asdict(answer) | {"predictions": count} for answer, count in verdict.answers]
    page["violations"] = [
        {
            "kind": violation.kind,
            "meaning": MEANINGS[violation.kind],
            "count": violation.count,
            "examples": [asdict(place) for place in violation.examples],
        }
        for violation in verdict.violations
    ]
    if verdict.accuracy:
        page["accuracy"]["share"] = round(verdict.accuracy.share, 6)
    return page


def produced_page(produced: Produced) -> dict[str, Any]:
    """Return what was sent, for a JSON report."""
    return asdict(produced) | {"events_per_s": round(produced.events_per_s, 1)}


def result_page(*, command: str, started_at: str, produced: Produced | None, verdict: Verdict | None) -> dict[str, Any]:
    """One result file: what `loadgen report` reads."""
    return {
        "format": FORMAT,
        "command": command,
        "started_at": started_at,
        "produced": produced_page(produced) if produced else None,
        "verified": verdict_page(verdict) if verdict else None,
    }
