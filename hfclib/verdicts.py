"""A claim, its rule, and the verdict that the rule gives.

The rule. A claim has a statistic and an interval that holds it with 95 %:

- "exceeds": reproduced if the whole interval is above 0, contradicted if it is all at or below 0.
- "does not differ": reproduced if the whole interval is within MARGIN of 0, contradicted if it is all outside.
- "at most": reproduced if the whole interval is at or below the bound, contradicted if it is all above.
- "about": reproduced if the whole interval is within a factor of 2 of the number, contradicted if it is all outside.
- Otherwise: inconclusive.

What the interval is over. Figure 4 compares networks whose seeds matter: Student's t over seeds, and with a single seed
no verdict. Where another figure has a single seed, the interval covers the draw of the test images only, and the
scoreboard says "images, 1 seed"; with several seeds it is Student's t over seeds there too. Over images a difference of
two networks is treated as one between separate sets of images, though they share the set. Where they tend to be right
on the same images, as networks mostly are, that makes the interval wider than it need be; where they tend to be right
on different ones, too narrow. The claims about defenses compare the same images in pairs (`judgement.paired`).

Kernels are measured without any image. Figure 3 takes Student's t over seeds, too, and where there is a single seed
Welch's t over the first layer's kernels, which the scoreboard calls "kernels, 1 seed": it says whether two networks
differ by more than kernels of one network do among themselves, and nothing about another training. Networks that start
from the same weights still count as separate samples, which makes the interval wider than it need be here as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from hfclib.tables import CONFIDENCE, interval

# Two accuracies closer than this count as equal: somewhat more than the .03 to which the paper's figure can be read.
MARGIN = 0.05
# "About" a number that a blog post rounds and whose network is unknown: between half and twice it.
FACTOR = 2

Verdict = Literal["reproduced", "contradicted", "inconclusive"]
Relation = Literal["exceeds", "does not differ", "at most", "about"]


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


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        id: unique, such as "fig4-batchnorm-H4-as-published".
        figure: the book's figure, a key of `scoreboard`'s tables.
        section: where the paper makes the claim.
        text: the claim in our words.
        version: under which of the conditions that the figure compares it is tested.
        relation: which rule applies.
        statistic: from the figure's table to an Estimate; raises MissingRunError where its runs are missing.
        paper: the same statistic as published; None where it was not.
        bound: what "at most" and "about" compare with.
    """

    id: str
    figure: str
    section: str
    text: str
    version: str
    relation: Relation
    statistic: Callable[[pd.DataFrame], Estimate]
    paper: str | None = None
    bound: float = 0.0


class MissingRunError(ValueError):
    """A claim whose runs are not all there."""


def verdict(relation: str, low: float, high: float, bound: float = 0.0) -> Verdict:
    """Apply the module's rule to an interval.

    Raises:
        ValueError: another relation.
    """
    if relation == "exceeds":
        holds, fails = low > 0, high <= 0
    elif relation == "does not differ":
        holds, fails = low >= -MARGIN and high <= MARGIN, low > MARGIN or high < -MARGIN
    elif relation == "at most":
        holds, fails = high <= bound, low > bound
    elif relation == "about":
        smallest, largest = bound / FACTOR, bound * FACTOR
        holds, fails = smallest <= low and high <= largest, low > largest or high < smallest
    else:
        raise ValueError(f"expected relation, exceeds, does not differ, at most or about, got {relation!r}")
    return "reproduced" if holds else "contradicted" if fails else "inconclusive"


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
