"""Which trials a claim compares, in pairs or over seeds, and where it needs the strong attack."""

import numpy as np
import pandas as pd
import pytest

from hfclib.paper.defense.claims import DEFENSE, Side, defense_contrast, needs_strong_attack
from hfclib.paper.defense.judgement import KEY, claimed_gains, gains
from hfclib.paper.defense.setup import NONE, Defense, all_defenses, table_attacks
from hfclib.paper.defense.trials import TRIAL_COLUMNS
from hfclib.paper.intervals import Estimate, MissingRunError, interval, paired
from hfclib.paper.scoreboard import scoreboard

IMAGES = 200
NATURAL, RULE, FILTER = Side("vanilla"), Side("vanilla", "rule", 1.0), Side("vanilla", "input", 8.0)
KERNELS, PENALISED = Side("vanilla", "kernels", 8.0), Side("penalised")
ADVERSARIAL, SMOOTHED = Side("adversarial"), Side("adversarial", "rule", 1.0)


def trials(cells, images=IMAGES):
    """Trials from {(side, attack, eps): right}: by seed, from 0 on, how many of the first images are."""
    rows = [
        (
            side.variant,
            seed,
            side.defense,
            side.strength,
            attack,
            eps,
            20,
            images,
            right / images,
            tuple((np.arange(images) < right).tolist()),
        )
        for (side, attack, eps), seeds in cells.items()
        for seed, right in enumerate(seeds)
    ]
    return pd.DataFrame(rows, columns=[*TRIAL_COLUMNS, "images", "accuracy", "correct"])


AS_CLAIMED = {
    (NATURAL, "clean", 0.0): [160],
    (RULE, "clean", 0.0): [100],
    (NATURAL, "fgsm", 0.03): [20],
    (RULE, "fgsm", 0.03): [40],
    (ADVERSARIAL, "fgsm", 0.03): [90],
    (NATURAL, "pgd", 0.03): [0],
    (ADVERSARIAL, "pgd", 0.03): [80],
    (RULE, "fgsm", 0.09): [40],
    (RULE, "pgd", 0.09): [30],
    (ADVERSARIAL, "fgsm", 0.09): [10],
    (ADVERSARIAL, "pgd", 0.09): [5],
    (SMOOTHED, "fgsm", 0.09): [25],
    (SMOOTHED, "pgd", 0.09): [20],
    (SMOOTHED, "fgsm", 0.03): [80],
    (SMOOTHED, "pgd", 0.03): [80],
    (FILTER, "unaware", 0.03): [120],
    (NATURAL, "square", 0.03): [0],
    (RULE, "square", 0.03): [2],
    (KERNELS, "square", 0.03): [0],
    (PENALISED, "square", 0.03): [1],
    (FILTER, "square", 0.03): [0],
}


def board(cells):
    return scoreboard({"defense": trials(cells)})


def test_numbers_as_claimed_reproduce_every_claim():
    found = board(AS_CLAIMED)
    assert list(found.index) == [claim.id for claim in DEFENSE.claims]
    assert set(found["verdict"]) == {"reproduced"}
    assert set(found["interval"]) == {"images, 1 seed"}


def test_the_reverse_contradicts_every_claim():
    found = board(
        {key: [IMAGES - right for right in seeds] for key, seeds in AS_CLAIMED.items()}
        | {
            (NATURAL, "square", 0.03): [0],
            (RULE, "square", 0.03): [40],
            (KERNELS, "square", 0.03): [40],
            (PENALISED, "square", 0.03): [40],
            (FILTER, "square", 0.03): [40],
            (ADVERSARIAL, "fgsm", 0.03): [10],
            (SMOOTHED, "fgsm", 0.03): [50],
            (SMOOTHED, "pgd", 0.03): [160],
        }
    )
    assert set(found["verdict"]) == {"contradicted"}


def test_the_same_numbers_everywhere_do_not_exceed():
    found = board({key: [50] for key in AS_CLAIMED})
    verdicts = found["verdict"]
    marginal = verdicts.index.str.contains("marginal|small|aware") & ~verdicts.index.str.contains("unaware")
    assert set(verdicts[marginal]) == {"reproduced"}
    assert set(verdicts[~marginal]) == {"inconclusive"}
    assert marginal.sum() == 6


