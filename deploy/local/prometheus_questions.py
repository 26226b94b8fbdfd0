"""What a Prometheus answers, as plain data; whoever started it."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from deploy.local.errors import QueryRefused

_CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' value at one moment. labels: the metric's name, if it kept it, is `__name__`."""

    labels: dict[str, str]
    at_s: float  # seconds since the epoch
    value: float  # "NaN" and "+Inf" are numbers too


@dataclass(frozen=True, slots=True)
class Target:
    """What Prometheus scrapes. health: up, down, or unknown before the first scrape."""

    job: str
    url: str
    health: str
    error: str


class PrometheusQuestions(ABC):
    """Questions to the Prometheus at `url`."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Without a slash at the end."""

    def query(self, expression: str, *, at_s: float | None = None) -> list[Sample]:
        """What the expression is at a moment, now if nothing else is said; empty if no series answers.

        at_s: seconds since the epoch. A scalar is a sample without labels. Raises QueryRefused.
        """
        asked = {"query": expression} | ({} if at_s is None else {"time": repr(at_s)})
        answer = self._ask("query", asked)
        results = answer["result"]
        if answer["resultType"] in ("scalar", "string"):
            results = [{"metric": {}, "value": results}]
        if answer["resultType"] == "matrix":
            raise QueryRefused(f"{expression}: a range of time; `query_range` answers that")
        return [Sample(each["metric"], float(each["value"][0]), float(each["value"][1])) for each in results]

    def query_range(self, expression: str, *, start_s: float, end_s: float, step_s: float) -> list[list[Sample]]:
        """What the expression was from start to end, every step: one list for each series. Raises QueryRefused."""
        asked = {"query": expression, "start": repr(start_s), "end": repr(end_s), "step": repr(step_s)}
        return [
            [Sample(series["metric"], float(at_s), float(value)) for at_s, value in series["values"]]
            for series in self._ask("query_range", asked)["result"]
        ]

    def targets(self) -> list[Target]:
        """What it scrapes now, and how that went last. Raises QueryRefused."""
        return [
            Target(each["labels"]["job"], each["scrapeUrl"], each["health"], each["lastError"])
            for each in self._ask("targets", {"state": "active"})["activeTargets"]
        ]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as the server has it: name, type, health, lastError, state. Raises QueryRefused."""
        return [rule for group in self._ask("rules", {})["groups"] for rule in group["rules"]]

    def _ask(self, what: str, asked: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=_CALL_TIMEOUT_S) as answer:  # noqa: S310 # nosec B310
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            with refused:
                said = refused.read().decode(errors="replace")
            raise QueryRefused(f"{asked.get('query', what)}: {said}") from refused
        except (OSError, http.client.HTTPException, ValueError) as lost:
            raise QueryRefused(f"{asked.get('query', what)}: {lost}") from lost


class PrometheusAt(PrometheusQuestions):
    """One that somebody else started."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def url(self) -> str:
        """As given."""
        return self._url
