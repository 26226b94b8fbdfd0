"""Figures of groups → samples of metrics."""

from collections.abc import Iterable
from typing import Protocol

from app.lag.desired_replicas import Advice
from app.lag.readings import GroupLag

Shown = tuple[str, tuple[str, ...], float]  # a gauge's name, its labels' values, its value


class Metrics(Protocol):
    """`app.observe.lag_metrics.LagMetrics`."""

    def show(self, group_id: str, part: str, samples: Iterable[Shown]) -> None:
        """Show these in the place of what was shown of this part of the group before."""
        ...

    def looked(self, group_id: str, result: str, seconds: float) -> None:
        """A look at a group ended: complete, partial or failed."""
        ...


class Board:
    """Knows which figure has which name. What is not known has no series: an old figure is taken for a new one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def show(self, lag: GroupLag) -> None:
        """What is known of its partitions."""
        self._metrics.show(lag.group.group_id, "partitions", _samples(lag))

    def show_group(self, lag: GroupLag, advice: Advice | None) -> None:
        """What is true of the group as a whole; of a complete look only."""
        group_id = lag.group.group_id
        samples: list[Shown] = [
            ("inference_group_members", (group_id,), lag.members or 0),
            ("inference_group_processes", (group_id,), lag.processes),
            ("inference_group_partitions", (group_id,), len(lag.partitions)),
        ]
        if advice is not None:
            samples.append(("inference_group_arrival_rate", (group_id,), advice.arrival_rate))
            if advice.capacity_per_process is not None:
                name = "inference_group_capacity_records_per_second"
                samples.append((name, (group_id,), advice.capacity_per_process))
            if advice.settled:
                samples.append(("inference_desired_replicas", (group_id,), advice.replicas))
                samples.append(("inference_desired_replicas_reason", (group_id, advice.reason), 1))
        self._metrics.show(group_id, "group", samples)

    def looked(self, lag: GroupLag, result: str, seconds: float, now_s: float) -> None:
        """How a look ended. now_s: since the epoch."""
        group_id = lag.group.group_id
        self._metrics.looked(group_id, result, seconds)
        self._metrics.show(group_id, "up", [("inference_lag_up", (group_id,), result == "complete")])
        if result == "complete":
            name = "inference_lag_last_success_timestamp_seconds"
            self._metrics.show(group_id, "success", [(name, (group_id,), now_s)])

    def forget(self, group_id: str, part: str) -> None:
        """Nothing of this is known any more."""
        self._metrics.show(group_id, part, ())


def _samples(lag: GroupLag) -> Iterable[Shown]:
    for partition in lag.partitions:
        at = (lag.group.group_id, partition.source.topic, str(partition.source.partition))
        yield "inference_group_lag_records", at, partition.records
        yield "inference_group_lag_uncounted_offsets", at, partition.uncounted
        if partition.seconds is not None:
            yield "inference_group_lag_seconds", at, partition.seconds
        yield "inference_group_missed_offsets", at, partition.missed
        yield "inference_group_last_stable_offset_lag_records", at, partition.unstable
        yield "inference_group_last_stable_offset_unmoved_seconds", at, partition.unstable_s
