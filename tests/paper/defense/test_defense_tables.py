"""Every cell in its place, and accuracies under the strong attack beside those under the paper's."""

import math

import numpy as np
import pandas as pd
import pytest

from hfclib.paper.defense.judgement import claimed_gains, gains, outcomes_of_gains
from hfclib.paper.defense.setup import NONE, Defense, all_defenses, long_attacks, table_attacks
from hfclib.paper.defense.tables import (
    attack_chain,
    claimed_and_left,
    defense_title,
    filter_by_radius,
    five_rows,
    outcome_counts,
    share_text,
    table2_rows,
)
from hfclib.paper.defense.trials import TRIAL_COLUMNS
from hfclib.paper.paper_values import TABLE2_VALUES

IMAGES = 100
EPS = (0.03, 0.06)


def rows(cells, images=IMAGES, seed=0):
    """Trials from {(variant, defense, strength, attack, eps): how many of the first images are right}."""
    trials = []
    for (variant, defense, strength, attack, eps), right in cells.items():
        values = (variant, seed, defense, strength, attack, eps, 20)
        which = tuple((np.arange(images) < right).tolist())
        trials.append((*values, images, right / images, which))
    return pd.DataFrame(trials, columns=[*TRIAL_COLUMNS, "images", "accuracy", "correct"])


def every(variants=("vanilla", "adversarial"), eps=EPS, changes=None, long=()):
    """A full table of trials, all 10 of 100 right but for the changes, and the judgement's of `long`."""
    cells = {
        (variant, *defense, *attack[:2]): 10
        for variant in variants
        for defense in all_defenses((0.5, 1.0))
        for attack in table_attacks(defense, eps, 20)
    }
    cells |= changes or {}
    strong = {
        (*place, attack.method, one): value - 2 * step
        for (*place, one), value in dict(long).items()
        for step, attack in enumerate(long_attacks(one, 20))
    }
    return rows(cells), rows(strong)


# ---- words


def test_a_defense_and_an_accuracy_in_words():
    words = {
        NONE: "none",
        Defense("rule", 1.0): "rule, rho = 1",
        Defense("rule", 0.1): "rule, rho = .1",
        Defense("rule", 10.5): "rule, rho = 10.5",
        Defense("rule", 0.0): "rule, rho = 0",
        Defense("normalised", 0.5): "rule / (1 + 8 rho), rho = .5",
        Defense("scale", 1.0): "logits x 9 (control)",
        Defense("scale", 0.1): "logits x 1.8 (control)",
        Defense("kernels", 8.0): "kernels without HFC, r = 8",
        Defense("input", 16.0): "input without HFC, r = 16",
    }
    assert {defense: defense_title(*defense) for defense in words} == words
    assert len({defense_title(*one) for one in all_defenses((0.1, 0.5, 1.0))}) == 17
    for images, text in ((40, ".12"), (2499, ".12"), (2500, ".123"), (10_000, ".123")):
        assert share_text(0.1234, images) == text
    for correct in range(201):  # in 32 and in 64 bits
        assert share_text(float(np.float32(correct / 200)), 200) == share_text(correct / 200, 200)


# ---- every cell


def test_each_cell_is_in_its_place():
    table, _ = every(
        changes={
            ("vanilla", "rule", 1.0, "fgsm", 0.06): 71,
            ("vanilla", "rule", 1.0, "pgd", 0.06): 72,
            ("adversarial", "rule", 1.0, "clean", 0.0): 73,
            ("vanilla", "normalised", 1.0, "fgsm", 0.06): 74,
        }
    )
    rows = table2_rows(table, ("rule", "scale"))
    assert list(rows.columns) == ["clean", "FGSM, eps .03", "FGSM, eps .06", "PGD, eps .03", "PGD, eps .06"]
    assert list(rows.index.names) == ["network", "defense"]
    names = ["none", "rule, rho = .5", "rule, rho = 1", "logits x 5 (control)", "logits x 9 (control)"]
    assert list(rows.index) == [(network, name) for network in ("Vanilla", "Adversarial training") for name in names]
    assert rows.loc[("Vanilla", "rule, rho = 1")].tolist() == [".10", ".10 (paper .171)", ".71", ".10", ".72"]
    assert rows.loc[("Adversarial training", "rule, rho = 1")].tolist() == [".73", ".10", ".10", ".10", ".10"]


def test_a_cell_of_several_seeds_has_their_mean_and_spread():
    table, _ = every()
    first, second = table.assign(accuracy=0.1), table.assign(accuracy=0.2, seed=1)
    found = table2_rows(pd.concat([first, second]), ["rule"])
    cells = {".150\u00a0±\u00a0.071", ".150\u00a0±\u00a0.071 (paper .107)", ".150\u00a0±\u00a0.071 (paper .171)"}
    assert cells < set(found.loc["Vanilla"].to_numpy().ravel())


