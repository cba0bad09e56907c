"""Which trials each claim compares, over seeds and images, and where the notebook needs the strong attack."""

import numpy as np
import pandas as pd
import pytest
import torch

from hfclib.paper.claims import evaluate
from hfclib.paper.defense.claims import (
    DEFENSE,
    claim_trials,
    needs_strong_attack,
    rule_by_network,
    table2_narrow,
)
from hfclib.paper.defense.judgement import KEY, claimed_gains, gains
from hfclib.paper.defense.setup import NONE, Attack, Defense, all_defenses, defense_recipes, table_attacks
from hfclib.paper.defense.trials import TRIAL_COLUMNS, _trial_name
from hfclib.paper.intervals import Estimate, MissingRunError, over_seeds_and_images, paired
from hfclib.paper.scoreboard import scoreboard
from hfclib.paper.tables import decimals, with_interval
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import store_record, weights_of
from hfclib.runs.store import WEIGHTS, Run

IMAGES = 200
CLAIMS = {claim.id.removeprefix("defense-"): claim for claim in DEFENSE.claims}
RULE, KERNELS, FILTER = Defense("rule", 1.0), Defense("kernels", 8.0), Defense("input", 8.0)
CLEAN = Attack("clean", 0.0, 0)
FGSM, MIDDLE_FGSM, LARGE_FGSM = (Attack("fgsm", eps, 1) for eps in (0.03, 0.06, 0.09))
PGD, UNAWARE, STRONG = (Attack(method, 0.03, 20) for method in ("pgd", "unaware", "square"))
TINY = 2 / 255
TINY_STRONG = Attack("square", TINY, 20)


def trials(cells, images=IMAGES):
    """Trials from {(variant, defense, attack): counts}: by seed, how many of the first images are correct, or which."""
    rows = []
    for (variant, defense, attack), seeds in cells.items():
        for seed, one in enumerate(seeds):
            correct = tuple((np.arange(images) < one).tolist()) if isinstance(one, int) else tuple(map(bool, one))
            rows.append((variant, seed, *defense, *attack, len(correct), np.mean(correct), correct))
    return pd.DataFrame(rows, columns=[*TRIAL_COLUMNS, "images", "accuracy", "correct"])


def three(count):
    return [count, count + 2, count + 1]


AS_CLAIMED = {
    ("vanilla", NONE, CLEAN): three(160),
    ("vanilla", RULE, CLEAN): three(90),
    ("vanilla", NONE, FGSM): three(20),
    ("vanilla", RULE, FGSM): three(60),
    ("vanilla", NONE, MIDDLE_FGSM): three(10),
    ("vanilla", RULE, MIDDLE_FGSM): three(50),
    ("vanilla", RULE, LARGE_FGSM): three(70),
    ("vanilla", NONE, PGD): three(0),
    ("vanilla", FILTER, UNAWARE): three(120),
    ("vanilla", NONE, STRONG): three(0),
    ("vanilla", FILTER, STRONG): three(5),
    ("vanilla", NONE, TINY_STRONG): three(50),
    ("vanilla", RULE, TINY_STRONG): three(48),
    ("vanilla", KERNELS, TINY_STRONG): three(49),
    ("penalised", NONE, TINY_STRONG): three(50),
    ("adversarial", NONE, FGSM): three(90),
    ("adversarial", NONE, PGD): three(80),
    ("adversarial", NONE, LARGE_FGSM): three(10),
    ("adversarial", RULE, LARGE_FGSM): three(60),
    ("adversarial", RULE, FGSM): three(88),
}


def test_numbers_as_claimed_reproduce_every_claim_and_their_reverse_none():
    board = scoreboard({"defense": trials(AS_CLAIMED)})
    assert list(board.index) == [claim.id for claim in DEFENSE.claims if claim.preset == "laptop"]
    assert set(board["verdict"]) == {"reproduced"}
    assert set(board["seeds"]) == {3}
    reverse = {key: [IMAGES - count for count in seeds] for key, seeds in AS_CLAIMED.items()}
    for key, count in (
        (("vanilla", RULE, TINY_STRONG), 190),
        (("penalised", NONE, TINY_STRONG), 190),
        (("adversarial", RULE, FGSM), 180),
    ):
        reverse[key] = three(count)  # "at most" has no reverse in a smaller difference
    verdicts = scoreboard({"defense": trials(reverse)})["verdict"]
    assert set(verdicts) == {"not reproduced in our set-up"}
    narrow = scoreboard({"defense": trials(AS_CLAIMED)}, preset="narrow")
    assert narrow["verdict"].to_dict() == {"defense-rule-fgsm-narrow": "reproduced"}


