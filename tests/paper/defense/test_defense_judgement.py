"""What is compared with what, and each outcome on a gain."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hfclib.paper.defense.judgement import CONTROL_GAIN, GAIN_COLUMNS, KEY, claimed_gains, gains, outcomes_of_gains
from hfclib.paper.defense.trials import TRIAL_COLUMNS, strong_trials, trials_table
from hfclib.paper.intervals import paired
from hfclib.runs.store import Run
from hfclib.training.recipe import Recipe

COUNT = 40  # images
ADDED = ["strong", "baseline_strong", "strong_gain", "strong_low", "strong_high"]


def first(count):
    """The first `count` images correct, and no other."""
    return tuple(number < count for number in range(COUNT))


def table(*rows):
    """A table from (variant, seed, defense, strength, attack, eps, number of first images correct)."""
    columns = ["variant", "seed", "defense", "strength", "attack", "eps", "correct"]
    return pd.DataFrame([(*row[:-1], first(row[-1])) for row in rows], columns=columns)


def compared(gained):
    """By comparison: the other variant, and both accuracies in images."""
    return {
        (row.variant, row.seed, row.defense, row.strength, row.eps, row.attack): (
            row.baseline_variant,
            round(row.accuracy * COUNT),
            round(row.baseline * COUNT),
        )
        for row in gained.itertuples()
    }


# ---- gains


def test_a_defense_is_compared_with_the_same_network_and_training_with_vanilla_of_the_same_seed():
    gained = gains(
        table(
            ("vanilla", 0, "none", 0.0, "clean", 0.0, 40),
            ("vanilla", 0, "none", 0.0, "pgd", 0.1, 1),
            ("vanilla", 0, "none", 0.0, "fgsm", 0.1, 2),
            ("vanilla", 0, "none", 0.0, "pgd", 0.2, 3),
            ("vanilla", 0, "rule", 0.5, "clean", 0.0, 39),
            ("vanilla", 0, "rule", 0.5, "pgd", 0.1, 4),
            ("vanilla", 0, "rule", 0.5, "fgsm", 0.1, 5),
            ("vanilla", 0, "rule", 0.5, "pgd", 0.2, 6),
            ("vanilla", 0, "rule", 1.0, "pgd", 0.1, 7),
            ("vanilla", 1, "none", 0.0, "pgd", 0.1, 8),
            ("vanilla", 1, "rule", 0.5, "pgd", 0.1, 9),
            ("adversarial", 0, "none", 0.0, "clean", 0.0, 38),
            ("adversarial", 0, "none", 0.0, "pgd", 0.1, 10),
            ("adversarial", 0, "none", 0.0, "fgsm", 0.1, 11),
            ("adversarial", 0, "none", 0.0, "pgd", 0.2, 12),
            ("adversarial", 0, "rule", 0.5, "pgd", 0.1, 13),
            ("adversarial", 1, "none", 0.0, "pgd", 0.1, 14),
        )
    )
    assert compared(gained) == {
        ("vanilla", 0, "rule", 0.5, 0.1, "pgd"): ("vanilla", 4, 1),
        ("vanilla", 0, "rule", 0.5, 0.1, "fgsm"): ("vanilla", 5, 2),
        ("vanilla", 0, "rule", 0.5, 0.2, "pgd"): ("vanilla", 6, 3),
        ("vanilla", 0, "rule", 1.0, 0.1, "pgd"): ("vanilla", 7, 1),
        ("vanilla", 1, "rule", 0.5, 0.1, "pgd"): ("vanilla", 9, 8),
        ("adversarial", 0, "none", 0.0, 0.1, "pgd"): ("vanilla", 10, 1),
        ("adversarial", 0, "none", 0.0, 0.1, "fgsm"): ("vanilla", 11, 2),
        ("adversarial", 0, "none", 0.0, 0.2, "pgd"): ("vanilla", 12, 3),
        ("adversarial", 0, "rule", 0.5, 0.1, "pgd"): ("adversarial", 13, 10),
        ("adversarial", 1, "none", 0.0, 0.1, "pgd"): ("vanilla", 14, 8),
    }
    assert list(gained.columns) == GAIN_COLUMNS
    for row in gained.itertuples():
        own, other = round(row.accuracy * COUNT), round(row.baseline * COUNT)
        assert (row.gain, row.low, row.high) == pytest.approx(paired(first(own), first(other)))


def test_the_non_adaptive_attack_is_compared_with_pgd_on_the_undefended_network():
    gained = gains(
        table(
            ("vanilla", 0, "none", 0.0, "pgd", 0.1, 1),
            ("vanilla", 0, "none", 0.0, "fgsm", 0.1, 2),
            ("vanilla", 0, "input", 8.0, "pgd", 0.1, 3),
            ("vanilla", 0, "input", 8.0, "unaware", 0.1, 30),
        )
    )
    assert compared(gained) == {
        ("vanilla", 0, "input", 8.0, 0.1, "pgd"): ("vanilla", 3, 1),
        ("vanilla", 0, "input", 8.0, 0.1, "unaware"): ("vanilla", 30, 1),
    }


def test_training_without_its_vanilla_network_is_left_out_and_its_defenses_are_not():
    rows = [
        ("adversarial", 3, "none", 0.0, "pgd", 0.1, 10),
        ("adversarial", 3, "rule", 0.5, "pgd", 0.1, 20),
        ("vanilla", 4, "none", 0.0, "pgd", 0.1, 5),
        ("vanilla", 3, "none", 0.0, "pgd", 0.2, 5),
    ]
    expected = {("adversarial", 3, "rule", 0.5, 0.1, "pgd"): ("adversarial", 20, 10)}
    assert compared(gains(table(*rows))) == expected
    assert len(gains(table(*rows[:1]))) == len(gains(table(*rows[2:]))) == 0


def test_gains_of_nothing_are_an_empty_table():
    gained = gains(table(("vanilla", 0, "none", 0.0, "pgd", 0.1, 1)))
    assert len(gained) == 0
    assert list(gained.columns) == GAIN_COLUMNS
    assert list(claimed_gains(gained).columns) == KEY
    assert len(claimed_gains(gained)) == 0
    outcomes = outcomes_of_gains(gained, pd.DataFrame(columns=[*TRIAL_COLUMNS, "images", "accuracy", "correct"]))
    assert list(outcomes.columns) == [*gained.columns, *ADDED, "outcome"]
    assert len(outcomes) == 0


# ---- where the strong attack is needed, and the outcomes

CLAIMS = table(
    *itertools.chain(
        *[
            [
                ("vanilla", seed, "none", 0.0, "fgsm", 0.1, 10),
                ("vanilla", seed, "none", 0.0, "pgd", 0.1, 8),
                ("vanilla", seed, "none", 0.0, "pgd", 0.2, 0),
            ]
            for seed in (0, 1)
        ]
    ),
    ("vanilla", 0, "rule", 0.5, "fgsm", 0.1, 25),
    ("vanilla", 0, "rule", 0.5, "pgd", 0.1, 24),  # a gain by both
    ("vanilla", 0, "rule", 0.5, "pgd", 0.2, 1),  # one image more is no gain
    ("vanilla", 0, "scale", 0.5, "fgsm", 0.1, 10),
    ("vanilla", 0, "scale", 0.5, "pgd", 0.1, 30),  # by PGD alone
    ("vanilla", 0, "kernels", 8.0, "pgd", 0.1, 2),  # a loss
    ("adversarial", 1, "none", 0.0, "fgsm", 0.1, 10),
    ("adversarial", 1, "none", 0.0, "pgd", 0.2, 20),
    ("adversarial", 1, "rule", 0.5, "pgd", 0.2, 20),  # nothing beyond its own network
)


def test_the_strong_attack_is_needed_once_at_every_gain_and_what_it_is_compared_with():
    wanted = claimed_gains(gains(CLAIMS))
    assert list(wanted.columns) == KEY
    rows = list(wanted.itertuples(index=False, name=None))
    assert len(rows) == len(set(rows))
    assert set(rows) == {
        ("vanilla", 0, "rule", 0.5, 0.1),
        ("vanilla", 0, "scale", 0.5, 0.1),
        ("vanilla", 0, "none", 0.0, 0.1),
        ("adversarial", 1, "none", 0.0, 0.2),
        ("vanilla", 1, "none", 0.0, 0.2),
    }


def strong_table(counts):
    """Strong trials in which the last attack leaves so many images correct, and those before it all."""
    return pd.concat(
        [
            table(
                *[(*key[:4], attack, key[4], COUNT) for attack in ("restarts", "margin", "transfer")],
                (*key[:4], "square", key[4], count),
            )
            for key, count in counts.items()
        ]
    )


def test_each_outcome():
    claimed = gains(CLAIMS)
    last = {
        ("vanilla", 0, "rule", 0.5, 0.1): 20,
        ("vanilla", 0, "scale", 0.5, 0.1): 5,
        ("vanilla", 0, "none", 0.0, 0.1): 4,
        ("adversarial", 1, "none", 0.0, 0.2): 18,
        ("vanilla", 1, "none", 0.0, 0.2): 0,
    }
    judged = outcomes_of_gains(claimed, strong_table(last))
    pd.testing.assert_frame_equal(judged[list(claimed.columns)], claimed)
    assert list(judged.columns) == [*claimed.columns, *ADDED, "outcome"]
    outcomes = {(*row[:5], row[5]): row[-1] for row in judged.itertuples(index=False, name=None)}
    assert outcomes == {
        ("vanilla", 0, "rule", 0.5, 0.1, "fgsm"): "robust",
        ("vanilla", 0, "rule", 0.5, 0.1, "pgd"): "robust",
        ("vanilla", 0, "rule", 0.5, 0.2, "pgd"): "no gain",
        ("vanilla", 0, "scale", 0.5, 0.1, "fgsm"): "no gain",
        ("vanilla", 0, "scale", 0.5, 0.1, "pgd"): "masked",
        ("vanilla", 0, "kernels", 8.0, 0.1, "pgd"): "no gain",
        ("adversarial", 1, "none", 0.0, 0.1, "fgsm"): "no gain",
        ("adversarial", 1, "none", 0.0, 0.2, "pgd"): "robust",
        ("adversarial", 1, "rule", 0.5, 0.2, "pgd"): "no gain",
    }
    for row in judged.itertuples():
        numbers = [getattr(row, name) for name in ADDED]
        if row.outcome == "no gain":
            assert np.isnan(numbers).all()
            continue
        own = last[row.variant, row.seed, row.defense, row.strength, row.eps]
        other = last[row.baseline_variant, row.seed, "none", 0.0, row.eps]
        assert numbers == pytest.approx([own / COUNT, other / COUNT, *paired(first(own), first(other))])


def test_what_is_left_must_exceed_what_the_attack_leaves_of_the_control():
    """Of 40 images 4 are left without the defense, and with it these 4 and more.

    By Bonett and Price four more give the interval [-.015, .206], five [.001, .237], six [.018, .268] and seven [.036,
    .297]: above 0 from five on, above .02 from seven on.
    """
    claimed = gains(CLAIMS.query("seed == 0 and eps == .1 and attack == 'pgd' and defense in ('none', 'rule')"))
    scaled = claimed.assign(defense="scale")
    for left, outcome, of_scale in (
        (0, "masked", "masked"),
        (4, "masked", "masked"),
        (8, "masked", "masked"),
        (9, "attack falls short", "attack falls short"),
        (10, "attack falls short", "attack falls short"),
        (11, "robust", "attack falls short"),
        (40, "robust", "attack falls short"),
    ):
        for gained, expected in ((claimed, outcome), (scaled, of_scale)):
            (defense,) = gained["defense"]
            strong = strong_table({("vanilla", 0, defense, 0.5, 0.1): left, ("vanilla", 0, "none", 0.0, 0.1): 4})
            (row,) = outcomes_of_gains(gained, strong).itertuples()
            assert row.outcome == expected, (left, defense, row.strong_low)
            assert (row.strong_low > CONTROL_GAIN) == (outcome == "robust")
            assert (row.strong_low > 0) == (outcome != "masked")


def test_images_are_compared_in_pairs():
    """The same accuracies: on top of those that the other network has right, and mostly on images of its own."""
    places = [("vanilla", 0, "none", 0.0), ("vanilla", 0, "rule", 0.5)]
    rows = [
        (*places[0], "pgd", 0.1, first(20)),
        (*places[1], "pgd", 0.1, first(27)),
        (*places[1], "fgsm", 0.1, first(27)[::-1]),
        (*places[0], "fgsm", 0.1, first(20)),
    ]
    found = gains(pd.DataFrame(rows, columns=list(CLAIMS.columns)))
    assert found["gain"].tolist() == pytest.approx([7 / 40] * 2)
    assert dict(zip(found["attack"], found["low"] > 0, strict=True)) == {"pgd": True, "fgsm": False}


# ---- from attacks to outcomes


def linear(signs, lead):
    """A linear network on (N, 3, 4, 4) whose first class leads by about `lead`; a step of eps costs 480 eps of it."""
    network = nn.Sequential(nn.Conv2d(3, 2, 4), nn.Flatten())
    network[0].weight.data = 5 * torch.stack([signs, -signs]).view(2, 3, 4, 4)
    network[0].bias.data = torch.tensor([lead - 5 * signs.sum(), 0.0])
    return network.eval()


def test_scaled_logits_are_masked_and_a_larger_lead_is_robust(attacked_images, published_folder, tmp_path):
    """At eps .1 no network whose lead is below 48 withstands anything, and one whose lead is 80 withstands everything.
    Times 9, a lead of 35 has no gradient left in float32."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(48, generator=generator).sign()
    pictures = torch.randint(122, 134, (12, 3, 4, 4), generator=generator, dtype=torch.uint8)
    networks = {"vanilla": linear(signs, 35), "adversarial": linear(signs, 80)}
    attacked_images(pictures, torch.zeros(12, dtype=torch.int64))

    class Linear(Run):
        def model(self):
            return networks[self.recipe.name]

    stored = {}
    for variant, network in networks.items():
        recipe = Recipe(variant).with_(norm="batch" if variant == "vanilla" else "none")
        path = tmp_path / recipe.run_name(0)
        path.mkdir()
        save_file(network.state_dict(), path / "weights.safetensors")
        stored[variant] = [Linear(recipe, 0, None, None, {}, path)]
    claimed = gains(trials_table(stored, [1.0], [0.1], 2, images=12, progress=False))
    found = outcomes_of_gains(claimed, strong_trials(stored, claimed_gains(claimed), 2, images=12, progress=False))
    by_key = found.set_index(["variant", "defense", "attack"])
    columns = ["accuracy", "baseline", "strong", "baseline_strong", "outcome"]
    for claim in ("fgsm", "pgd"):
        masked, robust = by_key.loc[("vanilla", "scale", claim)], by_key.loc[("adversarial", "none", claim)]
        assert masked[columns].tolist() == [1, 0, 0, 0, "masked"]
        assert robust[columns].tolist() == [1, 0, 1, 0, "robust"]
        assert by_key.loc[("adversarial", "scale", claim), "outcome"] == "no gain"
