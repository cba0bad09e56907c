"""Intervals: against SciPy's, examples worked out by hand, and their coverage."""

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from hfclib.paper.intervals import (
    DRAWS,
    Estimate,
    MissingRunError,
    image_error,
    interval,
    over_images,
    over_seeds,
    over_seeds_and_images,
    paired,
    rank_correlation,
    sum_of_means,
)

T_2 = 4.302653  # Student's t at .975 with two degrees of freedom, from a table
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)

# ---- over seeds


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_the_interval_is_students(values):
    mean, low, high = interval(values)
    assume(np.var(values) > 1e-6)  # SciPy's test warns of equal values
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(values), expected.low, expected.high), abs=1e-12)


def test_one_seed_gives_no_interval_and_equal_ones_leave_nothing_open():
    assert interval([0.3]) == (0.3, -np.inf, np.inf)
    assert interval([0.25] * 3) == (0.25, 0.25, 0.25)
    assert interval([-1e-99, 1e-99]) == pytest.approx((0, -12.7062e-99, 12.7062e-99), rel=1e-5, abs=0)


def test_seeds_that_lack_a_run_are_left_out():
    estimate = over_seeds([0.1, np.nan, 0.2, 0.3])
    half = T_2 * 0.1 / math.sqrt(3)
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), rel=1e-6)
    assert estimate.seeds == 3
    assert over_seeds([np.nan, 0.25]) == Estimate(0.25, -np.inf, np.inf, seeds=1)
    for none in ([], [np.nan, np.nan]):
        with pytest.raises(MissingRunError, match="no seed has all the runs"):
            over_seeds(none)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_the_interval_of_two_samples_is_welchs(first, second):
    assume(min(np.var(first), np.var(second)) > 1e-6)
    estimate = sum_of_means([first, -np.array(second)], 0.0)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert estimate.mean == pytest.approx(np.mean(first) - np.mean(second))
    assert estimate.seeds == min(len(first), len(second))


def test_a_single_network_has_no_interval():
    found = sum_of_means([np.array([0.4]), -np.array([0.1, 0.2])], 0.0)
    assert found == Estimate(pytest.approx(0.25), -np.inf, np.inf, seeds=1)


# ---- over seeds and images


def test_two_seeds_and_three_images_by_hand():
    """Means of seeds 2/3 and 0, with squared standard error 1/9; means of images 1/2, 1 and -1/2, with 7/36."""
    estimate = over_seeds_and_images([[1, 1, 0], [0, 1, -1]])
    freedom = (1 / 9 + 7 / 36) ** 2 / ((1 / 9) ** 2 / 1 + (7 / 36) ** 2 / 2)  # Satterthwaite's
    half = stats.t.ppf(0.975, freedom) * math.sqrt(1 / 9 + 7 / 36)
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((1 / 3, 1 / 3 - half, 1 / 3 + half), rel=1e-6)
    assert estimate.seeds == 2
    assert over_seeds_and_images([[1, 0, 0, 0]]) == Estimate(0.25, -np.inf, np.inf, seeds=1)


@pytest.mark.parametrize(
    ("seeds", "seed_sd", "image_sd", "noise_sd", "most"),
    [
        (3, 0.1, 0.0, 0.0, 0.97),  # seeds alone: Student's interval, which is exact
        (3, 0.03, 0.3, 0.3, 0.97),
        (5, 0.05, 0.3, 0.1, 0.97),
        (3, 0.0, 0.3, 0.3, 0.97),  # images alone
    ],
)
def test_the_interval_over_seeds_and_images_covers_the_truth(monkeypatch, seeds, seed_sd, image_sd, noise_sd, most):
    """New seeds and new images each time, as a claim is about both; an interval over seeds alone covers too little."""
    monkeypatch.setattr("hfclib.paper.intervals._p_value", lambda *_: math.nan)  # slow, and not asked here
    rng, repeats, images, truth = np.random.default_rng(0), 1000, 50, 0.1
    covered = 0
    for _ in range(repeats):
        effects = rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, image_sd, images)
        found = over_seeds_and_images(truth + effects + rng.normal(0, noise_sd, (seeds, images)))
        covered += found.low <= truth <= found.high
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / repeats) < covered / repeats <= most


