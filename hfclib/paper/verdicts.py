"""A claim, its rule, and the verdict that the rule gives.

The rule. The 95 % interval of a claim's statistic is compared with a region; lying in it, the claim is reproduced,
lying outside it is contradicted, and overlapping its edge it is inconclusive. The interval covers seeds and, of
accuracies, the draw of the images (`claims.evaluate`): paired by seed where networks start from the same weights, else
Welch's. Where one network of each kind is judged, it covers the images alone (units "images"); a rank correlation has
a bootstrap over recipes. The regions:

- "exceeds" tests a direction: above 0.
- "does not differ" tests a bound: within MARGIN of 0.
- "at most" and "at least" test a bound.
- "about" tests a size: between 1/FACTOR and FACTOR times the published value.

With fewer than ENOUGH seeds there is no verdict: "one network" or "two networks" stands in its place. A claim that
fails where a departure of ours from the paper's set-up may be the cause is FAILED_HERE, and its row names the
departure; it is contradicted where none may be.

The size is a verdict of its own: "compatible" where the published number lies in the interval, "excluded" where it does
not, "not known" without such a number.
"""

from typing import Literal

import numpy as np

# Two accuracies closer than this count as equal: somewhat more than the .03 to which the paper's figure can be read.
MARGIN = 0.05
# "About" a number that a blog post rounds and whose network is unknown: between half and twice it.
FACTOR = 2
ENOUGH = 3  # seeds
FAILED_HERE = "not reproduced in our set-up"
Verdict = Literal[
    "reproduced", "contradicted", "not reproduced in our set-up", "inconclusive", "two networks", "one network"
]
NO_VERDICT = "network", "networks"  # how the words end that stand in its place
Size = Literal["compatible", "excluded", "not known"]
Relation = Literal["exceeds", "does not differ", "at most", "at least", "about"]


def region(relation: Relation, bound: float = 0.0) -> tuple[float, float]:
    """Where an interval has to lie for a claim of this relation to be reproduced: from, to, both included.

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
    return regions[relation]


def verdict(relation: Relation, low: float, high: float, bound: float = 0.0) -> Verdict:
    """Apply the module's rule to an interval.

    Raises:
        ValueError: another relation.
    """
    least, most = region(relation, bound)
    if low >= least and high <= most:
        return "reproduced"
    return "contradicted" if low > most or high < least else "inconclusive"