def test_each_claim_compares_what_it_says():
    sides = {claim.id.removeprefix("defense-"): claim.statistic.keywords for claim in DEFENSE.claims}
    compared = {name: (one["first"], one["second"], one["attack"], one["eps"]) for name, one in sides.items()}
    assert compared == {
        "rule-clean": (NATURAL, RULE, "clean", 0.0),
        "rule-fgsm": (RULE, NATURAL, "fgsm", 0.03),
        "adversarial-fgsm": (ADVERSARIAL, NATURAL, "fgsm", 0.03),
        "adversarial-pgd": (ADVERSARIAL, NATURAL, "pgd", 0.03),
        "rule-over-adversarial-fgsm": (RULE, ADVERSARIAL, "fgsm", 0.09),
        "rule-over-adversarial-pgd": (RULE, ADVERSARIAL, "pgd", 0.09),
        "adversarial-rule-fgsm-large": (SMOOTHED, ADVERSARIAL, "fgsm", 0.09),
        "adversarial-rule-pgd-large": (SMOOTHED, ADVERSARIAL, "pgd", 0.09),
        "adversarial-rule-fgsm-small": (SMOOTHED, ADVERSARIAL, "fgsm", 0.03),
        "adversarial-rule-pgd-small": (SMOOTHED, ADVERSARIAL, "pgd", 0.03),
        "rule-marginal": (RULE, NATURAL, "square", 0.03),
        "kernels-marginal": (KERNELS, NATURAL, "square", 0.03),
        "penalised-marginal": (PENALISED, NATURAL, "square", 0.03),
        "input-unaware": (FILTER, NATURAL, "unaware", 0.03),
        "input-aware": (FILTER, NATURAL, "square", 0.03),
    }
    bounds = {claim.id.removeprefix("defense-"): claim.bound for claim in DEFENSE.claims if claim.relation == "at most"}
    assert bounds == dict.fromkeys(
        [
            "adversarial-rule-fgsm-small",
            "adversarial-rule-pgd-small",
            "rule-marginal",
            "kernels-marginal",
            "penalised-marginal",
            "input-aware",
        ],
        0.05,
    )
    assert {claim.relation for claim in DEFENSE.claims} == {"exceeds", "at most"}


def test_the_paper_beside_ours_and_the_attack_in_the_version():
    found = board(AS_CLAIMED)
    papers = found["paper"][found["paper"] != "not available to us"].to_dict()
    assert papers == {
        "defense-rule-fgsm": ".064",
        "defense-adversarial-fgsm": ".328",
        "defense-adversarial-pgd": ".400",
    }
    assert found.loc["defense-rule-clean", "version"] == "clean images"
    assert found.loc["defense-rule-over-adversarial-pgd", "version"] == "PGD, eps .09"
    assert found.loc["defense-input-unaware", "version"] == "PGD, non-adaptive, eps .03"
    assert found.loc["defense-kernels-marginal", "version"] == "strong attack, eps .03"


# ---- the statistic


def test_one_seed_is_compared_on_the_same_images_in_pairs():
    table = trials({(RULE, "fgsm", 0.03): [60], (NATURAL, "fgsm", 0.03): [40]})
    found = defense_contrast(table, RULE, NATURAL, "fgsm", 0.03)
    assert found == Estimate(*paired([True] * 60 + [False] * 140, [True] * 40 + [False] * 160), seeds=1, over="images")
    assert found.mean == pytest.approx(0.1)
    assert found.what == "images, 1 seed"


def test_several_seeds_are_compared_by_students_t_over_those_that_both_have():
    table = trials({(RULE, "fgsm", 0.03): [60, 80, 70, 10], (NATURAL, "fgsm", 0.03): [40, 30, 40]})
    found = defense_contrast(table, RULE, NATURAL, "fgsm", 0.03)
    assert (found.mean, found.low, found.high) == pytest.approx(interval([0.1, 0.25, 0.15]))
    assert found.what == "3 seeds"
    alone = defense_contrast(table[(table["seed"] == 1) | (table["defense"] == "none")], RULE, NATURAL, "fgsm", 0.03)
    assert (alone.mean, alone.seeds, alone.over) == (pytest.approx(0.25), 1, "images")


def test_a_side_without_a_defense_is_under_pgd_where_the_other_is_under_the_non_adaptive_attack():
    table = trials({(FILTER, "unaware", 0.03): [120], (FILTER, "pgd", 0.03): [7], (NATURAL, "pgd", 0.03): [20]})
    assert defense_contrast(table, FILTER, NATURAL, "unaware", 0.03).mean == pytest.approx(0.5)


