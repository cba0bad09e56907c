"""The rule of the verdicts."""

import numpy as np
import pytest

from hfclib.paper.claims import Claim
from hfclib.paper.intervals import Estimate
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
    ("at most", 0.1, 0.2, "reproduced"),
    ("at most", -0.1, 0.2, "reproduced"),
    ("at most", 0.1, 0.2001, "inconclusive"),
    ("at most", 0.2, 0.3, "inconclusive"),
    ("at most", 0.2001, 0.3, "contradicted"),
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
]


def test_the_rule():
    for relation, low, high, expected in RULE:
        assert verdict(relation, low, high, 0.2) == expected, (relation, low, high)
    assert verdict("at most", -0.2, 0.0) == verdict("at least", 0.0, 0.2) == "reproduced"  # 0 is the bound by default
    assert verdict("at most", -0.2, 0.1) == verdict("at least", -0.1, 0.2) == "inconclusive"
    with pytest.raises(ValueError, match="expected relation"):
        verdict("beats", 0, 1)


def claim(**values) -> Claim:
    place = {"id": "fig1-a", "chapter": "fig1", "section": "section 1", "text": "text", "version": "version"}
    return Claim(**place, contrast="vanilla.test", relation="exceeds", **values)


def test_a_claim_is_judged_from_three_networks_on():
    above, below, across = (0.3, 0.1, 0.5), (-0.3, -0.5, -0.1), (0.1, -0.1, 0.3)
    expected = [  # interval, seeds, verdict, verdict where the set-up is excluded as the cause
        (above, 3, "reproduced", "reproduced"),
        (below, 3, "not reproduced in our set-up", "contradicted"),
        (across, 3, "inconclusive", "inconclusive"),
        (above, 10, "reproduced", "reproduced"),
        (above, 2, "two networks", "two networks"),
        (below, 2, "two networks", "two networks"),
        ((0.3, -INF, INF), 1, "one network", "one network"),
    ]
    for values, seeds, usual, without in expected:
        estimate = Estimate(*values, seeds=seeds)
        assert claim(departure="width").judge(estimate) == usual
        assert claim().judge(estimate) == without


def test_an_interval_over_the_images_of_one_network_has_a_verdict():
    assert claim(units="images").judge(Estimate(0.3, 0.1, 0.5, seeds=1)) == "reproduced"


def test_whether_the_papers_value_is_in_our_interval():
    estimate = Estimate(0.2, 0.1, 0.3, seeds=3)
    for paper, expected in (
        (0.1, "compatible"),
        (0.3, "compatible"),
        (0.0999, "excluded"),
        (0.3001, "excluded"),
        (0.0, "excluded"),
        (None, "not known"),
    ):
        assert claim(paper=paper).size(estimate) == expected, paper
    for few in (Estimate(0.2, 0.1, 0.3, seeds=2), Estimate(0.2, -INF, INF, seeds=1)):
        assert claim(paper=0.2).size(few) == "not known"
    assert claim(paper=0.2, distance=True).size(estimate) == "not known"
    assert claim(paper=0.2, paper_differs="another statistic").size(estimate) == "not known"
