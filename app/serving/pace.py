"""How long requests wait for company: only while somebody is on the way, so a lone one never waits."""

from collections.abc import Callable, Sequence

from app.pipeline.batcher import FixedWait
from app.records import Record


class WhileExpected(FixedWait):
    """A `batcher.Pace`: up to `max_wait_s`, while `expected` is above 0.

    expected: how many requests have begun to arrive and may still join.
    """

    def __init__(self, wait: FixedWait, expected: Callable[[], int]) -> None:
        self._wait, self._expected = wait, expected

    def arrived(self, records: Sequence[Record]) -> float:
        """The deadline to leave."""
        return self._wait.arrived(records)

    def wait_s(self, left_s: float, held: int) -> float:
        """All that is left, or nothing."""
        return self._wait.wait_s(left_s, held) if self._expected() else 0.0