def test_a_trial_that_is_missing():
    cells = {
        (NATURAL, "fgsm", 0.06): [3],
        (RULE, "fgsm", 0.06): [3],
        (RULE, "pgd", 0.03): [3],
        (Side("vanilla", "rule", 0.5), "fgsm", 0.03): [3],
        (Side("vanilla", "normalised", 1.0), "fgsm", 0.03): [3],
    }
    for there in (NATURAL, RULE):
        with pytest.raises(MissingRunError, match="no seed has both trials"):
            defense_contrast(trials(cells | {(there, "fgsm", 0.03): [3]}), RULE, NATURAL, "fgsm", 0.03)


def test_without_networks_trained_adversarially_their_claims_are_missing():
    found = board({key: seeds for key, seeds in AS_CLAIMED.items() if key[0].variant == "vanilla"})
    missing = found["verdict"] == "run missing"
    assert set(found.index[missing]) == {
        claim.id for claim in DEFENSE.claims if "adversarial" in claim.id or "penalised" in claim.id
    }
    assert set(found.loc[~missing, "verdict"]) == {"reproduced"}


def test_seeds_apart_are_missing():
    table = trials(AS_CLAIMED)
    table.loc[table["variant"] == "adversarial", "seed"] = 1
    found = scoreboard({"defense": table})
    assert found.loc["defense-adversarial-pgd", "verdict"] == "run missing"
    assert found.loc["defense-adversarial-rule-pgd-small", "verdict"] == "reproduced"


# ---- where the strong attack is needed


def full(variants, eps, changes=None):
    cells = {
        (Side(variant, *defense), attack.method, attack.eps): [10]
        for variant in variants
        for defense in all_defenses((0.5, 1.0))
        for attack in table_attacks(defense, eps, 20)
    }
    return gains(trials(cells | (changes or {})))


def places(frame):
    assert not frame.duplicated().any()
    assert list(frame.columns) == KEY
    return {(one.variant, Defense(one.defense, one.strength), one.eps) for one in frame.itertuples()}


FIXED = {
    ("vanilla", NONE, 0.03),
    ("vanilla", Defense("rule", 1.0), 0.03),
    ("vanilla", Defense("kernels", 8.0), 0.03),
    ("vanilla", Defense("input", 8.0), 0.03),
}


def test_the_strong_attack_is_needed_at_the_sides_of_claims_and_at_every_gain():
    assert needs_strong_attack(gains(trials({}))).empty
    assert claimed_gains(full(["vanilla"], [0.03, 0.06])).empty
    assert places(needs_strong_attack(full(["vanilla"], [0.03, 0.06]))) == FIXED
    both = places(needs_strong_attack(full(["vanilla", "penalised", "adversarial"], [0.03, 0.06])))
    assert both == FIXED | {("penalised", NONE, 0.03)}
    assert needs_strong_attack(full(["vanilla", "penalised"], [0.06])).empty
    found = full(["vanilla"], [0.03, 0.06], {(Side("vanilla", "scale", 1.0), "pgd", 0.06): [60]})
    gained = {("vanilla", Defense("scale", 1.0), 0.06), ("vanilla", NONE, 0.06)}
    assert places(claimed_gains(found)) == gained
    assert places(needs_strong_attack(found)) == FIXED | gained


def test_every_trial_that_a_claim_compares_is_in_the_table_or_strong():
    variants = ["vanilla", "penalised", "adversarial", "adversarial_batchnorm"]
    eps = [0.03, 0.06, 0.09]
    tabled = {
        (Side(variant, *defense), attack.method, attack.eps)
        for variant in variants
        for defense in all_defenses((0.5, 1.0))
        for attack in table_attacks(defense, eps, 20)
    }
    strong = {
        (Side(variant, *defense), "square", at)
        for variant, defense, at in places(needs_strong_attack(full(variants, eps)))
    }
    compared = set()
    for claim in DEFENSE.claims:
        one = claim.statistic.keywords
        for side in (one["first"], one["second"]):
            attack = "pgd" if (side.defense, one["attack"]) == ("none", "unaware") else one["attack"]
            compared.add((side, attack, one["eps"]))
    assert compared <= tabled | strong
