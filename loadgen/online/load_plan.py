"""How much is asked, and how fast."""

import math
from dataclasses import dataclass

from loadgen.errors import BadOption
from loadgen.pacing import Pace
from loadgen.producing import Extent


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """An open loop at `pace`; or, if the pace is none, `callers` that each ask again once answered.

    max_in_flight: of an open loop; what is due beyond it fails as not sent. warmup_s: what is due before it
    is sent and left out of the figures.
    """

    pace: Pace
    extent: Extent
    callers: int = 16
    max_in_flight: int = 10_000
    warmup_s: float = 0.0

    def __post_init__(self) -> None:
        if self.callers < 1:
            raise BadOption("--callers: 1 or more")
        if self.max_in_flight < 1:
            raise BadOption("--max-in-flight: 1 or more")
        if not 0 <= self.warmup_s < math.inf:
            raise BadOption("--warmup: seconds, 0 or more")
        if self.extent.duration_s is not None and self.warmup_s >= self.extent.duration_s:
            raise BadOption("--warmup: less than --duration, or nothing is measured")

    @property
    def total(self) -> int | None:
        """The number of requests; None where only time ends the run."""
        return self.extent.events if self.pace.unpaced else self.extent.paced_total(self.pace)

    def rows_asked(self, rows: int) -> int | None:
        """How many rows the run asks about, `rows` in each request; None where only time ends it."""
        return None if self.total is None else self.total * rows
