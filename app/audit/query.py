"""What was predicted for a key, by whom and from which record: answers from the files of a trail."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby

import numpy as np
import pyarrow as pa

from app.audit.files import rows_with_key
from app.audit.rows import OFFSET, PARTITION, TIME
from app.audit.trail import Trail, TrailFile

A_DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
READERS = 8  # files at once: a bucket takes tens of milliseconds to answer, whatever is asked

Answer = dict[str, object]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Question:
    """key: as the trail keeps it. since <= record's time < until; None is no bound. At most `limit` answers."""

    key: bytes
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100


def answers(trails: Sequence[Trail], question: Question, progress: Progress) -> list[Answer]:
    """The newest records with this key, newest first, each a row of the trail with its `pipeline` and `file`.

    progress: told how many of how many files have been looked at. Days are looked at from the newest back, and no
    further than the limit needs. A record is looked for in files from the day before its own on: a clock that is ahead
    of the writer's over midnight has its record in the file of the day before. One that is further ahead is found where
    no `since` and no limit leaves its file out.
    """
    since = question.since.date() - A_DAY if question.since else None
    files = [(file, trail) for trail in trails for file in trail.files(since)]
    files.sort(key=lambda found: found[0].day, reverse=True)
    found: list[_Found] = []
    looked_at = 0
    progress(0, len(files))
    with ThreadPoolExecutor(READERS) as readers:
        for day, of_day in groupby(files, key=lambda one: one[0].day):
            if _enough(found, day, question.limit):
                break
            for some in readers.map(lambda one: _found_in(one[1], one[0], question), list(of_day)):
                found = sorted([*found, *some], key=lambda one: one.order)[: question.limit]
                looked_at += 1
                progress(looked_at, len(files))
    return [one.answer for one in found]


@dataclass(frozen=True, slots=True)
class _Found:
    """time_ms: the record's, whatever its year."""

    time_ms: int
    partition: int
    offset: int
    answer: Answer

    @property
    def order(self) -> tuple[int, int, int]:
        """The newest first."""
        return -self.time_ms, self.partition, self.offset


def _enough(found: Sequence[_Found], day: date, limit: int) -> bool:
    """Whether no file of this day, nor of any before, can have a record newer than those found."""
    ahead_ms = _ms(datetime.combine(day + 2 * A_DAY, time(), UTC))
    return sum(one.time_ms >= ahead_ms for one in found) >= limit


def _found_in(trail: Trail, file: TrailFile, question: Question) -> list[_Found]:
    """The newest of one file, as many as are asked for; a key may have more rows than memory."""
    rows = rows_with_key(trail.objects, file, question.key)
    if rows is None:
        return []
    times = rows.column(TIME).cast(pa.int64()).to_numpy()  # numbers: a hostile record may be of a year that no date has
    chosen = np.ones(len(times), np.bool_)
    if question.since is not None:
        chosen &= times >= _ms(question.since)
    if question.until is not None:
        chosen &= times < _ms(question.until)
    partitions, offsets = (rows.column(name).to_numpy() for name in (PARTITION, OFFSET))
    order = np.lexsort((offsets, partitions, -times))
    newest = order[chosen[order]][: question.limit]
    kept = rows.take(pa.array(newest))
    columns = {name: plain_values(kept.column(name)) for name in kept.schema.names}
    own: Answer = {"pipeline": trail.pipeline, "file": file.path, "topic": file.source.topic}
    return [
        _Found(
            int(times[row]), int(partitions[row]), int(offsets[row]),
            own | {name: values[place] for name, values in columns.items()},
        )
        for place, row in enumerate(newest)
    ]  # fmt: skip


def plain_values(column: pa.ChunkedArray) -> list[object]:
    """The column's values; what Python has no date or time for stays a number."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return [_plain_value(value) for value in column]


def _plain_value(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return [_plain_value(part) for part in value] if pa.types.is_nested(value.type) else value.value


def _ms(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)