def test_the_papers_cells_stand_beside_ours_where_there_are_any():
    found = table2_rows(every()[0], ("rule", "normalised", "scale", "kernels", "input"))
    with_paper = {
        (*place, column): cell for place, row in found.iterrows() for column, cell in row.items() if "paper" in cell
    }
    assert with_paper == {
        ("Vanilla", "none", "FGSM, eps .03"): ".10 (paper .107)",
        ("Vanilla", "none", "PGD, eps .03"): ".10 (paper .003)",
        ("Vanilla", "rule, rho = 1", "FGSM, eps .03"): ".10 (paper .171)",
        ("Adversarial training", "none", "FGSM, eps .03"): ".10 (paper .435)",
        ("Adversarial training", "none", "PGD, eps .03"): ".10 (paper .403)",
    }
    assert len(TABLE2_VALUES) == len(with_paper)


# ---- what is left of a claimed gain

LONG = {
    ("vanilla", "none", 0.0, 0.03): 10,
    ("vanilla", "none", 0.0, 0.06): 8,
    ("vanilla", "rule", 1.0, 0.03): 30,
    ("vanilla", "input", 8.0, 0.06): 10,
    ("adversarial", "none", 0.0, 0.03): 60,
}
CHANGES = {("vanilla", "rule", 1.0, "fgsm", 0.03): 55, ("vanilla", "input", 8.0, "unaware", 0.06): 80} | {
    ("adversarial", *defense, *attack[:2]): 75 if attack.method == "fgsm" else 70
    for defense in all_defenses((0.5, 1.0))
    for attack in table_attacks(defense, EPS[:1], 20)
}


@pytest.fixture
def trials():
    """Trials in which two defenses claim a gain, and adversarial training does: table, strong and outcomes."""
    table, strong = every(changes=CHANGES, long=LONG)
    claimed = gains(table)
    assert {(one.variant, one.defense, one.strength, one.eps) for one in claimed_gains(claimed).itertuples()} == set(
        LONG
    )
    return table, strong, outcomes_of_gains(claimed, strong)


def test_the_chain_shows_which_attack_broke_it(trials):
    _, strong, outcomes = trials
    chain = attack_chain(strong, outcomes)
    after = ["after restarts", "after margin", "after transfer", "after square"]
    assert list(chain.columns) == ["gain under", "with", "without", *after, "without, after square", "outcome"]
    shown = {(*place, row["gain under"]): row.drop("gain under").tolist() for place, row in chain.iterrows()}
    assert shown == {
        ("Vanilla", "rule, rho = 1", ".03", "FGSM"): [".55", ".10", ".30", ".28", ".26", ".24", ".04", "robust"],
        ("Vanilla", "input without HFC, r = 8", ".06", "PGD, non-adaptive"): [
            ".80",
            ".10",
            ".10",
            ".08",
            ".06",
            ".04",
            ".02",
            "masked",
        ],
        ("Adversarial training", "none", ".03", "FGSM"): [".75", ".10", ".60", ".58", ".56", ".54", ".04", "robust"],
        ("Adversarial training", "none", ".03", "PGD"): [".70", ".10", ".60", ".58", ".56", ".54", ".04", "robust"],
    }


def test_where_nothing_is_claimed_the_chain_is_empty():
    table, strong = every()
    outcomes = outcomes_of_gains(gains(table), strong)
    chain = attack_chain(strong, outcomes)
    assert chain.empty
    assert chain.index.names == ["network", "defense", "eps"]
    assert "outcome" in chain.columns


def test_counts_add_up_by_kind(trials):
    _, _, outcomes = trials
    found = outcome_counts(outcomes)
    assert list(found.columns) == ["compared", "no gain", "gain", "masked", "attack falls short", "robust"]
    assert found.T.to_dict("list") == {
        "rule as printed": [16, 15, 1, 0, 0, 1],  # two networks, strengths, attacks and eps
        "rule / (1 + 8 rho)": [16, 16, 0, 0, 0, 0],
        "logits multiplied (control)": [16, 16, 0, 0, 0, 0],
        "kernels without HFC": [24, 24, 0, 0, 0, 0],
        "input without HFC, adaptive attack": [32, 32, 0, 0, 0, 0],
        "input without HFC, non-adaptive attack": [16, 15, 1, 1, 0, 0],
        "trained: Adversarial training": [4, 2, 2, 0, 0, 2],
        "all": [124, 120, 4, 1, 0, 3],
    }
    nothing = outcomes["defense"].eq("scale") & outcomes["variant"].eq("vanilla")  # 8 with no image on either side
    less = outcome_counts(
        outcomes.assign(**{name: outcomes[name].mask(nothing, 0) for name in ("accuracy", "baseline")})
    )
    assert less["compared"].tolist() == [16, 16, 8, 24, 32, 16, 4, 116]
    short = outcome_counts(outcomes.replace({"outcome": {"masked": "attack falls short"}}))
    assert short.loc["all"].tolist() == [124, 120, 4, 0, 1, 3]


