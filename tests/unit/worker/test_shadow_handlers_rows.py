"""A candidate's handler at fault fails the rows it fails on, or all of them, and never the shadow or stable."""

import pytest
from fakes import ManualClock
from handler_world import BAD, Odd, odd, raising, start
from small_pipeline import COLUMNS, model_of
from test_handled_rows import STEPS
from test_shadow_scoring import WRITER, rows_of_numbers

from app.worker.shadow_scoring import ShadowScorer


def scorer_with(kind):
    """A candidate that answers as stable did, with this handler; and what it published."""
    model, published = model_of("2"), []
    steps = start(kind, model)
    scorer = ShadowScorer(
        model, COLUMNS, WRITER, lambda values, keys: published.extend(values) or 0, ManualClock(), steps
    )
    return scorer, published


@pytest.fixture(autouse=True)
def _well_at_first(monkeypatch):
    monkeypatch.setattr(Odd, "always", False)


@pytest.mark.parametrize(("step", "stage", "act", "reason", "message"), STEPS)
def test_the_rows_it_fails_on_are_failed_and_the_others_compared(step, stage, act, reason, message):
    scorer, published = scorer_with(odd(**{step: act}))
    scorer.score(rows_of_numbers([1.0, 8.0]))
    compared = scorer.score(rows_of_numbers([1.0, BAD, 8.0, BAD]))
    assert (compared.agreed, compared.disagreed, compared.failed) == (2, 0, 2)
    assert len(published) == 6


@pytest.mark.parametrize("step", ["before", "after"])
def test_one_that_fails_on_everything_fails_all_rows_and_is_asked_again(step, monkeypatch):
    scorer, published = scorer_with(odd(**{step: raising(SystemExit(1))}))
    scorer.score(rows_of_numbers([1.0, 8.0]))
    monkeypatch.setattr(Odd, "always", True)
    compared = scorer.score(rows_of_numbers([1.0, 8.0]))
    assert (compared.agreed, compared.disagreed, compared.failed) == (0, 0, 2)
    monkeypatch.setattr(Odd, "always", False)
    assert scorer.score(rows_of_numbers([1.0, 8.0])).agreed == 2
    assert len(published) == 6
