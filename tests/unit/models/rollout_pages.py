"""Rollouts for tests: a first page, orders at a clock that moves, and a page of every strategy."""

from datetime import UTC, datetime, timedelta

from app.models import rollout_changes as changes
from app.models.rollout import first_rollout

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def first(version="1"):
    return first_rollout("hand", version, at=NOW, who="a test")


def order(why="because", *, who="me@here", automatic=False, minutes=1):
    return changes.Order(NOW + timedelta(minutes=minutes), who, why, automatic)


def of_every_strategy(stable="2", other="3"):
    """With `previous`, version 1."""
    page = changes.promote(first(), stable, order())
    return {
        "stable": page,
        "blue_green": changes.start_blue_green(page, other, order()),
        "canary": changes.start_canary(page, other, [(5, 60), (50, 60), (100, 0)], order()),
        "ab": changes.start_ab(page, [("plain", stable, 1), ("boosted", other, 3)], order()),
        "shadow": changes.start_shadow(page, other, order(), percent=10),
    }