def test_what_is_claimed_is_the_most_favourable_of_the_papers_attacks(trials):
    table, strong, outcomes = trials
    rows = claimed_and_left(table, strong, outcomes, 0.03).set_index(["variant", "defense", "strength"])
    assert list(dict.fromkeys(rows.index.get_level_values("variant"))) == ["vanilla", "adversarial"]
    assert len(rows) == 2 * len(all_defenses((0.5, 1.0)))
    rule = rows.loc[("vanilla", "rule", 1.0)]
    assert rule[["images", "clean", "highest", "strong", "outcome"]].tolist() == [100, 0.1, 0.55, 0.24, "robust"]
    undefended = rows.loc[("vanilla", "none", 0.0)]
    assert undefended[["clean", "highest", "strong", "outcome"]].tolist() == [0.1, 0.1, 0.04, "no gain"]
    assert math.isnan(rows.loc[("vanilla", "input", 8.0), "strong"])  # run at .06 only
    assert rows.loc[("vanilla", "input", 8.0), "outcome"] == "no gain"
    five = five_rows(rows.reset_index())
    assert five.loc[("Vanilla", "rule, rho = 1")].tolist() == [".10", ".55", ".24", "robust"]
    assert five.loc[("Vanilla", "input without HFC, r = 8"), "under the strong attack"] == ""  # was not run
    assert [network for network, _ in five.index] == ["Vanilla"] * 4 + ["Adversarial training"]
    other = claimed_and_left(table, strong, outcomes, 0.06).set_index(["variant", "defense", "strength"])
    assert other.loc[("vanilla", "input", 8.0), ["highest", "strong", "outcome"]].tolist() == [0.8, 0.04, "masked"]


def test_several_seeds_are_means_and_their_outcomes_are_counted_where_they_differ(trials):
    table, strong, outcomes = trials
    first = claimed_and_left(table, strong, outcomes, 0.03)
    second = first.assign(seed=1, clean=first["clean"] + 0.2, outcome=first["outcome"].replace("robust", "masked"))
    five = five_rows(pd.concat([first, second, second.assign(seed=2)]))
    assert len(five) == len(five_rows(first))
    row = five.loc[("Vanilla", "rule, rho = 1")]
    assert row["clean"] == ".233\u00a0±\u00a0.115"  # of .1, .3 and .3
    assert row["outcome"] == "masked: 2, robust: 1"
    assert five.loc[("Vanilla", "none"), "outcome"] == "no gain"


# ---- the filtered input


def test_the_filter_against_both_attackers():
    changes = {
        ("vanilla", "input", 8.0, "unaware", 0.03): 60,
        ("vanilla", "input", 8.0, "pgd", 0.03): 5,
        ("vanilla", "none", 0.0, "pgd", 0.03): 3,
        ("vanilla", "input", 8.0, "clean", 0.0): 65,
        ("vanilla", "none", 0.0, "clean", 0.0): 80,
    }
    table, strong = every(changes=changes, long={("vanilla", "input", 8.0, 0.03): 8, ("vanilla", "none", 0, 0.03): 7})
    rows = filter_by_radius(table, strong)
    assert set(rows["seed"]) == {0}
    rows = rows.set_index(["variant", "strength", "eps"])
    radii = [4, 8, 12, 16, math.inf]
    order = [(variant, radius, eps) for variant in ("vanilla", "adversarial") for radius in radii for eps in EPS]
    assert list(rows.index) == order
    columns = ["images", "clean", "non_adaptive", "adaptive", "strong"]
    assert rows.loc[("vanilla", 8.0, 0.03), columns].tolist() == [100, 0.65, 0.6, 0.05, 0.02]
    assert rows.loc[("vanilla", math.inf, 0.03), columns].tolist() == [100, 0.8, 0.03, 0.03, 0.01]
    assert rows.loc[("vanilla", 8.0, 0.06), columns].tolist()[:-1] == [100, 0.65, 0.1, 0.1]
    assert math.isnan(rows.loc[("vanilla", 8.0, 0.06), "strong"])


def test_without_the_strong_attack_the_filters_still_stand():
    table, strong = every()
    assert filter_by_radius(table, strong)["strong"].isna().all()
