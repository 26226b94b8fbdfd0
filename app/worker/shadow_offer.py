"""Which rows of a batch that stable answered are a shadow's to score as well, and what it is told of them.

What is done on the stream thread reads keys and nothing else of a record; the columns are put together by whoever
packs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.answering.asking import Reply
from app.records import Origin, Record
from app.worker.chain import Answered
from app.worker.shadow_line import ShadowRows
from app.worker.side_by_side import answer_of

STABLE = "stable"


class ShadowPage(Protocol):
    """The rollout page of a shadow."""

    @property
    def revision(self) -> int:
        """Rises with each change."""
        ...

    @property
    def candidate(self) -> str:
        """The version beside stable."""
        ...

    @property
    def percent(self) -> float:
        """The share of keys that it is asked about."""
        ...

    @property
    def budget_s(self) -> float:
        """Of time a second that this may take."""
        ...

    def shadowed(self, keys: Sequence[bytes | None]) -> npt.NDArray[np.bool_]:
        """Which records the candidate is to score as well, (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """A batch of which `count` rows are to be compared; keys: of all rows answered. chosen: None for all of them."""

    page: ShadowPage
    reply: Reply
    origin: Origin
    keys: list[bytes | None]
    chosen: npt.NDArray[np.bool_] | None
    count: int

    def rows(self) -> ShadowRows:
        """The chosen rows, in columns."""
        reply, origin = self.reply, self.origin
        rows, columns = reply.inference.rows, reply.part.columns
        answer = answer_of(reply.inference, reply.lane.answerer.model.outputs)
        keys = pa.array(self.keys, pa.binary())
        if self.chosen is not None:
            at = np.flatnonzero(self.chosen)
            rows, answer, keys = rows[at], answer.of(at), keys.take(pa.array(at))
        events = columns.table
        if len(rows) != len(columns.rows):
            events = events.take(pa.array(np.searchsorted(columns.rows, rows)))
        answerer = reply.lane.answerer
        return ShadowRows(
            events, keys, origin.sources, origin.source[rows], origin.offsets[rows], origin.timestamps_ms[rows],
            answer, answerer.model.version, answerer.rollout_revision,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows of a batch that a page asks its candidate about, at least one. keys: None if nobody had to look at them."""

    page: ShadowPage
    answered: Answered
    keys: list[bytes | None] | None
    rows: npt.NDArray[np.bool_] | None
    count: int

    def offer(self) -> Offer:
        """What of the batch is needed, so that its records can go."""
        (reply,) = self.answered.replies
        keys = self.keys or _keys(self.answered.prepared.batch.records, reply)
        return Offer(self.page, reply, self.answered.prepared.origin, keys, self.rows, self.count)


def chosen_of(answered: Answered, page: ShadowPage) -> Chosen | None:
    """None unless stable alone answered, under this page, and some of its rows are the candidate's as well."""
    if len(answered.replies) != 1:
        return None
    (reply,) = answered.replies
    answerer, rows = reply.lane.answerer, reply.inference.rows
    if answerer.rollout_revision != page.revision or answerer.answered_by != STABLE or not len(rows):
        return None
    if page.percent >= 100:
        return Chosen(page, answered, None, None, len(rows))
    keys = _keys(answered.prepared.batch.records, reply)
    chosen = page.shadowed(keys)
    count = int(np.count_nonzero(chosen))
    return Chosen(page, answered, keys, chosen, count) if count else None


def _keys(records: Sequence[Record], reply: Reply) -> list[bytes | None]:
    return [records[row].key() for row in reply.inference.rows.tolist()]
