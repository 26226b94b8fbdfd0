"""What was predicted for a key, by whom and from which record: answers from the files of a trail."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby

from app.audit.files import rows_with_key
from app.audit.rows import OFFSET, PARTITION, TIME
from app.audit.trail import Trail, TrailFile

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
    further than the limit needs: a file holds no record of a later day than its own.
    """
    since = question.since.date() if question.since else None
    files = [(file, trail) for trail in trails for file in trail.files(since)]
    files.sort(key=lambda found: found[0].day, reverse=True)
    found: list[Answer] = []
    looked_at = 0
    progress(0, len(files))
    with ThreadPoolExecutor(READERS) as readers:
        for day, of_day in groupby(files, key=lambda one: one[0].day):
            if _enough(found, day, question.limit):
                break
            for some in readers.map(lambda one: _answers_in(one[1], one[0], question), list(of_day)):
                found += some
                looked_at += 1
                progress(looked_at, len(files))
    found.sort(key=_newest_first)
    return found[: question.limit]


def _enough(found: Sequence[Answer], day: date, limit: int) -> bool:
    """Whether no file of this day, nor of any before, can have a record newer than those found."""
    next_day = datetime.combine(day + timedelta(days=1), time(), UTC)
    return sum(_time_of(answer) >= next_day for answer in found) >= limit


def _answers_in(trail: Trail, file: TrailFile, question: Question) -> list[Answer]:
    rows = rows_with_key(trail.objects, file, question.key)
    if rows is None:
        return []
    own: Answer = {"pipeline": trail.pipeline, "file": file.path, "topic": file.source.topic}
    kept: list[Answer] = [own | row for row in rows.to_pylist()]
    return [
        row
        for row in kept
        if (question.since is None or _time_of(row) >= question.since)
        and (question.until is None or _time_of(row) < question.until)
    ]


def _time_of(answer: Answer) -> datetime:
    at = answer[TIME]
    if not isinstance(at, datetime):
        raise TypeError("every row of a trail has a time")
    return at


def _newest_first(answer: Answer) -> tuple[float, object, object]:
    return -_time_of(answer).timestamp(), answer[PARTITION], answer[OFFSET]
