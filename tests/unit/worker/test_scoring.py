"""Where the model is asked, and about how many batches at a time."""

import threading
import time

import pytest

from app.worker.scoring import MOST_TOGETHER, QUICK_S, TOGETHER_S, Scoring


def _answered(scoring, question, runs=1):
    scoring.submit(question, runs)
    answer = scoring.take(5.0)
    assert answer is not None
    return answer


def test_a_model_nobody_knows_is_asked_on_a_thread_and_about_one_batch():
    scoring = Scoring(lambda _: threading.current_thread().name, "churn")

    assert scoring.together() == 1
    assert _answered(scoring, 1) == "scoring-churn"
    scoring.close()


def test_a_quick_model_is_asked_at_once_about_as_many_batches_as_may_go_together():
    scoring = Scoring(lambda _: threading.current_thread().name, "churn")
    for _ in range(20):  # one that was held up by another process would count as slow
        where = _answered(scoring, 1)

    assert where == threading.main_thread().name
    assert scoring.together() == MOST_TOGETHER
    scoring.close()


def test_a_model_that_is_not_quick_is_asked_on_the_thread():
    def ask(_):
        time.sleep(2 * QUICK_S)
        return threading.current_thread().name

    scoring = Scoring(ask, "churn")
    _answered(scoring, 1)

    assert _answered(scoring, 1) == "scoring-churn"
    scoring.close()


@pytest.mark.parametrize(("runs", "together"), [(1, 1), (50, MOST_TOGETHER)])
def test_batches_go_together_if_the_model_answers_them_soon(runs, together):
    def ask(_):
        time.sleep(TOGETHER_S)
        return True

    scoring = Scoring(ask, "churn")
    _answered(scoring, 1, runs)

    assert scoring.together() == together
    scoring.close()


def test_what_asking_raised_is_raised_where_the_answer_is_taken():
    def ask(_):
        raise ValueError("odd")

    scoring = Scoring(ask, "churn")
    scoring.submit(1)
    with pytest.raises(ValueError, match="odd"):
        scoring.take(5.0)
    scoring.close()


def test_a_discarded_question_is_never_answered():
    scoring = Scoring(lambda question: question, "churn")
    scoring.submit(1)
    scoring.discard()

    assert _answered(scoring, 2) == 2
    scoring.close()
