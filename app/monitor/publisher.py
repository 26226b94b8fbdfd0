"""Windows of all stages → figures, told to metrics and written to the topic that keeps the newest of each version."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.clock import Clock
from app.monitor.drift import DriftPolicy
from app.monitor.figures import Figures, figures_of
from app.monitor.references import References
from app.monitor.stage import Send
from app.monitor.windows import VersionView


class Windowed(Protocol):
    """A window stage."""

    def view(self, now_ms: int) -> list[VersionView]:
        """Every version of our partitions."""
        ...


@dataclass(frozen=True, slots=True)
class PublishPolicy:
    """sample_shares: by pipeline, of those that have a sample."""

    topic: str
    window_s: int
    drift: DriftPolicy
    sample_shares: Mapping[str, float]


class Publisher:
    """Called every so often: `look` where the stages are, `publish` on a thread, as a model store may take its time."""

    def __init__(
        self,
        stages: Sequence[Windowed],
        references: References,
        policy: PublishPolicy,
        encode: Callable[[Mapping[str, Any]], bytes],
        show: Callable[[Sequence[Figures]], None],
        clock: Clock,
    ) -> None:
        """encode: a record of MonitorSummary → framed datum. show: gets all there is, each time."""
        self._stages, self._references, self._policy = stages, references, policy
        self._encode, self._show, self._clock = encode, show, clock
        self._sent: dict[str, bytes] = {}

    def look(self) -> Sequence[VersionView]:
        """Every version as of now; nothing in it changes any more."""
        now_ms = self._clock.now_ms()
        return [view for stage in self._stages for view in stage.view(now_ms)]

    def publish(self, views: Sequence[VersionView]) -> Sequence[Send]:
        """Show the figures. Returns those that changed since they were sent."""
        now_ms = self._clock.now_ms()
        found = [figures for view in views if (figures := self._figures(view))]
        self._show(found)
        records = []
        for figures in found:
            record = figures.record(now_ms)
            if record is None:
                continue
            key = f"{figures.pipeline}/{figures.version}"
            same = self._encode({**record, "made_at": 0})
            if self._sent.get(key) != same:
                self._sent[key] = same
                records.append((key.encode(), self._encode(record)))
        return [Send(self._policy.topic, records)] if records else []

    def _figures(self, view: VersionView) -> Figures | None:
        references = self._references.of(view.last.model, view.last.version) if view.last else {}
        pipeline = view.key.rpartition("/")[0]
        share = self._policy.sample_shares.get(pipeline, 1.0)
        return figures_of(view, references, self._policy.drift, self._policy.window_s, share)
