"""How requests share batches, as settings say it."""

from dataclasses import dataclass, field

from app.answering.asking import FallbackPolicy
from app.pipeline.infer import OutputPolicy


@dataclass(frozen=True, slots=True)
class OnlinePolicy:
    """How requests share batches, and how much may wait.

    max_rows: of one batch. max_wait_s: how long a request waits for others that are on their way. slo_s: instead of
    max_wait_s, how old a request may be when it is answered; batches wait for company as long as that allows.
    most_waiting_rows: more are refused as Overloaded. most_request_rows: of one request.
    outputs, fallback: as in the stream.
    """

    max_rows: int = 512
    max_wait_s: float = 0.002
    slo_s: float | None = None
    most_waiting_rows: int = 20_000
    most_request_rows: int = 10_000
    outputs: OutputPolicy = field(default_factory=OutputPolicy)
    fallback: FallbackPolicy = field(default_factory=FallbackPolicy)
