"""What a run sends its requests to, and the words for what becomes of one."""

from dataclasses import dataclass
from typing import Protocol

ANSWERED = "answered"

# What can become of a request besides an answer and the server's own status ("429", "UNAVAILABLE").
TIMEOUT = "timeout"  # no whole answer within the time allowed
CONNECTION = "connection"  # refused, reset or ended before the answer was whole
BAD_ANSWER = "bad answer"  # status says success, the content is not a prediction for every instance
NOT_SENT = "not sent"  # as many requests were in flight as the run allows


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request. version: the model version that answered, where the answer names one."""

    outcome: str
    version: str | None = None


class Target(Protocol):
    """A server, and what it is asked."""

    rows: int  # in each request
    description: str  # for the report: what is asked of whom

    async def open(self) -> None:
        """Connect, and ask once. Raises ServerFailed if there is no answer."""

    async def ask(self, number: int) -> Reply:
        """Send request `number` and return what became of it; never raises for what a server may do."""

    async def close(self) -> None:
        """Give the connections back."""
