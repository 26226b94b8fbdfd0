"""How long requests wait for company: only while somebody may still join them.

That is while others are being received, or the loop is busy: on a quiet one a lone request does not wait.
"""

from collections.abc import Callable, Sequence

from app.pipeline.batcher import FixedWait
from app.records import Timed


class WhileExpected(FixedWait):
    """A `batcher.Pace`: up to `max_wait_s`, while `expected` says that somebody may still join."""

    def __init__(self, wait: FixedWait, expected: Callable[[], bool]) -> None:
        self._wait, self._expected = wait, expected

    def arrived(self, records: Sequence[Timed]) -> float:
        """The deadline to leave."""
        return self._wait.arrived(records)

    def wait_s(self, left_s: float, held: int) -> float:
        """All that is left, or nothing."""
        return self._wait.wait_s(left_s, held) if self._expected() else 0.0
