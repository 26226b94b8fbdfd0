"""Whether records that are there also come. Pure; the stream tells it what it sees.

faust's consumer can stop and say nothing, and so can a stage. Offsets of records alone do not show it: transaction
markers take offsets that no record ever has. So it is behind if the broker has more than was read, or if records were
read that are not durable; and for too long is what is wrong.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class _At:
    """One partition. next_*: offsets. since_s: of the last change of any of them; None before it was looked at."""

    end: int = 0
    position: int = 0
    next_fetched: int = 0
    next_finished: int = 0
    since_s: float | None = None


class Progress:
    """By topic and partition of ours."""

    def __init__(self, stalled_s: float) -> None:
        self._stalled_s = stalled_s
        self._at: dict[tuple[str, int], _At] = {}
        self._changed: set[tuple[str, int]] = set()

    def begin_anew(self) -> None:
        """The assignment changed: nothing is known."""
        self._at.clear()
        self._changed.clear()

    def fetched(self, topic: str, partition: int, offset: int) -> None:
        """A record was read, and is in an inbox."""
        at = self._at.setdefault((topic, partition), _At())
        at.next_fetched = offset + 1
        self._changed.add((topic, partition))

    def finished(self, topic: str, partition: int, offset: int) -> None:
        """All of it is durable, up to this record."""
        at = self._at.setdefault((topic, partition), _At())
        at.next_finished = offset + 1
        self._changed.add((topic, partition))

    def look(self, topic: str, partition: int, end: int | None, position: int | None, now_s: float) -> None:
        """The end that may be read, as the broker says, and what is read next; None if that is not known."""
        at = self._at.setdefault((topic, partition), _At())
        end, position = end if end is not None else at.end, position if position is not None else at.position
        moved = position != at.position or (topic, partition) in self._changed or at.since_s is None
        caught_up = at.end <= at.position and at.next_finished >= at.next_fetched
        if moved or caught_up:
            at.since_s = now_s
        at.end, at.position = end, position
        self._changed.discard((topic, partition))

    def lag(self) -> dict[tuple[str, int], int]:
        """Records between what is durable and the end; markers count until a record follows them."""
        return {
            where: max(0, at.end - (at.position if at.next_finished >= at.next_fetched else at.next_finished))
            for where, at in self._at.items()
            if at.since_s is not None
        }

    def wrong(self, now_s: float) -> str | None:
        """What has not moved for too long, or None."""
        for (topic, partition), at in self._at.items():
            if at.since_s is None:
                continue
            behind = at.end > at.position or at.next_fetched > at.next_finished
            if behind and now_s - at.since_s > self._stalled_s:
                return (
                    f"{topic} {partition} has not moved for {now_s - at.since_s:.0f} s: finished up to "
                    f"{at.next_finished}, fetched up to {at.next_fetched}, read up to {at.position}, of {at.end}"
                )
        return None
