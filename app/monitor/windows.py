"""Summaries → windows of each version, each summary exactly once. Pure: what changed is handed back to be kept.

A window knows the next offset of its partition that it has not seen: a summary that is read again, after a crash or
a rebalance, is below it and counts no more. That offset is in the same value as the counts, so the two cannot come
apart, and it does not matter from where the partition is read again.

What was judged of predictions comes as parts, one for each partition of the sample: a part replaces the one before
it, so reading it again changes nothing either.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import orjson

from app.errors import DecodeFailed, Reason
from app.monitor.judged import Part, part_of
from app.monitor.kept import read_kept
from app.monitor.summaries import MAX_COUNT, VersionSummary, refused
from app.monitor.summary_reading import summary_of

MOST_VERSIONS = 1_000  # of a partition: the names come from records, and are kept for ever
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
    summary: VersionSummary


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
    last: VersionSummary | None
    records_total: int
    parts: tuple[Part, ...]


class Windows:
    """The windows of the partitions that are ours.

    A clock may be ahead by a window and its grace: what is further ahead would make the windows of all others too old.
    """

    def __init__(self, policy: WindowPolicy) -> None:
        self._policy = policy
        self._partitions: dict[int, dict[str, _Version]] = {}
        self.late = 0

    def restore(self, kept: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Begin anew with what was kept: partition, key, value."""
        self._partitions.clear()
        for partition, key, value in kept:
            item = read_kept("windows", key, value, partial(_kept_item, key))
            if item is None:
                continue
            name, at, content = item
            version = self._version(partition, name)
            if isinstance(content, Window):
                version.windows[at[0]] = content
            elif isinstance(content, Part):
                version.parts[at[0], at[1]] = content
            else:
                version.total = content

    def add(self, partition: int, offset: int, summary: VersionSummary, now_ms: int) -> Changes:
        """Add what was read at this offset, unless it was added before.

        Raises DecodeFailed, and adds nothing, if it does not add up with its window, is of the future, or of one
        version too many: `count` is for those.
        """
        if summary.window_start_ms > now_ms + self._ahead_ms:
            raise refused(f"it is of {summary.window_start_ms}, in the future")
        version = self._version(partition, summary.key)
        start_ms = self._start_of(summary.window_start_ms)
        changes: Changes = {}
        window = version.windows.get(start_ms)
        if start_ms < self._oldest(version):
            self.late += offset >= version.total.next_offset
        elif window is None or offset >= window.next_offset:
            merged = window.summary.merged(summary) if window else replace(summary, window_start_ms=start_ms)
            version.windows[start_ms] = window = Window(offset + 1, merged)
            changes[_key(partition, WINDOW, summary.key, start_ms)] = _window_value(window)
        changes |= self.count(partition, offset, summary.key, summary.records)
        return changes | self._forget_old(partition, summary.key, version)

    def count(self, partition: int, offset: int, key: str, records: int) -> Changes:
        """Count the predictions of a summary, unless it was counted before. Raises DecodeFailed likewise."""
        version = self._version(partition, key)
        if offset < version.total.next_offset:
            return {}
        version.total = _Total(offset + 1, min(version.total.records + records, MAX_COUNT))
        content = {"next": version.total.next_offset, "records": version.total.records}
        return {_key(partition, TOTAL, key): orjson.dumps(content)}

    def put_part(self, partition: int, part: Part, now_ms: int) -> Changes:
        """Take the place of the part before. Raises DecodeFailed if it is of the future."""
        if part.window_start_ms > now_ms + self._ahead_ms:
            raise DecodeFailed(Reason.OUT_OF_RANGE, f"part refused: it is of {part.window_start_ms}, in the future")
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

    @property
    def _ahead_ms(self) -> int:
        return round(1000 * (self._policy.window_s + self._policy.grace_s))

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
        """Raises DecodeFailed for one too many."""
        versions = self._partitions.setdefault(partition, {})
        if key not in versions:
            if len(versions) >= MOST_VERSIONS:
                raise refused(f"there are {MOST_VERSIONS} versions already")
            versions[key] = _Version()
        return versions[key]


def _window_value(window: Window) -> bytes:
    return orjson.dumps({"next": window.next_offset, "summary": window.summary.record()})


def _key(partition: int, kind: str, name: str, *rest: int) -> bytes:
    return orjson.dumps([partition, kind, name, *rest])


def _kept_item(key: bytes, value: bytes) -> tuple[str, list[int], Window | Part | _Total]:
    """Name of the version, what follows it in the key, and what was kept there."""
    _, kind, name, *rest = orjson.loads(key)
    content: dict[str, Any] = orjson.loads(value)
    at = [int(number) for number in rest]
    if kind == WINDOW:
        return name, at[:1], Window(int(content["next"]), summary_of(content["summary"]))
    if kind == PART:
        return name, at[:2], part_of(content)
    return name, at, _Total(int(content["next"]), int(content["records"]))
