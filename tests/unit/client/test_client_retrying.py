"""When the client asks again: never past its deadline, never more than allowed, never what cannot help."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.client.failures import (
    BadAnswer,
    BadRequest,
    ClientError,
    DeadlineExceeded,
    NotAllowed,
    NotFound,
    NotServing,
    Overloaded,
    ServerFailed,
    Unreachable,
)
from app.client.retrying import Attempts, RetryBudget, RetryPolicy

POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 8),
    first_wait_s=st.floats(0, 1),
    longest_wait_s=st.floats(1, 5),
    budget=st.floats(0, 20),
)


class Time:
    """A clock that a test moves, and chance that is always the same."""

    def __init__(self, chance=0.5):
        self.now, self._chance = 100.0, chance

    def clock(self):
        return self.now

    def chance(self):
        return self._chance

    def attempts(self, policy, deadline_s, budget=None):
        return Attempts(policy, budget or RetryBudget(policy), deadline_s, self.clock, self.chance)


@given(
    POLICIES,
    st.floats(0.01, 30),
    st.floats(0, 0.999),
    st.lists(st.tuples(st.floats(0, 5), st.none() | st.floats(0, 10)), min_size=10, max_size=10),
)
def test_no_wait_and_no_attempt_goes_past_the_deadline_and_attempts_are_bounded(policy, deadline_s, chance, turns):
    time = Time(chance)
    attempts, made = time.attempts(policy, deadline_s), 0
    for takes_s, retry_after_s in turns:  # more than any policy here allows
        try:
            left_s = attempts.begin()
            made += 1
            time.now += min(takes_s, left_s)
            wait_s = attempts.wait_after(Overloaded("full", retry_after_s=retry_after_s))
        except ClientError:
            break
        assert 0 < left_s <= deadline_s + 1e-9
        assert (retry_after_s or 0.0) <= wait_s <= (retry_after_s or 0.0) + policy.longest_wait_s
        assert time.now + wait_s < 100.0 + deadline_s
        time.now += wait_s
    else:
        pytest.fail("it never gave up")
    assert 1 <= made <= policy.attempts
    assert made <= 1 + policy.budget


def test_waits_double_up_to_their_bound():
    time = Time(chance=1.0)
    attempts = time.attempts(RetryPolicy(attempts=6, first_wait_s=0.1, longest_wait_s=0.5), 60)
    waits = []
    for _ in range(5):
        attempts.begin()
        waits.append(attempts.wait_after(Unreachable("reset")))
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


@pytest.mark.parametrize("kind", [BadRequest, NotAllowed, NotFound, ServerFailed, BadAnswer, DeadlineExceeded])
def test_what_would_fail_again_is_not_asked_again(kind):
    attempts = Time().attempts(RetryPolicy(), 60)
    attempts.begin()
    with pytest.raises(kind):
        attempts.wait_after(kind("so"))


@pytest.mark.parametrize("kind", [Overloaded, NotServing, Unreachable])
def test_what_fails_by_chance_is_asked_again(kind):
    attempts = Time().attempts(RetryPolicy(), 60)
    attempts.begin()
    assert attempts.wait_after(kind("so")) >= 0


def test_a_server_that_says_later_than_there_is_time_is_believed_at_once():
    attempts = Time().attempts(RetryPolicy(), 5)
    attempts.begin()
    with pytest.raises(Overloaded):
        attempts.wait_after(Overloaded("full", retry_after_s=6))


def test_a_client_that_only_fails_stops_asking_again_and_success_earns_it_back():
    policy, time = RetryPolicy(budget=2, earned=0.5), Time()
    budget = RetryBudget(policy)

    def retried():
        attempts = time.attempts(policy, 60, budget)
        attempts.begin()
        try:
            attempts.wait_after(NotServing("no model"))
        except NotServing:
            return False
        return True

    assert [retried() for _ in range(4)] == [True, True, False, False]
    for _ in range(2):
        time.attempts(policy, 60, budget).succeeded()
    assert [retried() for _ in range(2)] == [True, False]


@pytest.mark.parametrize("deadline_s", [0, -1, float("nan")])
def test_a_deadline_that_is_none_is_refused(deadline_s):
    with pytest.raises(ValueError, match="deadline_s"):
        Time().attempts(RetryPolicy(), deadline_s)


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"first_wait_s": -1},
        {"first_wait_s": 3.0, "longest_wait_s": 2.0},
        {"longest_wait_s": float("inf")},
        {"budget": -1},
        {"earned": float("nan")},
    ],
)
def test_an_impossible_policy_is_refused(options):
    with pytest.raises(ValueError, match="or more"):
        RetryPolicy(**options)
