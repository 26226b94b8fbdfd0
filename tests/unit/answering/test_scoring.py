"""Where the model is asked, and about how many batches at a time."""

import threading
from queue import SimpleQueue

import pytest
from fakes import ManualClock

from app.answering.scoring import MOST_ROWS, MOST_TOGETHER, QUICK_S, TAKE_S, TOGETHER_S, Scoring

ROWS = 512


class Model:
    """Takes so long for each row; says on which thread it was asked."""

    def __init__(self, row_s=0.0, run_rows=MOST_ROWS, runs_at_once=1):
        self.run_rows, self.runs_at_once = run_rows, runs_at_once
        self.clock, self.row_s = ManualClock(), row_s
        self.release = threading.Event()
        self.release.set()
        self.scoring = Scoring(self.answer, "churn", self.clock, run_rows=run_rows, runs_at_once=runs_at_once)

    def answer(self, rows):
        assert self.release.wait(30.0)
        runs = [min(self.run_rows, rows - start) for start in range(0, rows, self.run_rows)]
        self.clock.advance(sum(runs[:: self.runs_at_once]) * self.row_s)  # the first of each round is its longest
        return threading.current_thread().name

    def ask(self, rows):
        self.scoring.submit(rows, rows)
        answer = self.scoring.take(30.0)
        assert answer is not None
        return "here" if answer == threading.current_thread().name else answer


def test_a_model_nobody_knows_is_asked_on_a_thread_and_about_one_batch():
    model = Model()
    assert model.scoring.together(ROWS, 0.0) == 1
    assert model.ask(ROWS) == "scoring-churn"
    model.scoring.close()


def test_an_answer_is_counted_before_anybody_hears_of_it():
    """Or who asks again at once finds the thread busy that is not."""
    model, counted = Model(), []

    class Heard(SimpleQueue):
        def put(self, item):
            counted.append(model.scoring._handed == model.scoring._done)
            super().put(item)

    model.scoring._answers = Heard()
    assert model.ask(ROWS) == "scoring-churn"
    assert counted == [True]
    model.scoring.close()


def test_a_quick_model_is_asked_at_once_about_as_many_batches_as_may_go_together():
    model = Model()
    model.ask(ROWS)
    assert model.ask(ROWS) == "here"
    assert model.scoring.together(ROWS, 0.0) == MOST_TOGETHER
    assert model.scoring.together(1_500, 0.0) == 5  # more rows would be too many
    model.scoring.close()


@pytest.mark.parametrize(("runs_at_once", "together"), [(1, 1), (2, 2), (4, 4), (16, 16)])
def test_of_a_model_that_works_on_several_batches_side_by_side_more_go_together(runs_at_once, together):
    """One takes 25 ms of 40; so do two on two processors, and a third would have to wait for one of them."""
    model = Model(row_s=TOGETHER_S / 1.6 / ROWS, run_rows=ROWS, runs_at_once=runs_at_once)
    for batches in (1, together, 1):
        model.ask(batches * ROWS)
        assert model.scoring.together(ROWS, 0.0) == together
    model.scoring.close()


def test_a_model_that_is_not_quick_is_asked_on_the_thread():
    model = Model(row_s=2 * QUICK_S / ROWS)
    model.ask(ROWS)
    assert model.ask(ROWS) == "scoring-churn"
    model.scoring.close()


@pytest.mark.parametrize(("batch_s", "together"), [(TOGETHER_S, 1), (TOGETHER_S / 3.5, 3), (TOGETHER_S / 40, 16)])
def test_batches_go_together_if_the_model_answers_them_soon(batch_s, together):
    model = Model(row_s=batch_s / ROWS)
    model.ask(ROWS)
    assert model.scoring.together(ROWS, 0.0) == together
    model.scoring.close()


def test_batches_go_together_if_all_steps_are_soon_done():
    model = Model()
    model.ask(ROWS)
    assert model.scoring.together(ROWS, TAKE_S / (3.5 * ROWS)) == 3
    assert model.scoring.together(ROWS, TAKE_S / ROWS) == 1
    model.scoring.close()


def test_what_few_rows_took_says_what_many_would():
    model = Model(row_s=0.0002)
    model.ask(2)
    assert model.ask(4) == "here"
    assert model.scoring.together(ROWS, 0.0) == 1
    assert model.ask(ROWS) == "scoring-churn"
    model.scoring.close()


def test_a_question_without_rows_says_nothing_of_the_model():
    model = Model(row_s=0.001)
    model.ask(ROWS)
    model.ask(0)
    assert model.scoring.together(ROWS, 0.0) == 1
    assert model.ask(ROWS) == "scoring-churn"
    model.scoring.close()


def test_what_asking_raised_is_raised_where_the_answer_is_taken():
    def ask(_):
        raise ValueError("odd")

    scoring = Scoring(ask, "churn", ManualClock())
    scoring.submit(1, 1)
    with pytest.raises(ValueError, match="odd"):
        scoring.take(30.0)
    scoring.close()


def test_a_discarded_question_is_never_answered_and_nobody_else_is_inside_until_it_is_over():
    entered, leave = threading.Event(), threading.Event()

    def ask(question):
        entered.set()
        assert question != "slow" or leave.wait(30.0)
        return threading.current_thread().name

    scoring = Scoring(ask, "churn", ManualClock())
    scoring.submit("known", 1)
    assert scoring.take(30.0) == "scoring-churn"
    scoring._last = scoring._last._replace(seconds=1.0)  # slow from now on
    entered.clear()
    scoring.submit("slow", 1)
    assert entered.wait(30.0)
    scoring.discard()
    scoring._last = scoring._last._replace(seconds=0.0)
    scoring.submit("next", 1)
    assert scoring.take(0.0) is None
    leave.set()
    assert scoring.take(30.0) == "scoring-churn"
    scoring.close()


def test_the_model_is_busy_until_its_answer_is_expected_or_there():
    model = Model(row_s=0.001)
    assert model.scoring.busy_s() == 0.0
    model.ask(10)
    model.release.clear()
    model.scoring.submit(20, 20)
    assert 0.0 < model.scoring.busy_s() <= 0.02
    model.clock.advance(0.05)
    assert model.scoring.busy_s() == 0.0
    model.release.set()
    model.scoring.take(30.0)
    assert model.scoring.busy_s() == 0.0
    model.scoring.close()