# ---- p-values


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_the_p_value_is_students(values):
    assume(np.var(values) > 1e-6)
    assert over_seeds(values).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6, abs=1e-11)


def test_an_interval_at_the_confidence_of_its_p_value_ends_at_zero():
    """Student's half over the seeds and the normal one over the images, whose squares add up."""
    parts, others = [[0.2, 0.3, 0.1], [0.1, -0.1]], [0.03, 0.04]
    estimate = sum_of_means(parts, -0.1, others)
    variances = [0.01 / 3, 0.02 / 2]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2)  # Satterthwaite's

    def half(share):
        seeds = stats.t.ppf(1 - share / 2, freedom) * math.sqrt(sum(variances))
        return math.hypot(seeds, NormalDist().inv_cdf(1 - share / 2) * 0.05)

    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((0.1, 0.1 - half(0.05), 0.1 + half(0.05)))
    assert half(estimate.p) == pytest.approx(0.1)
    assert estimate.seeds == 2


def test_p_values_at_their_ends():
    assert math.isnan(over_seeds([0.3]).p)
    assert over_seeds([0.25] * 3).p == 1e-12  # below which none is computed
    assert over_seeds([-0.1, 0.0, 0.1]).p == pytest.approx(1)
    assert over_seeds([1.0, 1.0 + 1e-9, 1.0]).p == 1e-12


# ---- over the images of one network


def test_one_network_has_the_normal_interval_of_its_images():
    estimate = over_images(-0.02, [0.003, 0.004])  # together .005
    half = NormalDist().inv_cdf(0.975) * 0.005
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((-0.02, -0.02 - half, -0.02 + half))
    assert estimate.p == pytest.approx(2 * NormalDist().cdf(-4))
    assert estimate.seeds == 1


def test_the_error_of_a_share_by_hand():
    shares, images = pd.Series([0.5, 1.0, 0.0]), pd.Series([98, 98, 8])
    expected = [0.05, math.sqrt(0.99 * 0.01 / 100), math.sqrt(0.1 * 0.9 / 10)]
    assert image_error(shares, images).tolist() == pytest.approx(expected)


# ---- over images in pairs


def outcome(up, down, both, neither):
    """So many images correct in the first only, in the second only, in both and in neither."""
    first = [True] * (up + both) + [False] * (down + neither)
    return first, [False] * up + [True] * (both + down) + [False] * neither


@given(up=st.integers(0, 200), down=st.integers(0, 200), both=st.integers(0, 200), neither=st.integers(1, 200))
def test_the_paired_interval_by_formula(up, down, both, neither):
    """Wald's interval with one more image on either side and two more in all."""
    count = up + down + both + neither
    p_up, p_down = (up + 1) / (count + 2), (down + 1) / (count + 2)
    half = NormalDist().inv_cdf(0.975) * math.sqrt((p_up + p_down - (p_up - p_down) ** 2) / (count + 2))
    mean, low, high = paired(*outcome(up, down, both, neither))
    assert mean == pytest.approx((up - down) / count)
    assert (low, high) == pytest.approx((max(p_up - p_down - half, -1), min(p_up - p_down + half, 1)))


@pytest.mark.parametrize(
    ("up", "down", "most"),
    [(0.2, 0.1, 0.985), (0.5, 0.1, 0.97), (0.02, 0.3, 0.97), (0.05, 0.05, 1), (0.9, 0.1, 0.99)],
)
def test_the_paired_interval_covers_the_truth_as_often_as_it_says(up, down, most):
    """By the probabilities of all outcomes of `count` images; above .95 where pairs seldom differ."""
    count, covered = 15, 0.0
    for ups in range(count + 1):
        for downs in range(count + 1 - ups):
            rest = count - ups - downs
            ways = math.comb(count, ups) * math.comb(count - ups, downs)
            probability = ways * up**ups * down**downs * (1 - up - down + 1e-15) ** rest
            if probability > 1e-12:
                _, low, high = paired(*outcome(ups, downs, rest, 0))
                covered += probability * (low <= up - down <= high)
    assert 0.945 < covered <= most


