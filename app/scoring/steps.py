"""What a pipeline of the worker does beside what its model's manifest says: with the same steps, the same answers."""

from dataclasses import dataclass, field

import pyarrow as pa

from app.answering.asking import FallbackPolicy
from app.errors import BadSettings
from app.pipeline.infer import OutputPolicy

RETRY_S = 10.0  # as `pipelines[].fallback.retry_s`


@dataclass(frozen=True, slots=True)
class Steps:
    """Can be sent to another process.

    handler: `package.module:Class`, importable wherever rows are scored. event: the columns of the events that it is
    given, which a handler cannot do without. event_schema: the one that all versions have to be for; None if that
    does not matter, because a pipeline names it. fallback: who answers in place of a version at fault.
    retry_s: a version that failed is left alone for so long. Raises BadSettings for a handler without events.
    """

    handler: str | None = None
    event: pa.Schema | None = None
    event_schema: str | None = None
    outputs: OutputPolicy = field(default_factory=OutputPolicy)
    fallback: FallbackPolicy = field(default_factory=FallbackPolicy)
    retry_s: float = RETRY_S

    def __post_init__(self) -> None:
        if self.handler is not None and self.event is None:
            raise BadSettings(f"handler {self.handler!r}: no events are named whose columns it could be given")

    @property
    def chain(self) -> str:
        """The fallback chain, in words: who is asked, in order, and what becomes of rows that nobody answers."""
        asked = {"previous": self.fallback.previous, "constant": self.fallback.constant}
        return ", ".join([*(name for name, wanted in asked.items() if wanted), self.fallback.then])
