"""95 % intervals of accuracies, shares and their differences: over seeds, over images in pairs, and over both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit  # not scipy.stats, which takes half a second to import

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval over seeds.

    Attributes:
        mean, low, high: accuracies, shares, or their differences; the interval of a single seed is infinite.
        seeds: the number of networks of each kind.
    """

    mean: float
    low: float
    high: float
    seeds: int


class MissingRunError(ValueError):
    """Some runs that a claim needs are not stored."""


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of values over seeds and its Student-t interval: (mean, low, high); infinite for a single value."""
    # Not ttest_1samp, which warns of equal values: three networks at chance are common.
    return _interval(float(np.mean(values)), [_error(values)], [len(values)])


def _interval(mean: float, errors: Sequence[float], counts: Sequence[float]) -> tuple[float, float, float]:
    """Student's interval, (mean, low, high), with Satterthwaite's degrees of freedom.

    Args:
        errors: standard errors whose squares add up to the variance of the mean.
        counts: how many values are behind each.
    """
    if min(counts) < 2:
        return mean, -np.inf, np.inf
    variances = np.square(errors)
    if not variances.any():
        return mean, mean, mean
    freedom = variances.sum() ** 2 / np.sum(variances**2 / (np.array(counts) - 1))
    half = stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(variances.sum())
    return mean, mean - half, mean + half


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
    return Estimate(*interval(known), seeds=len(known))


def unpaired(first: pd.Series | Sequence[float], second: pd.Series | Sequence[float]) -> Estimate:
    """The mean of the first less that of the second, over networks that have nothing in common, by Welch's interval.

    Returns:
        Its seeds are those of the smaller sample.
    Raises:
        MissingRunError: a sample is empty.
    """
    if not (len(first) and len(second)):
        raise MissingRunError("a kind of network has no run")
    counts = [len(first), len(second)]
    found = _interval(float(np.mean(first) - np.mean(second)), [_error(first), _error(second)], counts)
    return Estimate(*found, seeds=min(counts))


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
    found = _interval(float(values.mean()), [_error(by_seed), _error(by_image)], values.shape)
    return Estimate(*found, seeds=len(values))


def paired(first: Sequence[bool], second: Sequence[bool]) -> tuple[float, float, float]:
    """The share of images that are correct in the first minus that in the second, on the same images.

    Returns:
        (mean, low, high).
    Raises:
        ValueError: different numbers of images, or none.
    Source: Bonett and Price, 2012; holds for shares near 0 or 1, too.
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != other.shape or one.ndim != 1 or len(one) == 0:
        raise ValueError(f"expected as many images in the one as in the other, got {one.shape} and {other.shape}")
    count, up, down = len(one), int((one & ~other).sum()), int((~one & other).sum())
    plus, minus = (up + 1) / (count + 2), (down + 1) / (count + 2)
    half = ndtri((1 + CONFIDENCE) / 2) * np.sqrt((plus + minus - (plus - minus) ** 2) / (count + 2))
    return (up - down) / count, max(plus - minus - half, -1.0), min(plus - minus + half, 1.0)
