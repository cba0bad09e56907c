"""From runs to tidy tables: what the figures draw, and what is written beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of values over seeds and its 95 % Student-t interval: (mean, low, high); with one value, infinite ends."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def paired(first: Sequence[bool], second: Sequence[bool]) -> tuple[float, float, float]:
    """The share of images right in the first less that in the second, on the same images: mean, low and high (95 %).

    Raises:
        ValueError: other numbers of images, or none.
    Source: Bonett and Price, 2012, whose interval for paired shares also holds where they are near 0 or 1.
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != other.shape or one.ndim != 1 or len(one) == 0:
        raise ValueError(f"expected as many images in the one as in the other, got {one.shape} and {other.shape}")
    count, up, down = len(one), int((one & ~other).sum()), int((~one & other).sum())
    plus, minus = (up + 1) / (count + 2), (down + 1) / (count + 2)
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((plus + minus - (plus - minus) ** 2) / (count + 2))
    return (up - down) / count, max(plus - minus - half, -1.0), min(plus - minus + half, 1.0)


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval.

    Attributes:
        mean, low, high: accuracies, shares, or their differences.
        seeds: how many runs of each network are behind it.
        over: what the interval is over: "seeds", or, of a single one, "images" or "kernels".
    """

    mean: float
    low: float
    high: float
    seeds: int
    over: Literal["seeds", "images", "kernels"] = "seeds"

    @property
    def what(self) -> str:
        """What the interval is over, in a table's words, such as "3 seeds" or "images, 1 seed"."""
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        return seeds if self.over == "seeds" else f"{self.over}, {seeds}"


class MissingRunError(ValueError):
    """A claim whose runs are not all there."""


def over_images(shares: list[float], images: int) -> tuple[float, float, float]:
    """A share of `images` images, or the first less the second: mean, low and high.

    Wilson's interval, and Newcombe's for a difference: unlike the textbook's they hold for shares near 0, too.
    """
    ends = [stats.binomtest(round(share * images), images).proportion_ci(CONFIDENCE, "wilson") for share in shares]
    if len(shares) == 1:
        return shares[0], ends[0].low, ends[0].high
    (one, other), (first, second) = shares, ends
    below = np.hypot(one - first.low, second.high - other)
    above = np.hypot(first.high - one, other - second.low)
    return one - other, one - other - below, one - other + above


def over_kernels(samples: Sequence[Sequence[float]], signs: Sequence[int]) -> tuple[float, float, float]:
    """A signed sum of the means of independent samples: mean, low and high.

    Welch's t: variances may differ, and the degrees of freedom are Welch and Satterthwaite's. A sample of one has no
    variance, and the ends are infinite.
    """
    mean = float(sum(sign * np.mean(values) for sign, values in zip(signs, samples, strict=True)))
    if min(map(len, samples)) < 2:
        return mean, -np.inf, np.inf
    parts = np.array([np.var(values, ddof=1) / len(values) for values in samples])
    if not parts.any():
        return mean, mean, mean
    freedom = parts.sum() ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, samples, strict=True))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(parts.sum()))
    return mean, mean - half, mean + half


def share_of(table: pd.DataFrame, images: int) -> Estimate:
    """The first column of a table, less the second if there is one.

    Args:
        table: a row a seed, a column a network; shares in [0, 1].
        images: how many are behind each share.
    Raises:
        MissingRunError: no seed, or no network.
    """
    if table.empty or table.shape[1] == 0:
        raise MissingRunError("a claim's runs are missing")
    if len(table) > 1:
        return Estimate(*interval(table.iloc[:, 0] - table.iloc[:, 1:].sum(axis=1)), seeds=len(table))
    return Estimate(*over_images(list(table.iloc[0]), images), seeds=1, over="images")
