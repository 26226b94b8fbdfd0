"""Rollout pages as tests want them; `put` makes one the page in force, as a command would."""

from datetime import UTC, datetime
from pathlib import Path

from app.models.rollout import (
    AbRollout,
    Arm,
    BlueGreenRollout,
    CanaryRollout,
    CanaryStep,
    RolloutChange,
    ShadowRollout,
    StableRollout,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _common(strategy, stable, revision, model, previous):
    change = RolloutChange(revision=revision, at=NOW, who="test", why="because", strategy=strategy, stable=stable)
    return {"model": model, "revision": revision, "stable": stable, "previous": previous, "history": (change,)}


def stable_page(version, revision=1, *, model="churn", previous=None):
    """`version` answers everything."""
    return StableRollout(**_common("stable", version, revision, model, previous))


def blue_green_page(version, standby, revision=1, *, model="churn", previous=None):
    """`standby` waits."""
    return BlueGreenRollout(**_common("blue_green", version, revision, model, previous), standby=standby)


def canary_page(version, candidate, percent, revision=1, *, model="churn", previous=None, salt="salt"):
    """`candidate` has this share of the keys."""
    step = CanaryStep(percent=percent, hold_s=0)
    common = _common("canary", version, revision, model, previous)
    return CanaryRollout(**common, candidate=candidate, steps=(step,), since=NOW, salt=salt)


def ab_page(version, arms, revision=1, *, model="churn", previous=None, salt="salt"):
    """arms: name → (version, weight)."""
    variants = tuple(Arm(name=name, version=arm, weight=weight) for name, (arm, weight) in arms.items())
    return AbRollout(**_common("ab", version, revision, model, previous), variants=variants, salt=salt)


def put(store, page):
    """The page in force in a store that is a folder, from one moment to the next."""
    target = Path(store) / page.model / "rollout.json"
    new = target.with_suffix(".new")
    new.write_text(page.model_dump_json())
    new.replace(target)


def shadow_page(version, candidate, revision=1, *, model="churn", previous=None, percent=100.0, budget_s=1.0):
    """`candidate` is asked beside `version`, which answers."""
    common = _common("shadow", version, revision, model, previous)
    return ShadowRollout(**common, candidate=candidate, percent=percent, budget_s=budget_s)
