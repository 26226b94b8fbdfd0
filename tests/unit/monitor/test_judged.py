import numpy as np
import orjson
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from app.monitor.judged import SCORE_BINS, Judged, Part, judge, judged_of, part_of

RANDOM = np.random.default_rng(7)
ROWS = 20_000
SCORES = RANDOM.beta(2, 3, ROWS)
TRUTH = (RANDOM.random(ROWS) < SCORES**1.3).astype(np.int64)
PREDICTED = (SCORES >= 0.5).astype(np.int64)
NUMBERS = np.stack([1 - SCORES, SCORES], axis=1)


def whole():
    return judge(TRUTH, PREDICTED, NUMBERS)


def test_accuracy_and_log_loss_are_those_of_scikit_learn():
    assert whole().accuracy == accuracy_score(TRUTH, PREDICTED)
    assert whole().log_loss == pytest.approx(log_loss(TRUTH, NUMBERS), rel=1e-9)


def test_auc_is_that_of_scikit_learn_within_what_it_says():
    area, within = whole().auc
    assert abs(area - roc_auc_score(TRUTH, SCORES)) <= within < 0.003


def test_calibration_is_the_expected_calibration_error():
    confidence, right = NUMBERS[np.arange(ROWS), PREDICTED], TRUTH == PREDICTED
    bins = np.minimum((confidence * 10).astype(int), 9)
    expected = sum(
        abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)
    )
    assert whole().calibration_error == pytest.approx(expected, rel=1e-9)


def test_parts_of_rows_add_up_to_all_of_them():
    merged = Judged()
    for rows in np.array_split(np.arange(ROWS), 7):
        merged = merged.merged(judge(TRUTH[rows], PREDICTED[rows], NUMBERS[rows]))
    assert (merged.rows, merged.right, merged.positives) == (whole().rows, whole().right, whole().positives)
    assert merged.log_loss == pytest.approx(whole().log_loss, rel=1e-12)


def test_ten_classes_have_accuracy_log_loss_and_calibration_and_no_auc():
    numbers = RANDOM.dirichlet(np.ones(10), 1_000)
    truth = RANDOM.integers(0, 10, 1_000)
    found = judge(truth, numbers.argmax(axis=1), numbers)
    assert found.auc is None
    assert found.log_loss == pytest.approx(log_loss(truth, numbers, labels=range(10)), rel=1e-9)
    assert found.accuracy == accuracy_score(truth, numbers.argmax(axis=1))


def test_without_probabilities_only_right_and_wrong_are_counted():
    found = judge(np.array([0, 1, 1]), np.array([0, 0, 1]), np.empty((3, 0)))
    assert (found.rows, found.right, found.auc) == (3, 2, None)


@pytest.mark.parametrize("truth", [0, 1])
def test_one_class_alone_has_no_auc(truth):
    assert judge(np.full(9, truth), np.full(9, 1), np.tile([0.3, 0.7], (9, 1))).auc is None


def test_an_impossible_answer_costs_much_and_not_everything():
    found = judge(np.array([1]), np.array([0]), np.array([[1.0, 0.0]]))
    assert found.log_loss == pytest.approx(34.54, abs=0.01)


def test_scores_at_the_ends_and_a_little_beyond_are_counted():
    found = judge(np.array([1, 0]), np.array([1, 0]), np.array([[-1e-7, 1 + 1e-7], [1.0, 0.0]]))
    assert (sum(found.positives), found.positives[SCORE_BINS - 1], found.negatives[0]) == (1, 1, 1)


def test_the_interval_of_the_accuracy_is_wilsons():
    low, high = Judged(rows=100, right=90).accuracy_within
    assert (low, high) == (pytest.approx(0.8256, abs=1e-4), pytest.approx(0.9448, abs=1e-4))
    assert Judged().accuracy_within == (0.0, 1.0)


def test_what_is_kept_comes_back_as_it_was():
    part = Part("churn", "churn", "3", 2, 60_000, whole())
    assert part_of(orjson.loads(part.encoded())) == part


@pytest.mark.parametrize(
    "change",
    [{"rows": -1}, {"right": 10**9}, {"positives": [1]}, {"calibration_sum": []}, {"rows": "many"}],
)
def test_a_part_that_cannot_be_is_refused(change):
    with pytest.raises((ValueError, TypeError, LookupError)):
        judged_of(whole().record() | change)
