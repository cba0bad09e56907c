"""The recipes of each figure and preset: the paper's settings, and networks that differ in one thing at a time."""

import json
from dataclasses import astuple

import pytest
import torch

from hfclib.conditions import PAPER_RADII
from hfclib.paper.bands import fig1_recipes
from hfclib.paper.batchnorm import all_recipes
from hfclib.paper.defense.setup import defense_recipes
from hfclib.paper.fig3 import fig3_recipes
from hfclib.paper.fig4 import ablation_recipes
from hfclib.paper.labels import labels_recipes
from hfclib.paper.misalignment import fig2_recipes
from hfclib.paper.presets import PRESETS, fig4_recipes, stated_recipes
from hfclib.paper.registry import RECIPES
from hfclib.training.recipe import Recipe

PANELS = ["vanilla", "dropout", "mixup", "batchnorm", "adversarial"]


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_panels():
    for preset in PRESETS:
        variants = fig4_recipes(preset)
        assert list(variants) == PANELS
        assert [recipe.name for recipe in variants.values()] == [f"{preset}-{variant}" for variant in PANELS]
        assert len({recipe.hash for recipe in variants.values()}) == 5
        assert variants["adversarial"] == defense_recipes(preset)["adversarial"]
        vanilla = variants["vanilla"]
        assert (vanilla.model.norm, vanilla.model.dropout, vanilla.mixup_alpha) == ("none", 0, 0)
        by_code = preset == "authors"
        changes = {
            "dropout": {"dropout": 0.5, "dropout_at": "map" if by_code else "features"},
            "mixup": {"mixup_alpha": 1.0 if by_code else 0.5},
            "batchnorm": {"norm": "batch"},
        }
        for variant, change in changes.items():  # one heuristic a variant, and all else equal
            assert variants[variant] == vanilla.with_(name=f"{preset}-{variant}", **change)


@pytest.mark.parametrize("preset", ["paper", "authors"])
def test_the_papers_set_up(preset):
    recipe = fig4_recipes(preset)["vanilla"]
    assert (recipe.epochs, recipe.optimizer.learning_rate, recipe.data.batch_size) == (100, 1e-4, 100)
    assert (recipe.optimizer.schedule, recipe.data.augment, recipe.data.train_images) == ("constant", False, 50_000)
    expected = ("resnet32", "max") if preset == "authors" else ("resnet18", "none")
    assert (recipe.model.network, recipe.data.rescale) == expected


@pytest.mark.parametrize(
    ("preset", "millions"), [("smoke", 0.04), ("laptop", 0.70), ("narrow", 0.70), ("paper", 11.17), ("authors", 0.46)]
)
def test_networks_of_the_presets(preset, millions):
    network = fig4_recipes(preset)["vanilla"].build()
    assert round(count_parameters(network) / 1e6, 2) == millions
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_smoke_needs_embedded_images_only():
    assert all(recipe.data.train_images <= 5_000 for recipe in fig4_recipes("smoke").values())


def test_recipes_of_a_name_are_equal_and_those_of_two_names_differ():
    # The name is that of a run's folder, and a variant is the name without its preset.
    for preset in PRESETS:
        known = {}
        for make in RECIPES.values():
            for variant, recipe in make(preset).items():
                assert recipe.name == f"{preset}-{variant}"
                assert recipe == known.setdefault(recipe.name, recipe)
                assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
        # The authors' preset scales in that way anyway: there the "max" networks are the others under a second name.
        different = [recipe for name, recipe in known.items() if preset != "authors" or not name.endswith("max")]
        assert len({recipe.hash for recipe in different}) == len(different)


def test_labels_are_the_only_change_but_for_the_published_length():
    for preset in PRESETS:
        variants = labels_recipes(preset)
        assert list(variants) == ["natural", "shuffled", "natural_plain", "shuffled_plain"]
        for suffix, norm in (("", "batch"), ("_plain", "none")):
            natural, shuffled = variants[f"natural{suffix}"], variants[f"shuffled{suffix}"]
            assert (natural.model.norm, natural.train_bands, natural.data.augment) == (norm, True, False)
            assert (natural.data.labels, shuffled.data.labels) == ("natural", "shuffled")
            assert shuffled.with_(name=natural.name, labels="natural", epochs=natural.epochs) == natural
            longer = 1 if preset in ("smoke", "laptop") else 3
            assert shuffled.epochs == longer * natural.epochs
        assert preset not in ("smoke", "laptop") or natural.data.train_images <= 5_000


def test_networks_that_normalise():
    for preset in PRESETS:
        variants, others = all_recipes(preset), fig4_recipes(preset)
        assert all(variants[variant] == others[variant] for variant in ("vanilla", "batchnorm", "mixup", "dropout"))
        assert variants["groupnorm"] == others["vanilla"].with_(name=f"{preset}-groupnorm", norm="group")
        assert variants["groupnorm"].build()(torch.rand(2, 3, 32, 32)).isfinite().all()


def test_augmentation_is_taken_back_where_there_is_any():
    for preset in PRESETS:
        variants = ablation_recipes(preset)
        assert list(variants) == (["vanilla_noaug", "batchnorm_noaug"] if preset in ("smoke", "laptop") else [])
        for variant, recipe in variants.items():
            with_it = fig4_recipes(preset)[variant.removesuffix("_noaug")]
            assert recipe == with_it.with_(name=f"{preset}-{variant}", augment=False)