def test_each_claim_compares_what_it_says():
    expected = {  # first less second, by the counts of AS_CLAIMED, and the paper's difference
        "rule-clean": (160 - 90, None),
        "rule-fgsm": (60 - 20, 0.064),  # .171 - .107
        "rule-fgsm-middle": (50 - 10, None),
        "rule-fgsm-narrow": (60 - 20, 0.064),
        "adversarial-fgsm": (90 - 20, 0.328),
        "adversarial-pgd": (80 - 0, 0.4),
        "rule-over-adversarial": (70 - 10, None),
        "adversarial-rule-large": (60 - 10, None),
        "adversarial-rule-small": (88 - 90, None),
        "marginal": (49 - 50, None),  # the filter gains more than the rule
        "penalised-marginal": (50 - 50, None),
        "input-masked": ((120 - 0) - (5 - 0), None),
    }
    table = trials(AS_CLAIMED)
    assert set(CLAIMS) == set(expected)
    for name, (images, paper) in expected.items():
        assert DEFENSE.estimate(CLAIMS[name], table).mean == pytest.approx(images / IMAGES), name
        assert CLAIMS[name].paper == paper, name
    bounded = {name for name, claim in CLAIMS.items() if claim.relation == "at most"}
    assert bounded == {"adversarial-rule-small", "marginal", "penalised-marginal"}
    assert {CLAIMS[name].bound for name in bounded} == {0.05}
    assert CLAIMS["rule-clean"].version == "clean images"
    assert CLAIMS["rule-over-adversarial"].version == "FGSM, eps .09"


def test_the_trials_of_the_claims_are_all_that_they_need():
    """Each is needed: without it some claim is missing; and no other is."""
    table = trials(AS_CLAIMED)
    listed = {(variant, *trial) for variant, ones in claim_trials("laptop").items() for trial in ones}
    assert listed == set(AS_CLAIMED)
    for variant, defense, attack in AS_CLAIMED:
        here = (table["variant"] == variant) & (table["defense"] == defense.method)
        here &= (table["attack"] == attack.method) & (table["eps"] == attack.eps)
        assert "run missing" in set(scoreboard({"defense": table[~here]})["verdict"])
    assert claim_trials("narrow") == {"vanilla": [(RULE, FGSM), (NONE, FGSM)]}


def test_the_evidence_is_the_stored_trials_of_the_preset(tmp_path):
    """On 500 images; one that is not stored is left out, and not computed: the network can't even be built."""
    for preset in ("laptop", "narrow"):
        recipe, (missing, *stored) = defense_recipes(preset)["vanilla"], claim_trials(preset)["vanilla"]
        run = Run(recipe, 0, None, None, {}, tmp_path / recipe.run_name(0))
        run.path.mkdir()
        (run.path / WEIGHTS).write_bytes(b"no weights")
        of_no_claim = NONE, Attack("fgsm", 0.01, 1)
        tensors = {_trial_name(trial, 500): torch.ones(500, dtype=torch.uint8) for trial in (*stored, of_no_claim)}
        tensors[_trial_name(missing, 499)] = torch.ones(499, dtype=torch.uint8)
        store_record("attacks", run.path.name, tensors, weights_of(run.path))
        evidence = DEFENSE.evidence(Runs({"vanilla": [run]}))
        kept = evidence[["defense", "strength", "attack", "eps", "steps"]].itertuples(index=False, name=None)
        assert list(kept) == [(*defense, *attack) for defense, attack in stored]
        assert set(evidence["images"]) == {500}


# ---- the statistic

GAIN = "vanilla.rule_fgsm_03 - vanilla.fgsm_03"


def contrast(table, text=GAIN):
    return evaluate(text, DEFENSE.cells(table), units="seeds and images")


def test_two_seeds_give_the_interval_over_seeds_and_images():
    """Differences [1, 1, 0] and [0, 1, -1], whose interval is worked out in the test of `over_seeds_and_images`."""
    cells = {
        ("vanilla", RULE, FGSM): [[1, 1, 0], [1, 1, 0]],
        ("vanilla", NONE, FGSM): [[0, 0, 0], [1, 0, 1]],
    }
    found = contrast(trials(cells))
    assert found == over_seeds_and_images([[1, 1, 0], [0, 1, -1]])
    assert found.seeds == 2


