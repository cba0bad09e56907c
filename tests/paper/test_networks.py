"""The chapter on all networks: the shifts, the correlation over recipes, and the claims on tables made by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2.functional import adjust_sharpness

from hfclib._files import data_folder
from hfclib.frequency import split
from hfclib.paper import networks
from hfclib.paper.intervals import MissingRunError
from hfclib.paper.networks import NETWORKS, SHIFTS, lost, networks_recipes, rank_correlation, shifted

CLAIMS = {claim.id: claim for claim in NETWORKS.claims}


# ---- shifts


def test_a_shifted_image_depends_on_no_other(cifar):
    images = cifar["test"][0][:6]
    for shift in SHIFTS:
        changed = shifted(images, shift)
        assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
        assert torch.equal(changed[:4], shifted(images[:4], shift)), shift
        assert not torch.equal(changed, images), shift


def test_shifts_are_what_they_say(cifar):
    images = cifar["test"][0][:50]
    change = {shift: (shifted(images, shift).float() - images).square().mean().sqrt().item() for shift in SHIFTS}
    for weaker, stronger in (
        ("jpeg90", "jpeg70"),
        ("jpeg70", "jpeg50"),
        ("jpeg50", "jpeg30"),
        ("resize24", "resize16"),
    ):
        assert 1 < change[weaker] < change[stronger] < 30
    grey = torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)
    for sd in (4, 8, 16):
        assert (shifted(grey, f"noise{sd}").float() - 128).std().item() == pytest.approx(sd, rel=0.03)
    assert torch.equal(shifted(grey, "resize16"), grey)
    other = adjust_sharpness(images, 2)  # torchvision's own arithmetic
    assert (shifted(images, "sharpen2").int() - other).abs().max() <= 2


def test_other_shifts_and_other_images_are_refused():
    with pytest.raises(ValueError, match=r"expected shift, one of .* got 'jpeg95'; did you mean jpeg90"):
        shifted(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "jpeg95")
    with pytest.raises(ValueError, match=r"expected images, uint8 .* got torch.float32"):
        shifted(torch.zeros(1, 3, 8, 8), "jpeg90")


def test_the_hfc_of_a_change_leaves_the_lfc_alone():
    fed = dict(networks.shift_inputs(20))
    images = fed.pop("none")
    for name, inputs in fed.items():
        low, high = split(inputs - images, networks.RADIUS)
        assert high.abs().max() > 0.01, name
        assert (low.abs().max() < 1e-5) == name.endswith(" hfc"), name
        if name.endswith(" hfc"):
            whole = split(fed[name.removesuffix(" hfc")] - images, networks.RADIUS)[1]
            assert (high - whole).abs().max() < 1e-5, name


# ---- the correlation


def test_the_rank_correlation_is_that_of_scipy_also_with_ties():
    first, second = np.random.default_rng(1).normal(size=(2, 15))
    second = np.round(second + first, 0)
    assert rank_correlation(first, second).mean == pytest.approx(stats.spearmanr(first, second).statistic)


def test_a_control_that_explains_both_leaves_nothing():
    control, *noise = np.random.default_rng(2).normal(size=(3, 300))
    first, second = (control + 0.3 * one for one in noise)
    assert rank_correlation(first, second).low > 0.8
    left = rank_correlation(first, second, control)
    ranks = [stats.rankdata(one) for one in (first, second, control)]
    xy, xz, yz = np.corrcoef(ranks)[[0, 0, 1], [1, 2, 2]]
    assert left.mean == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert left.low < 0 < left.high


def test_the_interval_is_that_of_fishers_transformation_in_a_large_sample():
    first, second = np.random.default_rng(3).multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=400).T
    found = rank_correlation(first, second)
    half = 1.96 * 1.03 / np.sqrt(397)
    expected = np.tanh(np.arctanh(found.mean) + np.array([-half, half]))
    assert [found.low, found.high] == pytest.approx(expected, abs=0.02)


# ---- claims


def rows(variant, seed, test, hfc, kept, kind="no normalisation"):
    """The rows of a table for a network that keeps a share of its accuracy under every shift and attack."""
    clean = {"test": test, "none": test + 0.01, "pgd0": test - 0.01}
    bands = {f"H{radius}": hfc for radius in (4, 8, 12, 16)}
    under = {name: kept * (test + 0.01) for shift in SHIFTS for name in (shift, f"{shift} hfc")}
    attacked = dict.fromkeys(("pgd2", "pgd8"), kept * (test - 0.01))
    common = {"variant": variant, "seed": seed, "kind": kind}
    return [common | {"measure": name, "accuracy": one} for name, one in (clean | bands | under | attacked).items()]


def made(count, seeds=3):
    """Recipes that lose the more, the more they read; their seeds spread in the opposite direction."""
    return pd.DataFrame(
        row
        for number in range(count)
        for seed in range(seeds)
        for row in rows(f"v{number}", seed, 0.7, 0.1 * number + 0.01 * seed, 0.9 - 0.1 * number + 0.01 * seed)
    )


def test_the_unit_of_the_claims_is_the_recipe():
    for name in ("networks-shift", "networks-attack"):
        claim = CLAIMS[name]
        estimate = claim.statistic(made(5))
        assert (estimate.mean, estimate.seeds) == (pytest.approx(1), 5)
        assert claim.judge(estimate) == "reproduced"
        assert claim.judge(claim.statistic(made(2))) == "two networks"
        with pytest.raises(MissingRunError):
            claim.statistic(made(1))


def test_the_share_lost_is_of_the_accuracy_on_the_same_images():
    found = lost(made(3)).droplevel("kind")
    for measure in ("jpeg90", "noise8 hfc", "mean", "mean hfc", "pgd2"):
        assert found[measure].tolist() == pytest.approx([0.09, 0.19, 0.29]), measure


def test_networks_near_chance_or_not_measured_are_left_out():
    found = pd.concat([made(3), pd.DataFrame(rows("chance", 0, 0.39, 0.1, 0.5))])
    unmeasured = pd.DataFrame([row for row in rows("new", 0, 0.8, 0.3, 0.5) if row["measure"] in ("test", "H8")])
    assert lost(pd.concat([found, unmeasured])).index.get_level_values("variant").tolist() == ["v0", "v1", "v2"]
    assert lost(unmeasured).empty


# ---- networks


def test_every_published_network_is_in_the_chapter():
    folder = data_folder() / "runs"
    known = {recipe.name: recipe for recipe in networks_recipes().values()}
    paths = sorted(folder.glob("*/run.json"))
    names = [path.parent.name.rsplit("-", 2) for path in paths]
    assert len(names) >= 37
    assert [name for name, _, recipe_hash in names if known[name].hash != recipe_hash] == []
