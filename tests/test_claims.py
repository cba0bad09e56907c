import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hfclib import claims, published, tables


@pytest.mark.parametrize(
    ("relation", "low", "high", "expected"),
    [
        ("exceeds", 0.01, 0.2, "reproduced"),
        ("exceeds", -0.01, 0.2, "inconclusive"),
        ("exceeds", -0.2, 0.0, "contradicted"),
        ("exceeds", -np.inf, np.inf, "inconclusive"),
        ("does not differ", -0.05, 0.05, "reproduced"),
        ("does not differ", -0.06, 0.01, "inconclusive"),
        ("does not differ", 0.06, 0.2, "contradicted"),
        ("does not differ", -0.2, -0.06, "contradicted"),
        ("does not differ", -np.inf, np.inf, "inconclusive"),
    ],
)
def test_the_rule(relation, low, high, expected):
    assert claims.verdict(relation, low, high) == expected


def test_another_relation_is_refused():
    with pytest.raises(ValueError, match="expected relation"):
        claims.verdict("beats", 0, 1)


def test_ids_are_unique_and_say_their_version():
    ids = [claim.id for claim in claims.CLAIMS]
    assert len(set(ids)) == len(ids) == 12
    assert all(claim.id.endswith(claim.version.replace(" ", "-")) for claim in claims.CLAIMS)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_the_interval_is_students(values):
    mean, low, high = tables.interval(values)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx((mean - half, mean + half))


def test_one_seed_gives_no_interval():
    assert tables.interval([0.3]) == (0.3, -np.inf, np.inf)


def final(per_seed: dict[str, list[float]]) -> pd.DataFrame:
    """Final rows with the same accuracy everywhere, by panel and seed."""
    rows = [
        {"panel": panel, "seed": seed, "split": "test", "band": "hfc", "radius": radius, "feed": feed,
         "bn_stats": bn_stats, "images": 10_000, "accuracy": value}
        for panel, values in per_seed.items() for seed, value in enumerate(values) for radius in (4, 8, 12, 16)
        for feed in ("raw", "max", "mean") for bn_stats in ("running", "batch")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_verdicts_follow_the_numbers():
    table = final({"vanilla": [0.1, 0.12, 0.11], "batchnorm": [0.6, 0.63, 0.61], "mixup": [0.05, 0.08, 0.06],
                   "dropout": [0.1, 0.13, 0.11]})  # fmt: skip
    verdicts = claims.scoreboard(table)["verdict"]
    assert set(verdicts[verdicts.index.str.contains("batchnorm")]) == {"reproduced"}
    assert set(verdicts[verdicts.index.str.contains("mixup")]) == {"contradicted"}
    assert set(verdicts[verdicts.index.str.contains("dropout")]) == {"reproduced"}


def test_a_single_seed_is_inconclusive():
    table = final({"vanilla": [0.1], "batchnorm": [0.6], "mixup": [0.1], "dropout": [0.1]})
    assert set(claims.scoreboard(table)["verdict"]) == {"inconclusive"}


def test_a_claim_without_its_runs_is_refused_by_name():
    with pytest.raises(ValueError, match="fig4-batchnorm-H4-as-published"):
        claims.judge(claims.CLAIMS[0], final({"vanilla": [0.1], "batchnorm": [], "mixup": [0.2]}).assign(x=1))


def test_the_papers_difference_comes_from_its_values():
    assert claims.CLAIMS[0].published_value() == pytest.approx(0.65 - 0.10)
    assert published.fig4("vanilla", "L7") is None
    assert published.fig4("adversarial", "L4") is None
