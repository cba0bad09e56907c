"""A claim, its rule, and the verdict that the rule gives.

The rule. A claim has a statistic and an interval that holds it with 95 %:

- "exceeds": reproduced if the whole interval is above 0, contradicted if it is all at or below 0.
- "does not differ": reproduced if the whole interval is within MARGIN of 0, contradicted if it is all outside.
- "at most": reproduced if the whole interval is at or below the bound, contradicted if it is all above.
- "at least": reproduced if the whole interval is at or above the bound, contradicted if it is all below.
- "about": reproduced if the whole interval is within a factor of 2 of the number, contradicted if it is all outside.
- Otherwise: inconclusive.

What the interval is over. Figure 4 compares networks whose seeds matter: Student's t over seeds, and with a single seed
no verdict. Where another figure has a single seed, the interval covers the draw of the test images only, and the
scoreboard says "images, 1 seed"; with several seeds it is Student's t over seeds there too. Over images a difference of
two networks is treated as one between separate sets of images, though they share the set. Where they tend to be right
on the same images, as networks mostly are, that makes the interval wider than it need be; where they tend to be right
on different ones, too narrow. The claims about defenses compare the same images in pairs (`paired`).

Kernels are measured without any image. Figure 3 takes Student's t over seeds, too, and where there is a single seed
Welch's t over the first layer's kernels, which the scoreboard calls "kernels, 1 seed": it says whether two networks
differ by more than kernels of one network do among themselves, and nothing about another training. Networks that start
from the same weights still count as separate samples, which makes the interval wider than it need be here as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from hfclib.paper.intervals import Estimate

# Two accuracies closer than this count as equal: somewhat more than the .03 to which the paper's figure can be read.
MARGIN = 0.05
# "About" a number that a blog post rounds and whose network is unknown: between half and twice it.
FACTOR = 2
Verdict = Literal["reproduced", "contradicted", "inconclusive"]
Relation = Literal["exceeds", "does not differ", "at most", "at least", "about"]


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
        bound: what "at most", "at least" and "about" compare with.
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
    elif relation == "at least":
        holds, fails = low >= bound, high < bound
    elif relation == "about":
        smallest, largest = bound / FACTOR, bound * FACTOR
        holds, fails = smallest <= low and high <= largest, low > largest or high < smallest
    else:
        raise ValueError(f"expected relation, exceeds, does not differ, at most, at least or about, got {relation!r}")
    return "reproduced" if holds else "contradicted" if fails else "inconclusive"


def slug(version: str) -> str:
    return version.replace("'", "").replace(" ", "-")
