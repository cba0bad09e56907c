"""The chapter on all networks: the shifts, the correlation over recipes, and the claims on tables made by hand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision.transforms.v2.functional import adjust_sharpness

from book.chapters import NOTEBOOKS
from hfclib._files import data_folder
from hfclib.frequency import split
from hfclib.models import REGISTERED, register_network
from hfclib.paper import networks
from hfclib.paper.generalisation import generalisation_table, rule_recipes
from hfclib.paper.intervals import MissingRunError
from hfclib.paper.networks import NETWORKS, SHIFTS, networks_recipes, relative_drop, shifted
from hfclib.paper.presets import stated_recipes
from hfclib.runs.collect import Runs, published_runs
from hfclib.runs.store import find

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


# ---- claims


def rows(variant, seed, test, hfc, kept, kind="no normalisation"):
    """The rows of a table for a network that keeps a share of its accuracy under every shift and attack."""
    clean = {"test": test, "none": test + 0.01, "pgd0": test - 0.01}
    bands = {f"{band}{radius}": hfc for radius in (4, 8, 12, 16) for band in "HL"}
    bands |= {f"{name} authors": 1 - value for name, value in bands.items()}
    under = {name: kept * (test + 0.01) for shift in SHIFTS for name in (shift, f"{shift} hfc")}
    attacked = dict.fromkeys(("pgd2", "pgd8"), kept * (test - 0.01))
    common = {"variant": variant, "seed": seed, "kind": kind}
    return [common | {"measure": name, "value": one} for name, one in (clean | bands | under | attacked).items()]


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
        estimate = NETWORKS.estimate(claim, made(5))
        assert (estimate.mean, estimate.seeds) == (pytest.approx(1), 5)
        assert claim.judge(estimate) == "reproduced"
        for few in (made(1), made(2)):  # two have a correlation of 1 or -1 by themselves
            with pytest.raises(MissingRunError, match="fewer than 3 recipes"):
                NETWORKS.estimate(claim, few)


def test_each_claim_reads_its_own_columns():
    found = made(4, seeds=1)
    place, measure = found["variant"].str[1].astype(int), found["measure"]
    for chosen, clean, lost in (
        (measure.str.endswith(" hfc"), 0.71, (0.1, 0.2, 0.3, 0.4)),
        (measure.isin(SHIFTS), 0.71, (0.4, 0.3, 0.2, 0.1)),
        (measure == "pgd2", 0.69, (0.1, 0.3, 0.2, 0.4)),
    ):
        found.loc[chosen, "value"] = clean * (1 - place[chosen].map(dict(enumerate(lost))))
    means = [NETWORKS.estimate(CLAIMS[f"networks-{name}"], found).mean for name in ("shift", "attack")]
    assert means == pytest.approx([1, 0.8])


@pytest.mark.parametrize("preset", ["laptop", "narrow", "authors"])
def test_a_network_counts_once_however_many_recipes_train_it(preset):
    hashes = [recipe.with_(train_bands=False).hash for recipe in networks.networks_recipes(preset).values()]
    assert len(set(hashes)) == len(hashes)


def test_with_two_recipes_or_equal_ones_the_chapter_says_that_they_are_too_few():
    same = made(3).assign(value=lambda measured: measured["value"].mask(measured["measure"] == "H8", 0.3))
    with pytest.raises(MissingRunError, match="no correlation that is defined"):
        NETWORKS.estimate(CLAIMS["networks-shift"], same)
    for measured in (made(2), same):
        said = networks.networks_answer(measured, 8).data
        assert "nan" not in said
        assert ("Too few recipes are measured for a correlation." in said) == (measured is not same)
        assert networks.association_rows(measured, 8).empty
        networks.association_figure(networks.association_rows(measured, 8))
    assert "3 recipes" in networks.networks_answer(made(3), 8).data


def test_the_share_lost_is_of_the_accuracy_on_the_same_images():
    found = relative_drop(made(3)).droplevel("kind")
    for measure in ("jpeg90", "noise8 hfc", "mean", "mean hfc", "pgd2"):
        assert found[measure].tolist() == pytest.approx([0.09, 0.19, 0.29]), measure


def test_networks_near_chance_or_not_measured_are_left_out():
    found = pd.concat([made(3), pd.DataFrame(rows("chance", 0, 0.39, 0.1, 0.5))])
    unmeasured = pd.DataFrame([row for row in rows("new", 0, 0.8, 0.3, 0.5) if row["measure"] in ("test", "H8")])
    assert relative_drop(pd.concat([found, unmeasured])).index.get_level_values("variant").tolist() == [
        "v0",
        "v1",
        "v2",
    ]
    assert relative_drop(unmeasured).empty
    # A mean of the shifts is over all of them.
    lacks = made(3).query("variant != 'v1' or measure != 'jpeg90'")
    assert relative_drop(lacks).index.get_level_values("variant").tolist() == ["v0", "v2"]
    assert networks.report_table(lacks, 8).at["v1", "JPEG"] == "\u2013"
    # A network that a reader trained counts in no column: what is read and what is lost are of the same networks.
    further = pd.DataFrame([row for row in rows("v0", 5, 0.9, 0.9, 0.5) if row["measure"] in ("test", "H8")])
    pd.testing.assert_frame_equal(relative_drop(pd.concat([made(3), further])), relative_drop(made(3)))


# ---- networks


def test_every_published_network_of_these_images_is_in_the_chapter():
    """But for those that the rule of the chapter on generalisation is about, trained since, and shortened trainings."""
    others = rule_recipes() | stated_recipes("paper")
    known = {(recipe.name, recipe.hash) for recipe in (networks_recipes() | others).values()}
    published = [json.loads(path.read_text()) for path in (data_folder() / "runs").glob("*/run.json")]
    usual = [run for run in published if run["recipe"].get("data", "cifar10") == "cifar10"]
    plain = {(run["recipe"]["name"], run["hash"]) for run in usual if not run["recipe"].get("planted")}
    assert len(plain) >= 25  # recipes
    assert plain <= known


def test_the_text_counts_the_recipes_that_are_one_network():
    table = networks.networks_table(published_runs(networks_recipes()))
    seeds = table.groupby("variant")["seed"].nunique()
    among = seeds[relative_drop(table).index.get_level_values("variant")]
    text = (NOTEBOOKS / "networks.ipynb").read_text("utf-8")
    assert f"{len(among)} recipes, {(among == 1).sum()} of them single networks" in text
    assert f"more seeds of {(seeds == 1).sum()} of the recipes" in text


def test_every_published_table_is_whole_and_says_where_it_comes_from():
    measures = {"none", *SHIFTS, *(f"{shift} hfc" for shift in SHIFTS), *networks.NETWORK_ATTACKS}
    recipes = networks_recipes()
    measured = 0
    for run in published_runs(recipes).all():
        if (
            rows := networks.stored_measures(run)
        ) is not None:  # else it was published since, and is measured by the module
            measured += 1
            assert set(rows["measure"]) == measures
            counts = rows["measure"].isin(networks.NETWORK_ATTACKS).map({True: 500, False: 2_000})
            assert (rows["images"] == counts).all()
            by_name = rows.set_index("measure")["accuracy"]
            assert by_name["pgd8"] <= by_name["pgd2"] <= by_name["pgd0"], run.path.name
            assert by_name["none"] == pytest.approx(run.test_accuracy(), abs=0.04)  # four standard errors
            origin = json.loads((data_folder() / "networks" / f"{run.path.name}.json").read_text())
            assert len(origin["commit"]) == 40, origin["commit"]
    assert measured >= 37


@pytest.mark.slow
def test_a_network_is_measured_again_on_fewer_images():
    run = find(networks_recipes()["lfc4"], 0)
    stored, again = networks.stored_measures(run), networks.measure_network(run, counts={"shifts": 300, "attacks": 30})
    assert again["measure"].tolist() == stored["measure"].tolist()
    error = np.where(
        again["measure"].isin(networks.NETWORK_ATTACKS), 0.37, 0.116
    )  # four standard errors of a share, at most
    assert ((again["accuracy"] - stored["accuracy"]).abs() < error).all()


def test_a_registered_network_is_of_the_kind_that_was_measured_and_not_of_its_recipes(random_run):
    """Its builder takes no `norm`, so that its recipe says "none" whatever its layers are."""
    register_network("toy")(lambda *, width: nn.Identity())
    try:
        ones = {variant: random_run(variant, 0) for variant in ("vanilla", "batchnorm")}
        own = {
            f"toy_{variant}": replace(run, recipe=run.recipe.with_(network="toy", norm="none"))
            for variant, run in ones.items()
        }
    finally:
        del REGISTERED["toy"]
    assert {run.recipe.model.norm for run in own.values()} == {"none"}
    runs = Runs({variant: [run] for variant, run in (ones | own).items()})
    kinds = networks.networks_table(runs).groupby("variant")["kind"].unique().explode().to_dict()
    assert kinds == {
        "vanilla": "no normalisation",
        "batchnorm": "BatchNorm",
        "toy_vanilla": "other, no BatchNorm",
        "toy_batchnorm": "BatchNorm",
    }
    norms = generalisation_table(runs).groupby("variant")["norm"].unique().explode().to_dict()
    assert norms == {"vanilla": "none", "batchnorm": "batch", "toy_vanilla": "unknown", "toy_batchnorm": "batch"}
    found = pd.DataFrame(row for variant, kind in kinds.items() for row in rows(variant, 0, 0.7, 0.3, 0.5, kind))
    drawn = networks.fragility_figure(found, 8, "noise8").axes[0].lines[: len(set(kinds.values()))]
    assert [line.get_label() for line in drawn] == ["no normalisation", "BatchNorm", "other, no BatchNorm"]


# ---- what is shown


def test_noise_lies_beyond_a_radius_as_far_as_the_bins_do(cifar):
    row = networks.change_table(200).loc["noise 4/255"]
    assert float(row["size of the change"].removesuffix("/255")) == pytest.approx(4, abs=0.1)
    for radius, bins in ((4, 45), (8, 193), (12, 437), (16, 793)):
        assert float(row[f"beyond r = {radius}"]) == pytest.approx(1 - bins / 1024, abs=0.02)


def test_the_table_has_every_network_the_most_accurate_first():
    unmeasured = [row for row in rows("batchnorm", 0, 0.8, 0.3, 0.5) if row["measure"] in ("test", "H8")]
    text = networks.report_table(pd.DataFrame([*rows("lfc4", 1, 0.7, 0.1, 0.6), *unmeasured]), 8)
    assert list(text.index) == ["BatchNorm", "LFC only, r\u00a0=\u00a04"]
    assert text.loc["BatchNorm", ["seeds", "test", "H8", "JPEG"]].tolist() == [1, ".80", ".30", "\u2013"]
    assert text.loc["LFC only, r\u00a0=\u00a04", ["JPEG", "PGD 8/255"]].tolist() == [".43", ".41"]


def test_names_of_networks_are_different():
    names = [networks.network_name(variant) for variant in networks_recipes()]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "_" in name or name[0].islower()]
    assert {
        "HFC x 4 in training, BatchNorm",
        "HFC only / max, r\u00a0=\u00a04",
        "Vanilla, the schedule as stated",
        "Vanilla, the authors' set-up",
        "Penalised kernels",
    } <= set(names)


def test_the_figures_show_the_shares_and_the_correlations():
    measured = made(4)
    figure = networks.fragility_figure(measured, 8, "noise8")
    assert [ax.get_title() for ax in figure.axes] == ["noise 8/255", "noise 8/255, HFC alone", "PGD, eps 2/255"]
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([0.09, 0.19, 0.29, 0.39])
    drawn = networks.association_rows(measured, 8)
    assert len(drawn) == 2 * (2 * 11 + 1)
    one = drawn.query("measure == 'mean' and part == 'hfc' and control == 'none'").iloc[0]
    estimate = NETWORKS.estimate(CLAIMS["networks-shift"], measured)
    assert (one["mean"], one["low"], one["recipes"]) == (estimate.mean, estimate.low, estimate.seeds)
    shown = networks.association_figure(drawn).axes[0]
    assert [tick.get_text() for tick in shown.get_yticklabels()][-2:] == ["mean of ten shifts", "PGD, eps 2/255"]
    assert "over 4 recipes" in networks.networks_answer(measured, 8).data
    nothing = measured[measured["measure"].isin(["test", "H8", "L8"])]
    assert networks.association_rows(nothing, 8).empty
    networks.fragility_figure(nothing, 8, "noise8")


def test_beside_another_radius_the_hfc_of_a_shift_names_its_own():
    measured = pd.concat([made(3), pd.DataFrame(rows("batchnorm", 0, 0.8, 0.35, 0.5))])
    for radius, own in ((8, ""), (4, " (r = 8)")):
        titles = [ax.get_title() for ax in networks.fragility_figure(measured, radius, "noise8").axes]
        assert titles == ["noise 8/255", f"noise 8/255, HFC alone{own}", "PGD, eps 2/255"]
        shown = networks.association_figure(networks.association_rows(measured, radius), radius)
        assert [ax.get_title() for ax in shown.axes] == ["shifts as they are", f"their HFC alone{own}"]
        columns = list(networks.subset_table(measured, radius))
        assert columns[1::2] == [f"HFC of the shifts{own}", "attack of 2/255"]
        said = networks.networks_answer(measured, radius).data
        assert f"the share lost to the HFC of the shifts{own}: " in said
        assert f"to the HFC of the shifts{own} and" in said


def test_the_correlation_among_fewer_recipes():
    against = pd.DataFrame(
        row for number in (0, 1) for row in rows(f"a{number}", 0, 0.6, 0.1, 0.8 + number / 10, "adversarial training")
    )
    # Of the chapter on training choices three go, two of another set-up; vanilla, which is in it too, stays.
    names = "batch32", "narrow_batch64", "authors_sgd", "vanilla"
    batches = pd.DataFrame(row for name in names for row in rows(name, 0, 0.8, 0.3, 0.5))
    text = networks.subset_table(pd.concat([made(3), against, batches]), 8)
    assert text["number"].tolist() == ["9", "7", "9", "7", "7", "4", "9"]
    assert text.loc["no adversarial training", "attack of 2/255"].startswith("1.000")
    assert not text.loc["all", "attack of 2/255"].startswith("1.000")
    theirs = text.loc["all, HFC accuracy measured as the authors did", "attack of 2/255"]
    assert theirs.startswith("-" + text.loc["all", "attack of 2/255"][:4])
