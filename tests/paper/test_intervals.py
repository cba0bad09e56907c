"""Intervals: against SciPy's, published tables and closed forms."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from hfclib.paper.intervals import interval, over_images, over_kernels


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_the_interval_is_students(values):
    mean, low, high = interval(values)
    assume(np.var(values) > 1e-6)  # SciPy's test warns of equal values
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(values), expected.low, expected.high), abs=1e-12)


def test_one_seed_gives_no_interval_and_equal_ones_leave_nothing_open():
    assert interval([0.3]) == (0.3, -np.inf, np.inf)
    assert interval([0.25] * 3) == (0.25, 0.25, 0.25)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_share_of_images_has_wilsons_interval(images, share):
    right = round(share * images)
    p, z, n = right / images, stats.norm.ppf(0.975), images
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    mean, low, high = over_images([p], images)
    assert mean == p
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "images", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:873, Table II, method 10: those with equal denominators
        (9, 3, 10, 0.1705, 0.8090),
        (6, 2, 7, 0.0582, 0.8062),
        (0, 0, 10, -0.2775, 0.2775),
        (10, 0, 10, 0.6075, 1.0000),
    ],
)
def test_a_difference_of_shares_has_newcombes_interval(first, second, images, low, high):
    mean, below, above = over_images([first / images, second / images], images)
    assert mean == pytest.approx((first - second) / images)
    assert (below, above) == pytest.approx((low, high), abs=5e-5)
    mirrored = over_images([second / images, first / images], images)
    assert mirrored == pytest.approx((-mean, -above, -below))


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=9), st.lists(st.floats(-9, 9), min_size=2, max_size=9))
def test_a_difference_over_kernels_is_welchs(first, second):
    assume(min(np.var(first), np.var(second)) > 1e-6)  # scipy warns of equal values
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    mean, low, high = over_kernels([first, second], [1, -1])
    assert mean == pytest.approx(np.mean(first) - np.mean(second))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert over_kernels([first, second], [-1, 1]) == pytest.approx((-mean, -high, -low))
    assert over_kernels([first], [1]) == pytest.approx(interval(first))


def test_a_difference_of_differences_by_hand():
    """Four samples of two with variance 2, so 1 each of the mean: 4 in all, with 4**2 / 4 = 4 degrees of freedom."""
    mean, low, high = over_kernels([[9, 11], [3, 5], [7, 9], [6, 8]], [1, -1, -1, 1])
    assert mean == 10 - 4 - 8 + 7
    assert high - mean == mean - low == pytest.approx(2.776445 * 2, rel=1e-6)


def test_equal_kernels_leave_nothing_open_and_a_single_one_everything():
    assert over_kernels([[2, 2], [1, 1, 1]], [1, -1]) == (1, 1, 1)
    assert over_kernels([[2, 2], [1]], [1, -1]) == (1, -np.inf, np.inf)
