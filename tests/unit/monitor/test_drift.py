import numpy as np
import pytest
from scipy import stats

from app.models.manifest import CategoryReference, NumberReference
from app.monitor.drift import MAX_SHIFT, DriftPolicy, chi_square_chance, drift_of, ks, ks_chance, psi, share_chance
from app.monitor.summary_reading import summary_of
from tests.made_summaries import category, number, summary

POLICY = DriftPolicy()
TRAINED_ROWS = 20_000


def reference_of(values, missing=0.0):
    """As training writes it: twenty bins of equal weight."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 21)))
    counts = np.histogram(values, edges)[0]
    return NumberReference(
        mean=values.mean(), std=values.std(), bins=tuple(edges), counts=tuple(counts.tolist()), missing=missing
    )


TRAINED = np.random.default_rng(0).normal(50, 10, TRAINED_ROWS)
REFERENCE = reference_of(TRAINED)
PLANS = CategoryReference(counts={"basic": 10_000, "standard": 6_000, "premium": 4_000})


def judged(*features, references=None, policy=POLICY):
    read = summary_of(summary([0.5], features=features))
    return drift_of(read.features, references or {"x": REFERENCE, "plan": PLANS}, policy)


def live(values, **more):
    return number("x", values, REFERENCE.bins, **more)


def calm(rows, seed=1):
    return np.random.default_rng(seed).normal(50, 10, rows)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 2.0])
def test_the_figures_are_those_of_an_offline_computation_with_numpy_and_scipy(shift):
    values = calm(4_000) + 10 * shift
    (found,) = judged(live(values))
    inner = np.clip(values, REFERENCE.bins[0], np.nextafter(REFERENCE.bins[-1], 0))
    shares = [
        (np.histogram(rows, REFERENCE.bins)[0] + 0.5) / (len(rows) + 0.5 * (len(REFERENCE.bins) - 1))
        for rows in (TRAINED, inner)
    ]
    assert found.psi == pytest.approx(float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0]))), rel=1e-6)
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.std == pytest.approx(values.std(), rel=1e-9)
    assert found.mean_shift == pytest.approx((values.mean() - TRAINED.mean()) / TRAINED.std(), rel=1e-9)
    exact = stats.ks_2samp(TRAINED, values)
    # between two edges the distance may be larger by what both have in a bin, a twentieth
    assert exact.statistic - 0.05 <= found.ks <= exact.statistic + 1e-9
    assert ks_chance(exact.statistic, 4_000, TRAINED_ROWS) == pytest.approx(
        stats.kstwobign.sf(exact.statistic * np.sqrt(4_000 * TRAINED_ROWS / (4_000 + TRAINED_ROWS))), rel=1e-6
    )


def test_the_chi_square_test_is_that_of_scipy():
    first, second = np.array([500.0, 300, 200]), np.array([260.0, 130, 110])
    assert chi_square_chance(first, second) == pytest.approx(stats.chi2_contingency([first, second]).pvalue, rel=1e-9)


def test_no_rows_are_no_difference():
    nothing, some = np.zeros(3), np.array([1.0, 2.0, 3.0])
    assert (psi(nothing, some), ks(some, nothing), chi_square_chance(nothing, some)) == (0.0, 0.0, 1.0)
    assert share_chance(0.0, 10, 0.0, 10) == 1.0


def test_a_calm_window_has_not_drifted():
    (found,) = judged(live(calm(5_000)))
    assert (found.judged, found.by) == (True, ())


@pytest.mark.parametrize("rows", [500, 5_000, 500_000])
@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_half_a_deviation_shows_in_one_window(rows, shift):
    (found,) = judged(live(calm(rows) + 10 * shift))
    assert {"mean", "distribution"} <= set(found.by)


def test_a_quarter_of_a_deviation_shows_in_one_window_of_a_thousand_rows():
    (found,) = judged(live(calm(1_000) + 2.5))
    assert "mean" in found.by


def test_a_difference_that_does_not_matter_is_no_drift_however_many_rows_show_it():
    (found,) = judged(live(calm(1_000_000) + 0.5))
    assert found.by == ()


def test_a_wider_distribution_shows_though_its_mean_is_the_same():
    (found,) = judged(live((calm(5_000) - 50) * 2 + 50))
    assert found.by == ("distribution", "outside")


def test_too_few_rows_are_not_judged():
    (found,) = judged(live(calm(499) + 100))
    assert (found.judged, found.by) == (False, ())


def test_a_feature_without_a_reference_or_with_other_bins_is_shown_and_not_judged():
    found = judged(live(calm(5_000)), number("y", [1.0], (0.0, 2.0)), references={"x": reference_of(calm(30))})
    assert [one.judged for one in found] == [False, False]
    assert found[0].mean == pytest.approx(50, abs=1)


@pytest.mark.parametrize(
    ("counts", "by"),
    [
        ([1_000, 600, 400], ()),
        ([400, 600, 1_000], ("distribution",)),
        ([2_000, 0, 0], ("distribution",)),
    ],
)
def test_categories_are_judged_by_their_shares(counts, by):
    (found,) = judged(category("plan", counts))
    assert (found.by, found.mean, found.ks) == (by, None, None)


def test_missing_and_unknown_values_beyond_training_show():
    (plan,) = judged(category("plan", [1_000, 600, 400], missing=100, unknown=200))
    assert plan.by == ("missing", "unknown")
    assert plan.unknown_share == pytest.approx(200 / 2_300)
    (x,) = judged(live(calm(5_000), missing=500), references={"x": reference_of(TRAINED, missing=0.09)})
    assert x.by == ()


def test_a_window_without_any_values_shows_by_what_is_missing():
    (found,) = judged(live([], missing=5_000))
    assert (found.by, found.mean, found.ks) == (("missing",), None, 0.0)


def test_a_constant_feature_drifts_only_if_it_changes():
    constant = NumberReference(mean=3.0, std=0.0, bins=(3.0, 3.0000001), counts=(5_000,))
    for value, shift, by in ((3.0, 0.0, ()), (4.0, MAX_SHIFT, ("mean", "outside"))):
        (found,) = judged(number("x", [value] * 1_000, constant.bins), references={"x": constant})
        assert (found.mean_shift, found.by) == (shift, by)


def test_the_elements_of_an_array_count_by_its_rows():
    rows = 400  # of 64 elements: enough elements, too few rows
    pixels = live(calm(rows * 64) + 1.5, rows=rows) | {"kind": "tensor"}
    (found,) = judged(pixels)
    assert (found.judged, found.by) == (False, ())
