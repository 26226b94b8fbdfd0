"""The rows of one partition that wait for their file, cut where files begin and end."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow as pa

from app.audit.rows import OFFSET, TIME
from app.audit.trail import Claim, Trail, day_of, file_path, parsed_path
from app.errors import AuditBroken
from app.records import IntArray, TopicPartition

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class RollPolicy:
    """When a file is closed: at so many rows or bytes of columns, or so long after its first row came."""

    rows: int = 500_000
    bytes: int = 67_108_864
    age_s: float = 300.0


@dataclass(slots=True)
class Chunk:
    """Rows of one file to be. claim: the claim that they fill, once there is one."""

    day: date
    since: float
    claim: Claim | None = None
    closed: bool = False
    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    last_offset: int = -1

    def add(self, rows: pa.RecordBatch) -> None:
        """Rows that follow those there."""
        self.batches.append(rows)
        self.rows += rows.num_rows
        self.bytes += rows.nbytes
        self.last_offset = rows.column(OFFSET)[-1].as_py()

    @property
    def first_offset(self) -> int:
        """Of its first record."""
        return int(self.batches[0].column(OFFSET)[0].as_py())


class Lane:
    """One partition, from the end of its last claim on. Pure: time comes in, files go out as chunks.

    end: where the next claim begins. to_fill: a claim whose file is missing; its rows come first.
    """

    def __init__(
        self, source: TopicPartition, trail: Trail, policy: RollPolicy, last: Claim | None, *, filled: bool
    ) -> None:
        self.source, self.trail, self._policy = source, trail, policy
        self._to_fill = None if last is None or filled else last
        self.end = 0 if last is None else last.next_offset
        self._day = _day_of_claim(last)
        self._next = 0 if last is None else last.next_offset if filled else last.first
        self.chunks: deque[Chunk] = deque()

    @property
    def start(self) -> int | None:
        """Where to read from; None: from the earliest record there is."""
        return self._next or None

    @property
    def bytes(self) -> int:
        """Of all rows that wait."""
        return sum(chunk.bytes for chunk in self.chunks)

    def add(self, rows: pa.RecordBatch, today: date, now: float) -> None:
        """Rows of this partition, in the order of their offsets; `now` is monotonic.

        Raises AuditBroken if offsets come again that files have already: the topic was made anew.
        """
        offsets = rows.column(OFFSET).to_numpy()
        if offsets[0] < self._next:
            raise AuditBroken(
                f"{self.source.topic}[{self.source.partition}] gives offset {offsets[0]}, the audit trail has all "
                f"before {self._next}: the topic was made anew, so its trail needs an audit.store of its own"
            )
        self._next = int(offsets[-1]) + 1
        if (claim := self._to_fill) is not None:
            rows = self._fill(claim, rows, offsets, now)
            if not rows.num_rows:
                return
        for day, part in self._by_day(rows, today):
            rest = part
            while rest.num_rows:
                chunk = self._open(day, now)
                room = self._policy.rows - chunk.rows
                chunk.add(rest.slice(0, room))
                chunk.closed = chunk.rows >= self._policy.rows or chunk.bytes >= self._policy.bytes
                rest = rest.slice(room)

    def due(self, now: float) -> Chunk | None:
        """The oldest chunk, if it is time for its file."""
        chunk = self.chunks[0] if self.chunks else None
        if chunk is None or chunk.claim is not None:  # of a claim: only when all of it is there
            return chunk if chunk and chunk.closed else None
        chunk.closed = chunk.closed or now - chunk.since >= self._policy.age_s
        return chunk if chunk.closed else None

    def close(self) -> None:
        """Every chunk that can become a file is due."""
        for chunk in self.chunks:
            chunk.closed = chunk.closed or chunk.claim is None

    def claim_for(self, chunk: Chunk) -> Claim:
        """The claim of the oldest chunk: from where the last one ended to its last row."""
        path = file_path(self.trail.folder, self.source, chunk.day, chunk.first_offset, chunk.last_offset)
        return Claim(self.end, chunk.last_offset + 1, path)

    def written(self, claim: Claim) -> None:
        """The oldest chunk has its file."""
        self.chunks.popleft()
        self.end = claim.next_offset

    def _fill(self, claim: Claim, rows: pa.RecordBatch, offsets: IntArray, now: float) -> pa.RecordBatch:
        """Take what belongs to the claim whose file is missing; returns what follows."""
        mine = int(np.searchsorted(offsets, claim.next_offset))
        if mine:
            if not self.chunks:
                self.chunks.append(Chunk(self._day or day_of(0), now, claim))
            self.chunks[0].add(rows.slice(0, mine))
        if offsets[-1] >= claim.next_offset - 1:
            self._to_fill = None
            if self.chunks:
                self.chunks[0].closed = True
        return rows.slice(mine)

    def _open(self, day: date, now: float) -> Chunk:
        newest = self.chunks[-1] if self.chunks else None
        if newest is None or newest.closed or newest.claim is not None or newest.day != day:
            if newest is not None:
                newest.closed = True
            newest = Chunk(day, now)
            self.chunks.append(newest)
        return newest

    def _by_day(self, rows: pa.RecordBatch, today: date) -> Iterator[tuple[date, pa.RecordBatch]]:
        """In pieces, one per day. A partition's days never go back, and never pass today.

        A record that is late goes with the day that its neighbours have. One whose clock is ahead of ours goes with
        today: it cannot move itself out of retention's reach.
        """
        # flooring: numbers below zero are times before 1970
        days = rows.column(TIME).cast(pa.int64()).to_numpy() // DAY_MS
        limit = (today - day_of(0)).days
        lowest = (self._day - day_of(0)).days if self._day else 0
        days = np.maximum(np.maximum.accumulate(np.clip(days, 0, limit)), min(lowest, limit))
        starts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
        for start, stop in pairwise(starts):
            self._day = day_of(int(days[start]))
            yield self._day, rows.slice(start, stop - start)


def _day_of_claim(claim: Claim | None) -> date | None:
    parsed = parsed_path(claim.path) if claim else None
    return parsed[0] if parsed else None
