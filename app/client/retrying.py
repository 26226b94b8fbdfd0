"""When to ask again: pure decisions, the same for every surface, for threads and for asyncio.

Waits are drawn between nothing and a bound that doubles ("full jitter"), so that clients that failed together do not
come back together. And a client that mostly fails stops asking again: retries must not double the load of a server
that is in trouble.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.client.failures import ClientError, DeadlineExceeded, Retriable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """attempts: the first one included; 1 asks once. first_wait_s: bound of the first wait, doubled each time.

    longest_wait_s: what it is doubled to at most. budget: retries that a client may make in a row of failures; each
    call that succeeds earns `earned` of one back.
    """

    attempts: int = 4
    first_wait_s: float = 0.05
    longest_wait_s: float = 2.0
    budget: float = 10.0
    earned: float = 0.1

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts: 1 or more")
        if not (0 <= self.first_wait_s <= self.longest_wait_s < float("inf")):
            raise ValueError("first_wait_s and longest_wait_s: seconds, 0 or more, the first not above the longest")
        if not (self.budget >= 0 and self.earned >= 0):
            raise ValueError("budget and earned: 0 or more")


class RetryBudget:
    """What all calls of one client may still ask again. Calls on several threads may lose a fraction of a retry."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._left = policy.budget

    def succeeded(self) -> None:
        """A call was answered."""
        self._left = min(self._left + self._policy.earned, self._policy.budget)

    def take(self) -> bool:
        """Whether one more retry is allowed; it is counted."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Attempts:
    """One call: how much time is left for its next attempt, and what to do when that fails."""

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget,
        deadline_s: float,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """deadline_s: from now to the end of the last attempt. clock: seconds. chance: evenly in [0, 1)."""
        if not deadline_s > 0:
            raise ValueError(f"deadline_s {deadline_s!r}: seconds, more than 0")
        self._policy, self._budget, self._clock, self._chance = policy, budget, clock, chance
        self._until = clock() + deadline_s
        self._made = 0

    def begin(self) -> float:
        """Count an attempt; returns the seconds that it may take. Raises DeadlineExceeded if there are none left."""
        left = self._until - self._clock()
        if left <= 0:
            raise DeadlineExceeded(f"no time left after {self._made} attempts")
        self._made += 1
        return left

    def succeeded(self) -> None:
        """The attempt was answered."""
        self._budget.succeeded()

    def wait_after(self, error: ClientError) -> float:
        """Seconds to wait before the next attempt. Raises the error if there must not be one."""
        if not isinstance(error, Retriable) or self._made >= self._policy.attempts:
            raise error
        bound = min(self._policy.first_wait_s * 2.0 ** (self._made - 1), self._policy.longest_wait_s)
        wait_s = (error.retry_after_s or 0.0) + bound * self._chance()
        # one that would only be over when the time is: the caller rather knows now, and why
        if wait_s >= self._until - self._clock() or not self._budget.take():
            raise error
        return wait_s
