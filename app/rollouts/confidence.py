"""Bounds of a rate that hold at every look at once: looking more often makes nothing less sure.

Robbins' mixture. For each rate p, the likelihood of the counts averaged over a Beta(1/2, 1/2) prior, divided by their
likelihood under p, is a nonnegative martingale that starts at 1 if p is the true rate. By Ville's inequality it ever
reaches 1/alpha with a probability of at most alpha, so the rates where it has not are a confidence sequence: with
probability 1 - alpha they contain the true one at all times. It is exact at any number of rows, and takes two counts.

Sources: H. Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Statist. 41 (1970);
S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Ann. Statist. 49 (2021), arXiv:1810.08240; R. Johari, P. Koomen, L. Pekelis, D. Walsh, "Always valid inference:
continuous monitoring of A/B tests", Operations Research 70 (2022), arXiv:1512.04922.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import lgamma, log

PRIOR = 0.5  # of both sides: failures are rare, and half of this prior's weight lies at rates near 0 or 1
HALVINGS = 50  # of an interval within [0, 1]: 1e-15


@dataclass(frozen=True, slots=True)
class Interval:
    """From low to high, both included."""

    low: float
    high: float


ANYTHING = Interval(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Rate:
    """`events` of `trials`, 0 <= events <= trials."""

    events: int
    trials: int

    @property
    def share(self) -> float:
        """The rate as counted; 0.0 of nothing."""
        return self.events / self.trials if self.trials else 0.0

    @property
    def rest(self) -> "Rate":
        """The rate of the opposite."""
        return Rate(self.trials - self.events, self.trials)


def rate_within(rate: Rate, alpha: float) -> Interval:
    """Contains the true rate at all looks together with probability 1 - alpha. alpha: above 0, below 1."""
    events, others = rate.events, rate.trials - rate.events
    if rate.trials <= 0:
        return ANYTHING
    # log of the mixture's likelihood, and what a rate's own must not fall short of
    mixture = _log_beta(PRIOR + events, PRIOR + others) - _log_beta(PRIOR, PRIOR)
    least = mixture + log(alpha)

    def possible(p: float) -> bool:
        return (events * log(p) if events else 0.0) + (others * log(1.0 - p) if others else 0.0) >= least

    # the log-likelihood is concave with its peak at the counted share, which is always possible
    low = 0.0 if events == 0 else _edge(possible, inside=rate.share, outside=0.0)
    high = 1.0 if others == 0 else _edge(possible, inside=rate.share, outside=1.0)
    return Interval(low, high)


def difference_within(one: Rate, other: Rate, alpha: float) -> Interval:
    """Contains the true `one` minus the true `other`, at all looks together, with probability 1 - alpha.

    The two may be looked at after any number of rows of each: half of alpha goes to either.
    """
    first, second = rate_within(one, alpha / 2), rate_within(other, alpha / 2)
    return Interval(first.low - second.high, first.high - second.low)


def _edge(possible: Callable[[float], bool], *, inside: float, outside: float) -> float:
    """Where `possible` ends between the two, on the outer side, so that rounding only widens."""
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        if middle in {inside, outside}:
            break
        if possible(middle):
            inside = middle
        else:
            outside = middle
    return outside


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
