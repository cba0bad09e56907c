"""A claim, its rule, and the verdict that the rule gives.

The rule. A claim's statistic is computed for each seed. Its 95 % interval over seeds (Student's t) is compared with a
region; lying in it, the claim is reproduced, lying outside it is contradicted, and overlapping its edge it is
inconclusive. In the chapter on defenses the interval covers the draw of test images too; in that on all networks it is
over recipes in place of seeds, by bootstrap. The regions:

- "exceeds" tests a direction: above 0.
- "does not differ" tests a bound: within MARGIN of 0.
- "at most" and "at least" test a bound.
- "about" tests a size: between 1/FACTOR and FACTOR times the published value.

With fewer than ENOUGH seeds there is no verdict: "one network" or "two networks" stands in its place. A claim that
fails where our departures from the paper's set-up may be the cause is "not comparable", not contradicted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from hfclib.paper.intervals import Estimate
from hfclib.paper.presets import Preset

# Two accuracies closer than this count as equal: somewhat more than the .03 to which the paper's figure can be read.
MARGIN = 0.05
# "About" a number that a blog post rounds and whose network is unknown: between half and twice it.
FACTOR = 2
ENOUGH = 3  # seeds
Verdict = Literal["reproduced", "contradicted", "not comparable", "inconclusive", "two networks", "one network"]
Relation = Literal["exceeds", "does not differ", "at most", "at least", "about"]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        id: unique, such as "fig4-batchnorm-H4".
        figure: the name of the chapter that tests it.
        section: where the paper makes the claim, or "ours" for a control that the paper lacks.
        text: the claim in our words.
        version: the condition under which it is tested.
        relation: which rule applies.
        statistic: from the chapter's table to an Estimate; raises MissingRunError where runs are missing.
        paper: the statistic as published; None where it is not available.
        bound: what "at most", "at least" and "about" compare with.
        preset: whose networks it is tested on.
        distance: whether the statistic is a distance to the paper's numbers, in whose interval their 0 can't lie.
        comparable: whether our departures from the paper's set-up are excluded as the cause of a failure, as for a
            control on our own networks.
    """

    id: str
    figure: str
    section: str
    text: str
    version: str
    relation: Relation
    statistic: Callable[[pd.DataFrame], Estimate]
    paper: float | None = None
    bound: float = 0.0
    preset: Preset = "laptop"
    comparable: bool = False
    distance: bool = False

    def judge(self, found: Estimate) -> Verdict:
        """The verdict on an estimate, by the module's rule."""
        if found.seeds < ENOUGH:
            return "one network" if found.seeds == 1 else "two networks"
        judged = verdict(self.relation, found.low, found.high, self.bound)
        return "not comparable" if judged == "contradicted" and not self.comparable else judged

    def paper_within(self, found: Estimate) -> bool | None:
        """Whether the paper's value is in our interval; None without one of the two, and for a `distance`."""
        if self.paper is None or self.distance or found.seeds < ENOUGH:
            return None
        return found.low <= self.paper <= found.high


def verdict(relation: Relation, low: float, high: float, bound: float = 0.0) -> Verdict:
    """Apply the module's rule to an interval.

    Raises:
        ValueError: another relation.
    """
    places = {  # where each relation holds: (least, most), both included
        "exceeds": (np.nextafter(0.0, 1.0), np.inf),  # 0 does not exceed 0
        "does not differ": (-MARGIN, MARGIN),
        "at most": (-np.inf, bound),
        "at least": (bound, np.inf),
        "about": (bound / FACTOR, bound * FACTOR),
    }
    if relation not in places:
        raise ValueError(f"expected relation, one of {', '.join(places)}, got {relation!r}")
    least, most = places[relation]
    if low >= least and high <= most:
        return "reproduced"
    return "contradicted" if low > most or high < least else "inconclusive"
