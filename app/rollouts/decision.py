"""Promote, hold or roll back: a rollout page and what its versions did → one decision with its reason. Pure.

Each version beside stable has to pass four guards (`app.models.guards`):

errors         its share of failed rows less stable's: shown to be above the allowance → roll back, shown to be within
               it → promote, neither → not known yet, hold
latency        a batch's time in the model, at three quantiles: one of them shown to be above `latency_ratio` times
               stable's → roll back; the mean above it, while nothing is shown → hold; up to a millisecond all are alike
disagreement   rows that stable answers otherwise: counted where both answered, else by the shares of the predicted
               classes (both see keys drawn alike, so shares that differ by d mean that a share d of rows at least is
               answered otherwise): shown to be above the allowance → roll back; counted above it → hold
accuracy       share of right answers less than stable's, once outcomes are known: as disagreement. A step
               ends well with `min_outcomes` of each; by default it waits for none

What a worker cannot even use (in `UNUSABLE_LOOKS` looks, or a shadow that it gave up) is rolled back without any rows.

"Shown" is by confidence sequences (`confidence`), which may be looked at all the time. `alpha` is split evenly
between the steps (or arms) of a rollout and the guards, so it bounds the whole. Only rows since the step began
count: the share changes with each step and so may the traffic, and added up over steps a version can look worse than
it was in any of them (Simpson's paradox; T. Crook, B. Frasca, R. Kohavi, R. Longbotham, "Seven pitfalls to avoid when
running controlled experiments on the web", KDD 2009). A step with 100 % has no stable beside it: stable's errors
and latency are those from before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf, isfinite
from typing import Literal

from app.models.guards import Guards
from app.models.rollout import AbRollout, CanaryRollout, Rollout, ShadowRollout
from app.rollouts.confidence import Rate, difference_within, rate_within
from app.rollouts.measurements import Counts, Unusable

GUARDS = 4  # alpha is split between them
QUANTILES = {"median": 0.5, "90th percentile": 0.9, "95th percentile": 0.95}  # of a batch's time in the model
NEGLIGIBLE_S = 0.001  # of a batch in the model: less than this is a tenth of what a batch waits for, by default
UNUSABLE_LOOKS = 3  # in which a worker had failed anew: half a minute, by default, is no moment's trouble any more
LEAST_BATCHES = 50  # of either, before times are compared: the first few after loading a model are slow

Verdict = Literal["promote", "hold", "roll_back", "nothing"]
NOTHING = Counts()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured since the step began.

    versions: version → what it did. before: what stable did before, if that is known.
    measured_s: how long every worker was measured. missing: what is not known now, in words; empty if nothing.
    unusable: version → the worker that has most trouble with it.
    """

    versions: Mapping[str, Counts]
    before: Counts
    measured_s: float
    missing: Sequence[str] = ()
    unusable: Mapping[str, Unusable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why. overdue: it should have been known by now, a person has to look."""

    verdict: Verdict
    reason: str
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one guard says of one version: worse, fine, or open."""

    says: Literal["worse", "fine", "open"]
    words: str


@dataclass(frozen=True, slots=True)
class _Side:
    """A version in a comparison, as it is called in reasons. beside: measured at the same time as the other."""

    name: str
    counts: Counts
    beside: bool = True
    unusable: Unusable | None = None


def decide(page: Rollout, evidence: Evidence, now: datetime) -> Decision:
    """Judge what runs beside stable.

    A page that a person holds is never changed: the decision says what would be done.
    """
    decision = _judged(page, evidence, now)
    if page.held and decision.verdict != "nothing":
        last = page.history[-1]
        would = f"otherwise {decision.verdict.replace('_', ' ')}: {decision.reason}"
        return Decision("hold", f"{last.who} has taken over at revision {last.revision}; {would}")
    return decision


def _judged(page: Rollout, evidence: Evidence, now: datetime) -> Decision:
    if not isinstance(page, CanaryRollout | ShadowRollout | AbRollout):
        return Decision("nothing", f"{page.words}: nothing is being tried out")
    if isinstance(page, AbRollout) and page.stable not in {arm.version for arm in page.variants}:
        return Decision("hold", f"no arm has the stable version {page.stable}: there is nothing to compare with")
    beside, stable = _beside(page, evidence), _stable(page, evidence)
    parts = len(page.steps) if isinstance(page, CanaryRollout) else len(beside)
    alpha = page.guards.alpha / (GUARDS * max(parts, 1))
    findings = [found for side in beside for found in (_use(side), *_findings(side, stable, page.guards, alpha))]
    if worse := [found.words for found in findings if found.says == "worse"]:
        return Decision("roll_back", "; ".join(worse))
    waits = [*evidence.missing, *_too_few(beside, stable, page.guards)]
    waits += [found.words for found in findings if found.says == "open"]
    fine = "; ".join(found.words for found in findings if found.words)
    if isinstance(page, CanaryRollout):
        return _next_step(page, evidence.measured_s, waits, fine, now)
    return Decision("hold", f"{'; '.join(waits) or fine}; more than that is for a person to decide")


def _next_step(page: CanaryRollout, measured_s: float, waits: Sequence[str], fine: str, now: datetime) -> Decision:
    """Nothing is worse: the next step, if it is time."""
    hold_s = page.steps[page.step].hold_s
    early = [f"measured for {measured_s:.0f} of {hold_s:g} s"] if measured_s < hold_s else []
    reason = "; ".join([*early, *waits])
    if not reason:
        return Decision("promote", fine)
    age_s = (now - page.since).total_seconds()
    if age_s <= max(page.guards.max_step_s, hold_s):
        return Decision("hold", reason)
    return Decision("hold", f"not decided {age_s / 3600:.1f} h after the step began: {reason}", overdue=True)


def _beside(page: CanaryRollout | ShadowRollout | AbRollout, evidence: Evidence) -> list[_Side]:
    """Everyone but stable."""
    if isinstance(page, AbRollout):
        names = {arm.version: arm.name for arm in page.variants if arm.version != page.stable}
    else:
        names = {page.candidate: page.strategy}
    return [
        _Side(f"{name} {version}", evidence.versions.get(version, NOTHING), unusable=evidence.unusable.get(version))
        for version, name in names.items()
    ]


def _stable(page: Rollout, evidence: Evidence) -> _Side:
    """Stable as it does beside the others; as it did before where all keys are the canary's."""
    if isinstance(page, CanaryRollout) and page.percent == 100.0:
        return _Side(f"stable {page.stable} before this step", evidence.before, beside=False)
    return _Side(f"stable {page.stable}", evidence.versions.get(page.stable, NOTHING))


def _too_few(beside: Sequence[_Side], stable: _Side, guards: Guards) -> list[str]:
    """Rows, and outcomes if the guards ask for any."""
    few = [
        f"{side.counts.rows:,} of {guards.min_rows:,} rows of {side.name}"
        for side in (*beside, stable)
        if side.counts.rows < guards.min_rows
    ]
    return few + [
        f"{side.counts.judged:,} of {guards.min_outcomes:,} outcomes of {side.name}"
        for side in (*beside, stable)
        if side.counts.judged < guards.min_outcomes
    ]


def _use(side: _Side) -> _Finding:
    """Whether workers can use it at all."""
    found = side.unusable
    if found is None:
        return _Finding("fine", "")
    if found.given_up:
        return _Finding("worse", f"{side.name} was given up by {found.worker}: {found.error}")
    words = f"{side.name} cannot be used by {found.worker}: {found.error}, in {found.looks}"
    if found.looks >= UNUSABLE_LOOKS:
        return _Finding("worse", f"{words} looks")
    return _Finding("open", f"{words} of {UNUSABLE_LOOKS} looks")


def _findings(side: _Side, stable: _Side, guards: Guards, alpha: float) -> list[_Finding]:
    return [
        _errors(side, stable, guards.error_rate_increase, alpha),
        _latency(side, stable, guards.latency_ratio, alpha),
        *_disagreement(side, stable, guards, alpha),
        *_accuracy(side, stable, guards.accuracy_drop, alpha),
    ]


def _errors(side: _Side, stable: _Side, allowed: float, alpha: float) -> _Finding:
    more = difference_within(side.counts.errors, stable.counts.errors, alpha)
    counted = f"errors: {_share(side.counts.errors)} of {side.name}, {_share(stable.counts.errors)} of {stable.name}"
    if more.low > allowed:
        return _Finding("worse", f"{counted}; at least {_points(more.low)} more, allowed {_points(allowed)}")
    if more.high > allowed:
        return _Finding("open", f"{counted}; perhaps {_points(more.high)} more, allowed {_points(allowed)}")
    return _Finding("fine", f"{counted}; at most {_points(more.high)} more, allowed {_points(allowed)}")


def _latency(side: _Side, stable: _Side, allowed: float, alpha: float) -> _Finding:
    """Per batch. A version with larger batches than stable's may take longer by as much; smaller ones gain nothing."""
    own, its = side.counts, stable.counts
    few = [f"{one.counts.batches} of {LEAST_BATCHES} batches of {one.name}" for one in (side, stable)
           if one.counts.batches < LEAST_BATCHES]  # fmt: skip
    if few:
        return _Finding("open", f"latency: {', '.join(few)}")
    fair = max(1.0, (own.rows / own.batches) / max(its.rows / its.batches, 1.0))
    mean, its_mean = own.seconds / own.batches, its.seconds / its.batches
    counted = f"latency: {_ms(mean)} a batch of {side.name}, {_ms(its_mean)} of {stable.name}"
    limit = f"allowed {allowed * fair:.3g} times" + (f" for {fair:.3g} times the rows" if fair > 1.05 else "")
    bounds = sorted(bound for bound in own.within.keys() & its.within.keys() if isfinite(bound))
    level = alpha / (2 * max(len(bounds), 1))  # holds for all bounds of both at once, and so for every quantile
    within = {b: rate_within(Rate(own.within[b], own.batches), level).high for b in bounds}
    its_within = {b: rate_within(Rate(its.within[b], its.batches), level).low for b in bounds}
    for name, quantile in QUANTILES.items():
        over = max((b for b in bounds if within[b] < quantile), default=0.0)
        under = min((b for b in bounds if its_within[b] > quantile), default=inf)
        if over > max(allowed * fair * under, NEGLIGIBLE_S):
            return _Finding("worse", f"{counted}; {name} above {_ms(over)}, stable's below {_ms(under)}, {limit}")
    suspicious = mean > max(allowed * fair * its_mean, NEGLIGIBLE_S)
    return _Finding("open" if suspicious else "fine", f"{counted}; {limit}")


def _disagreement(side: _Side, stable: _Side, guards: Guards, alpha: float) -> list[_Finding]:
    """Nothing where neither rows that both answered nor classes are known."""
    allowed = guards.disagreement
    if side.counts.compared:
        rate = Rate(side.counts.differing, side.counts.compared)
        counted = f"disagreement: {_share(rate)} of {side.name}"
        least = rate_within(rate, alpha).low
        suspicious = rate.share > allowed
    else:
        classes = sorted(side.counts.classes.keys() | stable.counts.classes.keys())
        few = min(side.counts.predictions, stable.counts.predictions) < guards.min_rows
        if len(classes) < 2 or few or not stable.beside:
            return []
        least = _least_distance(side.counts, stable.counts, classes, alpha)
        counted, suspicious = f"disagreement: by the predicted classes of {side.name} and {stable.name}", False
    if least > allowed:
        return [_Finding("worse", f"{counted}, at least {_percent(least)}, allowed {_percent(allowed)}")]
    return [_Finding("open" if suspicious else "fine", f"{counted}, allowed {_percent(allowed)}")]


def _least_distance(one: Counts, other: Counts, classes: Sequence[str], alpha: float) -> float:
    """The total variation distance of the predicted classes is at least this."""
    within = [
        difference_within(
            Rate(one.classes.get(name, 0), one.predictions),
            Rate(other.classes.get(name, 0), other.predictions),
            alpha / len(classes),
        )
        for name in classes
    ]
    return max(sum(max(0.0, each.low) for each in within), sum(max(0.0, -each.high) for each in within))


def _accuracy(side: _Side, stable: _Side, allowed: float, alpha: float) -> list[_Finding]:
    """Nothing until outcomes are known of both."""
    own, its = Rate(side.counts.right, side.counts.judged), Rate(stable.counts.right, stable.counts.judged)
    if not (own.trials and its.trials):
        return []
    less = difference_within(its, own, alpha)
    counted = f"accuracy: {_share(own)} of {side.name}, {_share(its)} of {stable.name}"
    if less.low > allowed:
        return [_Finding("worse", f"{counted}; at least {_points(less.low)} less, allowed {_points(allowed)}")]
    says: Literal["open", "fine"] = "open" if its.share - own.share > allowed else "fine"
    return [_Finding(says, f"{counted}; allowed {_points(allowed)} less")]


def _share(rate: Rate) -> str:
    return f"{rate.events:,}/{rate.trials:,} ({_percent(rate.share)})"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _points(share: float) -> str:
    return f"{share * 100:.3g} points"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