@given(PAIRS, st.randoms())
def test_the_paired_interval_is_symmetric_and_within_bounds_whatever_the_order(pairs, random):
    one, other = zip(*pairs, strict=True)
    mean, low, high = paired(one, other)
    assert paired(other, one) == pytest.approx((-mean, -high, -low))
    assert paired(*zip(*random.sample(pairs, len(pairs)), strict=True)) == (mean, low, high)
    assert -1 <= low <= mean <= high <= 1
    assert low < high


def test_images_are_compared_in_pairs_and_bad_pairs_refused():
    one, other = [True] * 20 + [False] * 20, [True] * 18 + [False] * 22
    mean, low, high = paired(one, other)
    shuffled = paired(one, other[::-1])
    assert mean == pytest.approx(shuffled[0]) == pytest.approx(0.05)
    assert high - low < 0.6 * (shuffled[2] - shuffled[1])
    for bad in (([True], [True, False]), ([], []), (True, False), ([[True]], [[True]])):
        with pytest.raises(ValueError, match="expected as many images"):
            paired(*bad)


# ---- rank correlations, over recipes


def test_the_rank_correlation_is_that_of_scipy_also_with_ties():
    first, second = np.random.default_rng(1).normal(size=(2, 15))
    second = np.round(second + first, 0)
    assert rank_correlation(first, second).mean == pytest.approx(stats.spearmanr(first, second).statistic)


def test_a_control_that_explains_both_leaves_nothing():
    control, *noise = np.random.default_rng(2).normal(size=(3, 300))
    first, second = (control + 0.3 * values for values in noise)
    assert rank_correlation(first, second).low > 0.8
    left = rank_correlation(first, second, control)
    ranks = [stats.rankdata(values) for values in (first, second, control)]
    xy, xz, yz = np.corrcoef(ranks)[[0, 0, 1], [1, 2, 2]]
    assert left.mean == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert left.low < 0 < left.high


def test_the_interval_is_that_of_fishers_transformation_in_a_large_sample():
    first, second = np.random.default_rng(3).multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=400).T
    estimate = rank_correlation(first, second)
    half = 1.96 * 1.03 / np.sqrt(397)
    expected = np.tanh(np.arctanh(estimate.mean) + np.array([-half, half]))
    assert [estimate.low, estimate.high] == pytest.approx(expected, abs=0.02)


def test_a_rank_correlation_has_the_p_value_and_interval_of_its_bootstrap():
    first, second = np.random.default_rng(4).normal(size=(2, 8))
    picks = np.random.default_rng(0).integers(8, size=(DRAWS, 8))
    pairs = [[stats.rankdata(values[pick]) for values in (first, second)] for pick in picks]
    drawn = np.array([np.corrcoef(pair)[0, 1] for pair in pairs])  # Spearman's, ten times as fast as SciPy's
    assert drawn[:20] == pytest.approx([stats.spearmanr(first[pick], second[pick]).statistic for pick in picks[:20]])
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    assert 0.06 * DRAWS < beyond < 0.5 * DRAWS
    estimate = rank_correlation(first, second)
    assert estimate.p == pytest.approx(2 * (beyond + 1) / (DRAWS + 1))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
    assert estimate.seeds == 8
    assert rank_correlation(first, first).p == pytest.approx(2 / (DRAWS + 1))


def test_of_few_recipes_all_samples_are_taken_and_no_p_value_is_below_that_of_all_orders():
    first, second = np.arange(6), np.array([0, 1, 2, 4, 5, 3])
    estimate = rank_correlation(first, second)
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(6)
        shuffled = rank_correlation(first[order], second[order])
        assert (shuffled, shuffled.p) == (estimate, pytest.approx(estimate.p))
    assert rank_correlation(first, first).p == pytest.approx(2 / 720)
    assert rank_correlation(first, [2, 5, 0, 3, 4, 1]).p <= 1