def test_seeds_that_lack_a_trial_are_left_out():
    table = trials({("vanilla", RULE, FGSM): [60, 80, 70, 10], ("vanilla", NONE, FGSM): [40, 30, 40]})
    found = contrast(table)
    assert (found.mean, found.seeds) == (pytest.approx((20 + 50 + 30) / 3 / IMAGES), 3)
    alone = contrast(table[(table["seed"] == 1) | (table["defense"] == "none")])
    assert alone == Estimate(pytest.approx(0.25), -np.inf, np.inf, seeds=1)
    others = {
        ("vanilla", RULE, PGD): [3],
        ("vanilla", Defense("rule", 0.5), FGSM): [3],
        ("vanilla", RULE, MIDDLE_FGSM): [3],
    }
    for defense in (NONE, RULE):
        with pytest.raises(MissingRunError, match="no run has vanilla"):
            contrast(trials({("vanilla", defense, FGSM): [3]} | others))
    with pytest.raises(MissingRunError):
        contrast(table[(table["seed"] == 0) == (table["defense"] == "none")])  # no seed in common


def test_of_several_sums_the_one_with_the_largest_mean_counts():
    both = {"contrast": (GAIN, "vanilla.kernels_fgsm_03 - vanilla.fgsm_03")}
    claim = CLAIMS["marginal"].model_copy(update=both)
    for rule, kernels in (([60, 80], [50, 20]), ([50, 20], [60, 80])):
        table = trials(
            {("vanilla", RULE, FGSM): rule, ("vanilla", KERNELS, FGSM): kernels, ("vanilla", NONE, FGSM): [40, 30]}
        )
        first = np.arange(IMAGES)
        expected = [(first < one).astype(float) - (first < other) for one, other in ((60, 40), (80, 30))]
        assert DEFENSE.estimate(claim, table) == over_seeds_and_images(expected)
    with pytest.raises(MissingRunError):  # which would gain more is not known
        DEFENSE.estimate(claim, table[table["defense"] != "kernels"])


# ---- where the strong attack is needed


def full(variants, eps, changes=None):
    cells = {
        (variant, defense, attack): [10]
        for variant in variants
        for defense in all_defenses((0.5, 1.0))
        for attack in table_attacks(defense, eps, 20)
    }
    return gains(trials(cells | (changes or {})))


def places(frame):
    assert not frame.duplicated().any()
    assert list(frame.columns) == KEY
    return {(one.variant, Defense(one.defense, one.strength), one.eps) for one in frame.itertuples()}


FIXED = {("vanilla", NONE, 0.03), ("vanilla", FILTER, 0.03)}
FIXED_TINY = {("vanilla", NONE, TINY), ("vanilla", RULE, TINY), ("vanilla", KERNELS, TINY), ("penalised", NONE, TINY)}


def test_the_strong_attack_is_needed_by_the_claims_and_at_every_gain():
    assert needs_strong_attack(gains(trials({}))).empty
    assert claimed_gains(full(["vanilla"], [0.03, 0.06])).empty
    assert places(needs_strong_attack(full(["vanilla", "penalised", "adversarial"], [0.03, 0.06]))) == FIXED
    assert needs_strong_attack(full(["vanilla", "penalised"], [0.06])).empty
    # With no gain either: else the seeds that happen to show one would alone decide whether gains are small.
    assert places(needs_strong_attack(full(["vanilla", "penalised"], [TINY]))) == FIXED_TINY
    attacked = full(["vanilla"], [0.03, 0.06], {("vanilla", Defense("scale", 1.0), PGD._replace(eps=0.06)): [60]})
    gained = {("vanilla", Defense("scale", 1.0), 0.06), ("vanilla", NONE, 0.06)}
    assert places(claimed_gains(attacked)) == gained
    assert places(needs_strong_attack(attacked)) == FIXED | gained


def test_what_the_rule_gains_is_told_network_by_network():
    table = rule_by_network(Runs())
    assert {("ours", seed) for seed in (0, 1, 2)} | {("as stated", seed) for seed in (0, 1, 2)} == set(table.index)
    assert not table.isna().any(axis=None)
    path = DEFENSE.published("narrow").query("seed == 1 and attack == 'fgsm' and eps == .03")
    plain, smoothed = (path[path["defense"] == defense]["correct"].item() for defense in ("none", "rule"))
    own = table.loc[("as stated", 1)]
    assert own["without, eps .03"] == decimals(sum(plain) / 500)
    assert own["with the rule, eps .03"] == decimals(sum(smoothed) / 500)
    assert own["gain, eps .03"] == with_interval(*paired(smoothed, plain))


def test_table_2_at_the_papers_schedule_is_stored_whole():
    table = table2_narrow(Runs()).droplevel("network")
    assert len(table) == 4
    assert not table.isna().any(axis=None)
    assert table.loc["none", "FGSM, eps .03"].endswith("(paper .107)")
    assert (
        table.loc["logits x 9 (control)", "clean"] == table.loc["none", "clean"] != table.loc["rule, rho = 1", "clean"]
    )
