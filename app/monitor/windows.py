"""Summaries → windows of each version, each summary exactly once. Pure: what changed is handed back to be kept.

A window knows the next offset of its partition that it has not seen: a summary that is read again, after a crash or
a rebalance, is below it and counts no more. That offset is in the same value as the counts, so the two cannot come
apart, and it does not matter from where the partition is read again.

What was judged of predictions comes as parts, one for each partition of the sample: a part replaces the one before
it, so reading it again changes nothing either.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from app.errors import DecodeFailed, Reason
from app.monitor.judged import Part, part_of
from app.monitor.summaries import Summary, summary_of

AHEAD_MS = 3_600_000  # clocks differ; what is further ahead would make everything else late
TOTAL, WINDOW, PART = "total", "window", "part"

Changes = dict[bytes, bytes | None]  # what to keep under which key; None: nothing any more


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    """window_s: length. grace_s: how late a summary may come. keep_s: how long a complete window is kept."""

    window_s: int = 60
    grace_s: float = 10.0
    keep_s: int = 600
    outcome_window_s: int = 3600


@dataclass(frozen=True, slots=True)
class Window:
    """next_offset: of its partition; what is below it has been added."""

    next_offset: int
    summary: Summary


@dataclass(frozen=True, slots=True)
class _Total:
    next_offset: int
    records: int


@dataclass(slots=True)
class _Version:
    """All of one version in one partition."""

    windows: dict[int, Window] = field(default_factory=dict)
    parts: dict[tuple[int, int], Part] = field(default_factory=dict)
    total: _Total = _Total(0, 0)


@dataclass(frozen=True, slots=True)
class VersionView:
    """What is known of a version. last: the newest complete window, None if there is none. parts: not too old."""

    key: str
    last: Summary | None
    records_total: int
    parts: tuple[Part, ...]


class Windows:
    """The windows of the partitions that are ours."""

    def __init__(self, policy: WindowPolicy) -> None:
        self._policy = policy
        self._partitions: dict[int, dict[str, _Version]] = {}
        self.late = 0

    def restore(self, kept: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Begin anew with what was kept: partition, key, value."""
        self._partitions.clear()
        for partition, key, value in kept:
            kind, name, rest = _split(key)
            version = self._version(partition, name)
            content = orjson.loads(value)
            if kind == WINDOW:
                version.windows[rest[0]] = Window(content["next"], summary_of(content["summary"]))
            elif kind == TOTAL:
                version.total = _Total(content["next"], content["records"])
            else:
                version.parts[rest[0], rest[1]] = part_of(content)

    def add(self, partition: int, offset: int, summary: Summary, now_ms: int) -> Changes:
        """Add what was read at this offset, unless it was added before.

        Raises DecodeFailed, and adds nothing, if it does not add up with its window, or is of the future.
        """
        if summary.window_start_ms > now_ms + AHEAD_MS:
            raise DecodeFailed(
                Reason.OUT_OF_RANGE, f"summary refused: it is of {summary.window_start_ms}, in the future"
            )
        version = self._version(partition, summary.key)
        start_ms = self._start_of(summary.window_start_ms)
        changes: Changes = {}
        window = version.windows.get(start_ms)
        if start_ms < self._oldest(version):
            self.late += offset >= version.total.next_offset
        elif window is None:
            merged = replace(summary, window_start_ms=start_ms)
            version.windows[start_ms] = window = Window(offset + 1, merged)
            changes[_key(partition, WINDOW, summary.key, start_ms)] = _window_value(window)
        elif offset >= window.next_offset:
            window = Window(offset + 1, window.summary.merged(summary))
            version.windows[start_ms] = window
            changes[_key(partition, WINDOW, summary.key, start_ms)] = _window_value(window)
        if offset >= version.total.next_offset:
            version.total = _Total(offset + 1, version.total.records + summary.records)
            changes[_key(partition, TOTAL, summary.key)] = orjson.dumps(
                {"next": version.total.next_offset, "records": version.total.records}
            )
        return changes | self._forget_old(partition, summary.key, version)

    def put_part(self, partition: int, part: Part) -> Changes:
        """Take the place of the part before."""
        version = self._version(partition, part.key)
        at = part.sample_partition, part.window_start_ms
        if version.parts.get(at) == part:
            return {}
        version.parts[at] = part
        changes: Changes = {_key(partition, PART, part.key, *at): orjson.dumps(part.record())}
        newest = max(start for _, start in version.parts)
        for old in [at for at in version.parts if at[1] < newest - 1000 * self._policy.outcome_window_s]:
            del version.parts[old]
            changes[_key(partition, PART, part.key, *old)] = None
        return changes

    def view(self, now_ms: int) -> list[VersionView]:
        """Every version of our partitions, as of now."""
        complete_ms = now_ms - round(1000 * (self._policy.window_s + self._policy.grace_s))
        views = []
        for versions in self._partitions.values():
            for key, version in versions.items():
                ended = [start for start in version.windows if start <= complete_ms]
                recent = max(ended, default=-1)
                fresh = recent > complete_ms - 1000 * self._policy.keep_s
                last = version.windows[recent].summary if ended and fresh else None
                since_ms = now_ms - 1000 * self._policy.outcome_window_s
                parts = tuple(part for part in version.parts.values() if part.window_start_ms >= since_ms)
                views.append(VersionView(key, last, version.total.records, parts))
        return views

    def totals(self) -> Mapping[str, int]:
        """Predictions of each version since the group began, of our partitions."""
        totals: dict[str, int] = {}
        for versions in self._partitions.values():
            for key, version in versions.items():
                totals[key] = totals.get(key, 0) + version.total.records
        return totals

    def _start_of(self, time_ms: int) -> int:
        return time_ms - time_ms % (1000 * self._policy.window_s)

    def _oldest(self, version: _Version) -> int:
        """The first window that is not too old, by the newest of the version: the same whenever it is asked again."""
        return max(version.windows, default=0) - 1000 * self._policy.keep_s

    def _forget_old(self, partition: int, key: str, version: _Version) -> Changes:
        oldest = self._oldest(version)
        gone = [start for start in version.windows if start < oldest]
        for start in gone:
            del version.windows[start]
        return {_key(partition, WINDOW, key, start): None for start in gone}

    def _version(self, partition: int, key: str) -> _Version:
        return self._partitions.setdefault(partition, {}).setdefault(key, _Version())


def _window_value(window: Window) -> bytes:
    return orjson.dumps({"next": window.next_offset, "summary": window.summary.record()})


def _key(partition: int, kind: str, name: str, *rest: int) -> bytes:
    return orjson.dumps([partition, kind, name, *rest])


def _split(key: bytes) -> tuple[str, str, list[Any]]:
    _, kind, name, *rest = orjson.loads(key)
    return kind, name, rest
