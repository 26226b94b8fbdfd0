"""faust's recovery of tables, whose end is not lost.

faust reads changelogs in one task and waits for the end of that in another. What says that it is over is an event which
the reader sets and clears in one breath: if the other one does not wait yet, because the consumer is still being woken
up, it waits for ever, and the partitions stay as they are (docs/decisions/0007).
"""

import asyncio
from typing import Any

from faust.tables.recovery import Recovery


class _Over(asyncio.Event):
    """Cleared by a new beginning only."""

    def clear(self) -> None:
        """Faust's reader does that before each record."""

    def begin_anew(self) -> None:
        """Nothing is over yet."""
        super().clear()


class SteadyRecovery(Recovery):
    """Tells of the end also to who asks for it later."""

    _over: _Over | None = None

    @property
    def signal_recovery_end(self) -> Any:  # noqa: ANN401 - faust's name for an event of asyncio
        """Set from the end of a recovery to the next one's beginning."""
        if self._over is None:
            self._over = _Over()
        return self._over

    def _set_recovery_started(self) -> None:
        self.signal_recovery_end.begin_anew()
        super()._set_recovery_started()
