"""95 % intervals: of accuracies, shares and their differences over seeds, over images in pairs, and over both; of rank
correlations over recipes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hfclib.paper.verdicts import ENOUGH

CONFIDENCE = 0.95
DRAWS = 5_000  # of the bootstrap
ALL_SAMPLES_TO = 6  # recipes: 46,656 bootstrap samples; drawn ones would let the verdict hang on the order of the rows


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval over seeds.

    Attributes:
        mean, low, high: accuracies, shares, or their differences; the interval of a single seed is infinite, unless
            it is over images.
        seeds: the number of networks of each kind.
        p: the two-sided p-value of 0: the largest share that intervals may miss and still exclude 0. NaN for a single
            seed, unless it is over images, and where it is not computed.
    """

    mean: float
    low: float
    high: float
    seeds: int
    p: float = field(default=np.nan, compare=False)


class MissingRunError(ValueError):
    """Some runs that a claim needs are not stored."""


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of values over seeds and its Student-t interval: (mean, low, high); infinite for a single value."""
    # Not ttest_1samp, which warns of equal values: three networks at chance are common.
    mean, half = float(np.mean(values)), _half([_error(values)], [len(values)])
    return mean, mean - half, mean + half


def _half(
    errors: Sequence[float], counts: Sequence[float], others: Sequence[float] = (), confidence: float = CONFIDENCE
) -> float:
    """Half the width of the interval of a mean; infinite for a single value.

    Args:
        errors: standard errors whose squares add up to the variance of the mean.
        counts: how many values are behind each.
        others: as in `sum_of_means`.
    """
    from scipy.special import ndtri, stdtrit  # here, since training does without scipy

    if min(counts) < 2:
        return np.inf
    variances, half = np.square(errors), 0.0
    if variances.any():
        shares = variances / variances.sum()  # whose squares don't vanish where the variances are tiny
        freedom = 1 / np.sum(shares**2 / (np.array(counts) - 1))
        half = stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(variances.sum())
    return float(np.hypot(half, ndtri((1 + confidence) / 2) * np.linalg.norm(others)))


def _estimate(
    mean: float, errors: Sequence[float], counts: Sequence[float], others: Sequence[float], seeds: int
) -> Estimate:
    half = _half(errors, counts, others)
    return Estimate(mean, mean - half, mean + half, seeds, _p_value(mean, errors, counts, others))


def _p_value(mean: float, *spread: Sequence[float]) -> float:
    """The two-sided p-value of 0: 1 less the confidence at which the interval (`_half`) ends at 0."""
    from scipy.optimize import brentq  # here: a quarter of a second that every notebook would wait for

    if not np.isfinite(_half(*spread)):
        return np.nan
    least = 1e-12
    if _half(*spread, confidence=1 - least) <= abs(mean):
        return least
    return brentq(lambda p: _half(*spread, confidence=1 - p) - abs(mean), least, 1.0)


def _error(values: Sequence[float]) -> float:
    """The standard error of a mean; NaN for a single value."""
    return np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def over_seeds(values: pd.Series | Sequence[float]) -> Estimate:
    """The `interval` of one value per seed; NaN, where a seed lacks a run, is left out.

    Raises:
        MissingRunError: no value is left.
    """
    known = pd.Series(values, dtype=float).dropna()
    if known.empty:
        raise MissingRunError("no seed has all the runs of the claim")
    return sum_of_means([known], 0.0)


def sum_of_means(parts: Sequence[Sequence[float]], constant: float, others: Sequence[float] = ()) -> Estimate:
    """A number plus the means of independent samples, one value per seed each.

    Args:
        parts: the samples.
        constant: the number.
        others: further standard errors of the sum, or upper bounds of them, such as those of the draw of the images.
    Returns:
        Welch's interval over the samples, widened so that the square of its half is the sum of the squares of the
        halves that seeds and images have alone. So an upper bound never makes it narrower, as it would by
        Satterthwaite's degrees of freedom. Its seeds are those of the smallest sample.
    Source: Zou and Donner, 2008, for intervals of a sum from those of its terms.
    """
    mean = constant + sum(float(np.mean(part)) for part in parts)
    counts = [len(part) for part in parts]
    return _estimate(mean, list(map(_error, parts)), counts, others, min(counts))


def over_images(mean: float, errors: Sequence[float]) -> Estimate:
    """A number of one network, with the normal interval of standard errors by the draw of images."""
    from scipy.special import ndtr, ndtri

    half = ndtri((1 + CONFIDENCE) / 2) * np.linalg.norm(errors)
    p = 2 * ndtr(-abs(mean) / np.linalg.norm(errors))
    return Estimate(mean, mean - half, mean + half, seeds=1, p=float(p))


def image_error(share: pd.Series, images: pd.Series) -> pd.Series:
    """The standard error of a share of correct images by their draw.

    Source: Agresti and Coull, 1998, whose added successes and failures keep it above 0 where all or none are correct.
    """
    shrunk = ((share * images + 1) / (images + 2)).clip(0, 1)
    return np.sqrt(shrunk * (1 - shrunk) / (images + 2))


def over_seeds_and_images(differences: Sequence[Sequence[float]]) -> Estimate:
    """The mean of a difference over networks and images, both of which are samples.

    Args:
        differences: one row per seed, with one value per image, the same images in each.
    Returns:
        The interval has the variance of the seeds' means plus that of the images' means, with Satterthwaite's degrees
        of freedom. It errs on the wide side, since both variances contain the chance of single predictions.
    """
    values = np.asarray(differences, dtype=float)
    by_seed, by_image = values.mean(axis=1), values.mean(axis=0)
    return _estimate(float(values.mean()), [_error(by_seed), _error(by_image)], values.shape, (), len(values))


def paired(first: Sequence[bool], second: Sequence[bool]) -> tuple[float, float, float]:
    """The share of images that are correct in the first minus that in the second, on the same images.

    Returns:
        (mean, low, high).
    Raises:
        ValueError: different numbers of images, or none.
    Source: Bonett and Price, 2012; holds for shares near 0 or 1, too.
    """
    from scipy.special import ndtri

    first, second = (np.asarray(correct, dtype=bool) for correct in (first, second))
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"expected as many images in the one as in the other, got {first.shape} and {second.shape}")
    count, up, down = len(first), int((first & ~second).sum()), int((~first & second).sum())
    plus, minus = (up + 1) / (count + 2), (down + 1) / (count + 2)
    half = ndtri((1 + CONFIDENCE) / 2) * np.sqrt((plus + minus - (plus - minus) ** 2) / (count + 2))
    return (up - down) / count, max(plus - minus - half, -1.0), min(plus - minus + half, 1.0)


def rank_correlation(
    first: Sequence[float], second: Sequence[float], control: Sequence[float] | None = None
) -> Estimate:
    """Spearman's rank correlation of two columns with one value per recipe, and its 95 % interval.

    Args:
        first, second: equally long.
        control: a third such column. With it, ranks are replaced by what is left of them after a linear regression on
            the ranks of the control (partial correlation).
    Returns:
        An Estimate whose unit is the recipe: "seeds" is the number of recipes. The interval is the 2.5th to 97.5th
        percentile over bootstrap samples of recipes, all of them where there are few; it has no width at 1 and -1. The
        p-value is not below that of all orders of the recipes.
    Raises:
        MissingRunError: fewer than ENOUGH recipes, or a correlation that is not defined: a column is constant, or the
            control explains it all.
    """
    values = np.array([first, second] if control is None else [first, second, control], dtype=float)
    count = values.shape[1]
    if count < ENOUGH:  # two always have a correlation of 1 or -1
        raise MissingRunError(f"fewer than {ENOUGH} recipes are measured")
    if count <= ALL_SAMPLES_TO:
        picks = np.indices((count,) * count).reshape(count, -1).T
    else:
        picks = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    correlations = _spearman(values[:, np.vstack([np.arange(count), picks])])
    if np.isnan(correlations[0]):
        raise MissingRunError("the measured recipes have no correlation that is defined")
    low, high = np.nanquantile(correlations[1:], ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    beyond = min(np.sum(correlations[1:] <= 0), np.sum(correlations[1:] >= 0))
    p = max(2 * float(beyond + 1) / (len(picks) + 1), 2 / math.factorial(count))
    return Estimate(float(correlations[0]), float(low), float(high), seeds=count, p=min(p, 1.0))


def _spearman(samples: np.ndarray) -> np.ndarray:
    """(2 or 3 columns, samples, recipes) to (samples,); NaN where a column of a sample is constant."""
    from scipy.stats import rankdata  # here: half a second that every notebook would wait for

    ranks = rankdata(samples, axis=2)
    first, second, *control = ranks - ranks.mean(axis=2, keepdims=True)
    for column in control:
        squares = np.maximum((column * column).sum(axis=1), 1e-9)  # a constant control explains nothing
        first, second = (part - column * ((part * column).sum(axis=1) / squares)[:, None] for part in (first, second))
    norms = (first * first).sum(axis=1) * (second * second).sum(axis=1)
    return (first * second).sum(axis=1) / np.sqrt(np.where(norms > 1e-9, norms, np.nan))
