"""The rule of the verdicts."""

import numpy as np
import pytest

from hfclib.paper.verdicts import verdict

INF = np.inf


RULE = [
    ("exceeds", 0.01, 0.2, "reproduced"),
    ("exceeds", -0.01, 0.2, "inconclusive"),
    ("exceeds", 0.0, 0.2, "inconclusive"),
    ("exceeds", -0.2, 0.0, "contradicted"),
    ("exceeds", -INF, INF, "inconclusive"),
    ("does not differ", -0.05, 0.05, "reproduced"),
    ("does not differ", -0.06, 0.01, "inconclusive"),
    ("does not differ", 0.06, 0.2, "contradicted"),
    ("does not differ", -0.2, -0.06, "contradicted"),
    ("does not differ", -INF, INF, "inconclusive"),
    ("at most", 0.1, 0.2, "reproduced"),
    ("at most", 0.1, 0.2001, "inconclusive"),
    ("at most", 0.2, 0.3, "inconclusive"),
    ("at most", 0.2001, 0.3, "contradicted"),
    ("at most", -INF, INF, "inconclusive"),
    ("at least", 0.2, 0.3, "reproduced"),
    ("at least", 0.1999, 0.3, "inconclusive"),
    ("at least", 0.1, 0.1999, "contradicted"),
    ("about", 0.1, 0.4, "reproduced"),
    ("about", 0.0999, 0.4, "inconclusive"),
    ("about", 0.1, 0.4001, "inconclusive"),
    ("about", 0.05, 0.1, "inconclusive"),
    ("about", 0.05, 0.0999, "contradicted"),
    ("about", 0.4, 0.5, "inconclusive"),
    ("about", 0.4001, 0.5, "contradicted"),
    ("about", -INF, INF, "inconclusive"),
]


def test_the_rule():
    for relation, low, high, expected in RULE:
        assert verdict(relation, low, high, 0.2) == expected, (relation, low, high)


def test_another_relation_is_refused():
    with pytest.raises(ValueError, match="expected relation"):
        verdict("beats", 0, 1)
