"""Retention: the files of days that are too long ago are deleted, whole days at a time."""

from dataclasses import dataclass
from datetime import date, timedelta

from app.audit.trail import Trail


@dataclass(frozen=True, slots=True)
class Expired:
    """What was deleted, or would be. kind: of the trail, as its folder has it. days: in order."""

    pipeline: str
    kind: str
    days: tuple[date, ...]
    files: int
    bytes: int


def expire(trail: Trail, today: date, retention_days: int, *, dry_run: bool) -> Expired:
    """Delete the days before the last `retention_days` ones, the oldest first; today is not counted among those.

    A row goes with the day of its file: the day it arrived on, if it was late, or if its clock was ahead.
    """
    before = today - timedelta(days=retention_days)
    files = [file for file in trail.files() if file.day < before]
    if not dry_run:
        trail.forget(files)
    days = tuple(sorted({file.day for file in files}))
    return Expired(trail.pipeline, trail.kind, days, len(files), sum(file.size for file in files))
