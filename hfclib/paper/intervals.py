"""95 % intervals of accuracies, shares and their differences: over seeds, over images, over kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval.

    Attributes:
        mean, low, high: accuracies, shares, or their differences.
        seeds: the number of runs of each network.
        over: what the interval is over: "seeds", or, for a single seed, "images" or "kernels".
    """

    mean: float
    low: float
    high: float
    seeds: int
    over: Literal["seeds", "images", "kernels"] = "seeds"

    @property
    def what(self) -> str:
        """What the interval is over, such as "3 seeds" or "images, 1 seed"."""
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        return seeds if self.over == "seeds" else f"{self.over}, {seeds}"


class MissingRunError(ValueError):
    """Some runs that a claim needs are not stored."""


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of values over seeds and its Student-t interval: (mean, low, high); infinite for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, -np.inf, np.inf
    # Not ttest_1samp, which warns of equal values: three networks at chance are common.
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values)
    return mean, mean - half, mean + half


def over_kernels(samples: Sequence[Sequence[float]], signs: Sequence[int]) -> tuple[float, float, float]:
    """A signed sum of the means of independent samples, with Welch's interval: (mean, low, high).

    Variances may differ; the degrees of freedom are Welch's and Satterthwaite's. For two samples this is
    `scipy.stats.ttest_ind(equal_var=False)`, for one `interval`. A sample of one value makes the interval infinite.
    """
    mean = float(sum(sign * np.mean(values) for sign, values in zip(signs, samples, strict=True)))
    sizes = np.array([len(values) for values in samples])
    if sizes.min() < 2:
        return mean, -np.inf, np.inf
    variances = np.array([np.var(values, ddof=1) for values in samples]) / sizes
    if not variances.any():
        return mean, mean, mean
    freedom = variances.sum() ** 2 / (variances**2 / (sizes - 1)).sum()
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variances.sum()))
    return mean, mean - half, mean + half


def over_images(shares: list[float], images: int) -> tuple[float, float, float]:
    """A share of `images` images, or the first share minus the second: (mean, low, high).

    Source: Wilson's interval, and Newcombe's for a difference, which also hold for shares near 0.
    """
    ends = [stats.binomtest(round(share * images), images).proportion_ci(CONFIDENCE, "wilson") for share in shares]
    if len(shares) == 1:
        return shares[0], ends[0].low, ends[0].high
    (one, other), (first, second) = shares, ends
    below = np.hypot(one - first.low, second.high - other)
    above = np.hypot(first.high - one, other - second.low)
    return one - other, one - other - below, one - other + above


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
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((plus + minus - (plus - minus) ** 2) / (count + 2))
    return (up - down) / count, max(plus - minus - half, -1.0), min(plus - minus + half, 1.0)


def share_of(table: pd.DataFrame, images: int) -> Estimate:
    """The first column of a table, minus the second if there is one.

    Args:
        table: one row per seed, one column per network; shares in [0, 1].
        images: the number behind each share.
    Raises:
        MissingRunError: no seed, or no network.
    """
    if table.empty or table.shape[1] == 0:
        raise MissingRunError("a claim's runs are missing")
    if len(table) > 1:
        return Estimate(*interval(table.iloc[:, 0] - table.iloc[:, 1:].sum(axis=1)), seeds=len(table))
    return Estimate(*over_images(list(table.iloc[0]), images), seeds=1, over="images")