def test_the_set_up_as_stated_changes_in_one_thing_at_a_time():
    short, paper, narrow = stated_recipes("paper"), fig4_recipes("paper"), fig4_recipes("narrow")
    for variant in ("vanilla", "batchnorm"):
        full = short[f"{variant}_16"].with_(name=f"paper-{variant}", epochs=100, final_images=10_000)
        assert full == paper[variant]
        half, cropped = (stated_recipes("narrow")[f"{variant}_{end}"] for end in ("w32", "cropped"))
        assert half.with_(name=f"narrow-{variant}", width=16, epochs=100) == narrow[variant]
        assert cropped.with_(name=f"narrow-{variant}", augment=False) == narrow[variant]
        both = short[f"{variant}_cropped30"].with_(name=f"narrow-{variant}_cropped", width=16, epochs=100)
        assert both == cropped
    assert (half.model.width, half.epochs) == (32, 16)
    assert (short["vanilla_cropped30"].model.width, short["vanilla_cropped30"].epochs) == (64, 30)


def test_table_1_trains_on_each_band_at_each_radius_once():
    for preset in PRESETS:
        variants, vanilla, by_text = fig1_recipes(preset), fig4_recipes(preset)["vanilla"], "range"
        kinds = [("hfc", "max", "max"), ("lfc", by_text, ""), ("hfc", by_text, "")]
        if preset == "authors":  # divided by its maximum, the HFC of the third kind is the first
            kinds = [("hfc", "max", "max"), ("lfc", "max", "")]
        expected = [(f"{band}{radius}{end}", band, radius, how) for band, how, end in kinds for radius in PAPER_RADII]
        found = [(name, one.data.train_band, one.data.train_radius, one.data.rescale) for name, one in variants.items()]
        assert found == expected
        assert len({recipe.hash for recipe in variants.values()}) == len(variants)
        for recipe in variants.values():
            assert (
                recipe.with_(name=vanilla.name, train_band="x", train_radius=0, rescale=vanilla.data.rescale) == vanilla
            )


def test_misalignment_is_counted_on_the_networks_of_fig4():
    for preset in PRESETS:
        variants, others = fig2_recipes(preset), fig4_recipes(preset)
        assert (variants["vanilla"], variants["batchnorm"]) == (others["vanilla"], others["batchnorm"])
        assert ("fullwidth" in variants) == (preset in ("smoke", "laptop"))


def test_narrow_differs_from_the_paper_in_the_width_alone():
    for figure in set(RECIPES) - {"stated"}:
        narrow, paper = RECIPES[figure]("narrow"), RECIPES[figure]("paper")
        assert {variant: recipe.with_(width=64, name="same") for variant, recipe in narrow.items()} == {
            variant: recipe.with_(name="same") for variant, recipe in paper.items()
        }


def test_the_full_width_network_is_the_published_size():
    assert count_parameters(fig2_recipes("laptop")["fullwidth"].build()) == pytest.approx(11.2e6, rel=0.01)


def test_kernels_and_defenses_share_their_networks():
    for preset in PRESETS:
        kernels, attacked, others = fig3_recipes(preset), defense_recipes(preset), fig4_recipes(preset)
        assert list(kernels) == [
            "vanilla",
            "batchnorm",
            "adversarial",
            "adversarial_batchnorm",
            "vanilla5",
            "adversarial5",
        ]
        assert list(attacked) == ["vanilla", "penalised", "adversarial", "adversarial_batchnorm"]
        assert (kernels["vanilla"], kernels["batchnorm"]) == (others["vanilla"], others["batchnorm"])
        assert all(
            attacked[variant] == kernels[variant] for variant in ("vanilla", "adversarial", "adversarial_batchnorm")
        )
        names = {recipe.name: recipe.hash for recipe in (*kernels.values(), *attacked.values())}
        assert set(names) == {f"{preset}-{variant}" for variant in (*kernels, *attacked)}
        assert len(set(names.values())) == 7
        for variant in ("vanilla", "adversarial"):
            assert kernels[f"{variant}5"] == kernels[variant].with_(name=f"{preset}-{variant}5", stem_kernel=5)
        assert kernels["adversarial_batchnorm"] == kernels["adversarial"].with_(
            norm="batch", name=f"{preset}-adversarial_batchnorm"
        )
        assert attacked["penalised"].smoothness_penalty > 0
        assert attacked["penalised"].with_(name=f"{preset}-vanilla", smoothness_penalty=0) == others["vanilla"]


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("smoke", ("single_step", 8 / 255, 10 / 255, 1, True)),
        ("laptop", ("single_step", 8 / 255, 10 / 255, 1, True)),
        ("paper", ("pgd", 8 / 255, 2 / 255, 7, True)),
        ("authors", ("pgd", 0.03, 0.003, 10, False)),
    ],
)
def test_attacks_of_the_presets(preset, expected):
    recipe, vanilla = fig3_recipes(preset)["adversarial"], fig4_recipes(preset)["vanilla"]
    assert astuple(recipe.attack) == expected
    by_code = {"rescale": "none", "augment": True} if preset == "authors" else {}
    assert recipe == vanilla.with_(name=f"{preset}-adversarial", attack=recipe.attack, **by_code)
