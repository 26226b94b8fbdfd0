"""A chunk becomes a file: claimed first, then created, as `trail` has the rules."""

from datetime import UTC, date, datetime, timedelta
from typing import Protocol

import structlog

from app.audit.files import encode
from app.audit.lane import Chunk, Lane
from app.audit.trail import Claim, parsed_path
from app.clock import Clock
from app.errors import NotReachable


class AuditObserver(Protocol):
    """Is told what was written."""

    def file_written(self, pipeline: str, rows: int, size: int) -> None:
        """A file has so many rows and bytes."""
        ...


class Filing:
    """Writes the files of all partitions. Raises what the store does; then the same chunk can be given again."""

    def __init__(self, clock: Clock, retention_days: int | None, observer: AuditObserver) -> None:
        self._clock, self._retention_days, self._observer = clock, retention_days, observer
        self._log = structlog.get_logger()

    def file(self, lane: Lane, chunk: Chunk) -> Claim | None:
        """The claim of the chunk, whose file is there; None if another writer went on from the same place before us.

        Raises NotReachable if the store says two things about the file.
        """
        if chunk.claim is None:
            claim = lane.claim_for(chunk)
            if not lane.trail.claim(lane.source, claim) and lane.trail.last_claim(lane.source) != claim:
                self._log.warning("another_writer_was_first", topic=lane.source.topic, partition=lane.source.partition,
                                  first=claim.first)  # fmt: skip
                return None
            chunk.claim = claim
        begun = self._clock.monotonic()
        content = encode(chunk.batches)
        created = lane.trail.fill(chunk.claim, content)
        if not created and not self.is_expired(chunk.claim) and not lane.trail.is_filled(chunk.claim):
            raise NotReachable(f"the store refuses {chunk.claim.path} as there already, and does not have it")
        self._log.info("file_written", path=chunk.claim.path, rows=chunk.rows, bytes=len(content), created=created,
                       seconds=round(self._clock.monotonic() - begun, 3))  # fmt: skip
        self._observer.file_written(lane.trail.pipeline, chunk.rows, len(content))
        return chunk.claim

    def is_expired(self, claim: Claim) -> bool:
        """Whether its file may have been deleted for its age."""
        parsed, days = parsed_path(claim.path), self._retention_days
        return (
            parsed is not None and days is not None and parsed[0] < utc_day(self._clock.now_ms()) - timedelta(days=days)
        )


def utc_day(now_ms: int) -> date:
    """The day that it is."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).date()
