"""A claim, its rule, and the verdict that the rule gives.

The rule. The 95 % interval of a claim's statistic is compared with a region; lying in it, the claim is reproduced,
lying outside it is contradicted, and overlapping its edge it is inconclusive:

- "exceeds": above 0.
- "does not differ": within MARGIN of 0.
- "at most": at or below the bound.
- "at least": at or above the bound.
- "about": between 1/FACTOR and FACTOR times the bound.

The interval. Over several seeds it is Student's t. With a single seed, Fig. 4 gives no verdict, since its statistic
depends on the seed; elsewhere the interval says how much the statistic depends on the test images ("images, 1 seed")
or on the first layer's kernels ("kernels, 1 seed"), and nothing about another training. Over images, two networks
count as measured on separate sets, though they share one: where they tend to be correct on the same images, as most
do, the interval is wider than need be, and else too narrow. Claims about defenses compare the same images in pairs
(`paired`). Over kernels, two networks count as independent (Welch's t), though both start from the same weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from hfclib.paper.intervals import Estimate

# Two accuracies closer than this count as equal: somewhat more than the .03 to which the paper's figure can be read.
MARGIN = 0.05
# "About" a number that a blog post rounds and whose network is unknown: between half and twice it.
FACTOR = 2
Verdict = Literal["reproduced", "contradicted", "not reproduced here", "inconclusive"]
Relation = Literal["exceeds", "does not differ", "at most", "at least", "about"]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        id: unique, such as "fig4-batchnorm-H4-controlled".
        figure: the name of the chapter that tests it.
        section: where the paper makes the claim.
        text: the claim in our words.
        version: the condition under which it is tested.
        relation: which rule applies.
        statistic: from the chapter's table to an Estimate; raises MissingRunError where runs are missing.
        paper: the statistic as published; None where it is not available to us.
        bound: what "at most", "at least" and "about" compare with.
        comparable: whether network and data are the paper's kind. A claim that fails where they are not is "not
            reproduced here", since our departure may be the cause.
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
    comparable: bool = True

    def judge(self, found: Estimate) -> Verdict:
        """The verdict on an estimate, by the module's rule."""
        judged = verdict(self.relation, found.low, found.high, self.bound)
        return "not reproduced here" if judged == "contradicted" and not self.comparable else judged


def verdict(relation: Relation, low: float, high: float, bound: float = 0.0) -> Verdict:
    """Apply the module's rule to an interval.

    Raises:
        ValueError: another relation.
    """
    regions = {
        "exceeds": (np.nextafter(0.0, 1.0), np.inf),  # 0 does not exceed 0
        "does not differ": (-MARGIN, MARGIN),
        "at most": (-np.inf, bound),
        "at least": (bound, np.inf),
        "about": (bound / FACTOR, bound * FACTOR),
    }
    if relation not in regions:
        raise ValueError(f"expected relation, one of {', '.join(regions)}, got {relation!r}")
    least, most = regions[relation]
    if low >= least and high <= most:
        return "reproduced"
    return "contradicted" if low > most or high < least else "inconclusive"


def slug(version: str) -> str:
    """A version as part of a claim's id."""
    return version.replace("'", "").replace(" ", "-")
