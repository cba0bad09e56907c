"""hfclib.recipes: hashes that name published runs, refusals, and the recipes of each figure and preset."""

import json
import math
from dataclasses import fields, replace

import pytest
import torch
from pydantic.dataclasses import dataclass

from hfclib._files import data_folder
from hfclib.paper.batchnorm import ablation_recipes, all_recipes, batchnorm_recipes, fig6_recipes
from hfclib.paper.choices import choices_recipes
from hfclib.paper.defense.setup import defense_recipes
from hfclib.paper.fig1 import fig1_recipes
from hfclib.paper.fig2 import fig2_recipes
from hfclib.paper.fig3 import fig3_recipes
from hfclib.paper.labels import labels_recipes
from hfclib.paper.presets import PRESETS, fig4_recipes
from hfclib.paper.registry import RECIPES, chapter_recipes
from hfclib.training.recipe import Recipe

PANELS = ["vanilla", "dropout", "mixup", "batchnorm", "adversarial"]

# A value other than the default for every field: a new field must be added here.
OTHER = {
    "arch": "resnet32",
    "width": 16,
    "norm": "batch",
    "dropout": 0.5,
    "dropout_at": "map",
    "mixup_alpha": 0.5,
    "epochs": 3,
    "batch_size": 64,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "weight_decay": 5e-4,
    "schedule": "one_cycle",
    "augment": True,
    "early_sizes": (16, 24),
    "label_smoothing": 0.1,
    "rescale": "max",
    "train_band": "lfc",
    "train_radius": 4,
    "adversarial": "pgd",
    "adv_eps": 0.03,
    "adv_alpha": 0.01,
    "adv_steps": 7,
    "adv_random_start": False,
    "stem_kernel": 5,
    "smoothness_penalty": 1.0,
    "labels": "shuffled",
    "train_bands": True,
    "train_images": 512,
    "eval_images": 100,
    "final_images": 200,
}


STORED = sorted(path for path in (data_folder() / "runs").glob("*") if path.suffix != ".partial")
ATTACK = {"adversarial": "pgd", "adv_eps": 0.03, "adv_alpha": 0.01, "adv_steps": 2}


def test_hashes_of_stored_runs():
    assert len(STORED) > 20
    for path in STORED:
        content = json.loads((path / "run.json").read_bytes())
        recipe = Recipe(**content["recipe"])
        assert recipe.hash == content["hash"]
        assert recipe.run_name(content["seed"]) == path.name


def test_the_name_is_not_in_the_hash():
    assert Recipe("one").hash == Recipe("other").hash


def test_every_other_field_is_in_the_hash():
    # A band and its radius go together, and so do an attack and its settings: each is changed beside others' values.
    partners = {"train_band": {"train_radius": 8}, "train_radius": {"train_band": "hfc"}}
    attack = {"adversarial": "pgd", "adv_eps": 0.1, "adv_alpha": 0.1, "adv_steps": 1}
    partners |= dict.fromkeys(("adv_random_start", *attack), attack)
    hashes = {Recipe("a", **partners.get(field, {}) | {field: value}).hash for field, value in OTHER.items()}
    assert set(OTHER) == {f.name for f in fields(Recipe)} - {"name"}
    assert len(hashes - {Recipe("a").hash}) == len(OTHER)


def test_a_later_field_at_its_default_leaves_hashes_alone():
    @dataclass(frozen=True)
    class Later(Recipe):
        brightness: float = 0.0

    for recipe in fig4_recipes("laptop").values():
        assert Later(**recipe.to_dict()).hash == recipe.hash
        assert Later(**recipe.to_dict(), brightness=0.1).hash != recipe.hash


def test_equal_recipes_have_equal_hashes():
    for field in ("learning_rate", "mixup_alpha"):
        whole, real = Recipe("a", **{field: 1}), Recipe("a", **{field: 1.0})
        assert whole == real
        assert whole.hash == real.hash
    assert Recipe("a", epochs=3, early_sizes=[16]) == replace(Recipe("a", epochs=3), early_sizes=(16,))


BAD = {
    **dict.fromkeys(
        ("arch", "norm", "dropout_at", "schedule", "rescale", "optimizer", "train_band", "adversarial", "labels"),
        ("else", None, 1),
    ),
    **dict.fromkeys(
        ("width", "epochs", "batch_size", "train_images", "eval_images", "final_images"),
        (0, -1, 1.5, 2.0, True, "3", None, math.nan),
    ),
    **dict.fromkeys(("dropout", "label_smoothing"), (-0.1, 1, 1.0, math.nan, math.inf, True, "0")),
    **dict.fromkeys(
        ("mixup_alpha", "weight_decay", "adv_eps", "adv_alpha", "smoothness_penalty"), (-0.1, math.nan, math.inf, True)
    ),
    **dict.fromkeys(("augment", "adv_random_start", "train_bands"), ("no", "yes", None, 1)),
    "early_sizes": (16, None, "16", (7,), (32,), (16, 9.5), (16.0,), (True,), (None,), ("16",)),
    "train_radius": (1, -1, 0.0, False, True, None, 23),
    "learning_rate": (0, -1e-4, math.nan, math.inf),
    "adv_steps": (1, 1.0, True, None, -1),
    "stem_kernel": (1, 4, 7, 3.0, "3", None, True),
    "name": ("", "a/b", "a b", "../a", "a\n", None, 3),
    "epoch": (3,),
}


def test_fields_are_checked():
    for field, values in BAD.items():
        for value in values:
            with pytest.raises(ValueError, match=rf"^expected {field}, .*, got ") as told:
                Recipe(**{"name": "a", field: value})
            assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match=r"^expected name, .*, got nothing"):
        Recipe()
    with pytest.raises(ValueError, match=r"^expected arch, .*, got 3"):
        Recipe("a", 3)


SINGLE = ATTACK | {"adversarial": "single_step", "adv_steps": 1}
SMALL = {"epochs": 3, "early_sizes": (8, 31)}


@pytest.mark.parametrize(
    ("sound", "changes", "message"),
    [
        *[({}, {"train_band": "hfc", "train_radius": bad}, "train_radius") for bad in (0, -1, 23, 4.5, 4.0, True, "4")],
        ({}, {"train_radius": 4}, 'train_radius, 0 with train_band "x"'),
        *[({}, {field: ATTACK[field]}, f'{field}, 0.* with adversarial "none"') for field in list(ATTACK)[1:]],
        ({}, {"adv_random_start": False}, 'adv_random_start, True with adversarial "none"'),
        (ATTACK, {"adv_eps": 0}, "adv_eps, above 0"),
        (ATTACK, {"adv_alpha": 0.0}, "adv_alpha, above 0"),
        (ATTACK, {"adv_steps": 0}, "adv_steps, .*at least 1"),
        (SINGLE, {"adv_steps": 2}, 'adv_steps, 1 with "single_step", .*got 2'),
        (ATTACK, {"mixup_alpha": 1}, 'mixup_alpha, 0.0 with adversarial "pgd"'),
        (ATTACK, {"train_band": "lfc", "train_radius": 4}, "train_band, 'x' with adversarial"),
        (SMALL, {"epochs": 2}, "early_sizes, fewer of them than epochs"),
        (SMALL, {"rescale": "range"}, "rescale, 'none' with early_sizes"),
        (SMALL, {"train_band": "hfc", "train_radius": 4}, "train_band, 'x' with early_sizes"),
        (SMALL, ATTACK, "adversarial, 'none' with early_sizes"),
        ({"train_bands": True}, {"train_band": "lfc", "train_radius": 4}, 'train_band, "x" with train_bands'),
        ({"arch": "vgg11", "norm": "batch"}, {"arch": "lenet"}, "norm, 'none' with arch \"lenet\""),
        ({"arch": "vgg11"}, {"stem_kernel": 5}, 'stem_kernel, 3 with arch "vgg11"'),
    ],
)
def test_settings_that_exclude_each_other(sound, changes, message):
    Recipe("a", **sound)
    with pytest.raises(ValueError, match=f"expected {message}"):
        Recipe("a", **sound | changes)


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_whole_epochs_go_by_pixels():
    recipe = Recipe("a", epochs=4, early_sizes=(16, 24))
    assert [recipe.whole_epochs(epochs) for epochs in range(5)] == [0, 0.25, 0.8125, 1.8125, 2.8125]
    assert Recipe("a", epochs=4).whole_epochs(3) == 3


def test_panels():
    for preset in PRESETS:
        variants = fig4_recipes(preset)
        assert list(variants) == PANELS
        assert [recipe.name for recipe in variants.values()] == [f"{preset}-{variant}" for variant in PANELS]
        assert len({recipe.hash for recipe in variants.values()}) == 5
        assert variants["adversarial"] == defense_recipes(preset)["adversarial"]
        vanilla = variants["vanilla"]
        assert (vanilla.norm, vanilla.dropout, vanilla.mixup_alpha) == ("none", 0, 0)
        by_code = preset == "authors"
        changes = {
            "dropout": {"dropout": 0.5, "dropout_at": "map" if by_code else "features"},
            "mixup": {"mixup_alpha": 1.0 if by_code else 0.5},
            "batchnorm": {"norm": "batch"},
        }
        for variant, change in changes.items():  # one heuristic a variant, and all else equal
            assert variants[variant] == replace(vanilla, name=f"{preset}-{variant}", **change)


@pytest.mark.parametrize("preset", ["narrow", "paper", "authors"])
def test_the_papers_set_up(preset):
    recipe = fig4_recipes(preset)["vanilla"]
    assert (recipe.epochs, recipe.learning_rate, recipe.batch_size) == (100, 1e-4, 100)
    assert (recipe.schedule, recipe.augment, recipe.train_images) == ("constant", False, 50_000)
    assert (recipe.arch, recipe.rescale) == (("resnet32", "max") if preset == "authors" else ("resnet18", "none"))


@pytest.mark.parametrize(
    ("preset", "millions"), [("smoke", 0.04), ("laptop", 0.70), ("narrow", 0.70), ("paper", 11.17), ("authors", 0.46)]
)
def test_networks_of_the_presets(preset, millions):
    network = fig4_recipes(preset)["vanilla"].build()
    assert round(count_parameters(network) / 1e6, 2) == millions
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_networks_are_built_as_the_recipe_says():
    network = Recipe("a", width=4, dropout=0.3, dropout_at="map", norm="batch").build()
    assert network.map_dropout.p == 0.3
    assert network.norm1.weight.shape == (4,)
    network = Recipe("a", arch="resnet32", dropout=0.3).build()
    assert network.feature_dropout.p == 0.3


def test_smoke_needs_embedded_images_only():
    assert all(recipe.train_images <= 5_000 for recipe in fig4_recipes("smoke").values())


OF_FIGURE = {
    "fig1": fig1_recipes,
    "fig2": fig2_recipes,
    "fig3": fig3_recipes,
    "fig4": fig4_recipes,
    "defense": defense_recipes,
    "labels": labels_recipes,
    "batchnorm": all_recipes,
    "fig6": fig6_recipes,
    "ablation": ablation_recipes,
    "training": choices_recipes,
}


def test_recipes_of_a_figure():
    for figure, recipes in OF_FIGURE.items():
        assert chapter_recipes(figure, "paper") == recipes("paper")
    assert set(RECIPES) == {*OF_FIGURE, "tradeoff"}


def test_the_other_scaling_is_the_only_change():
    for preset in PRESETS:
        networks = fig1_recipes(preset)
        for variant in ("hfc4max", "hfc8max", "hfc12max", "hfc16max"):
            recipe = networks[variant]
            ours = networks[variant.removesuffix("max")]
            assert recipe.rescale == "max"
            assert replace(recipe, name=ours.name, rescale=ours.rescale) == ours


def test_recipes_of_a_name_are_equal_and_those_of_two_names_differ():
    # The name is that of a run's folder, and a variant is the name without its preset.
    for preset in PRESETS:
        known = {}
        for make in OF_FIGURE.values():
            for variant, recipe in make(preset).items():
                assert recipe.name == f"{preset}-{variant}"
                assert recipe == known.setdefault(recipe.name, recipe)
                assert Recipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe
        # The authors' preset scales in that way anyway: there the "max" networks are the others under a second name.
        different = [recipe for name, recipe in known.items() if preset != "authors" or not name.endswith("max")]
        assert len({recipe.hash for recipe in different}) == len(different)


def test_labels_are_the_only_change_but_for_the_published_length():
    for preset in PRESETS:
        variants = labels_recipes(preset)
        assert list(variants) == ["natural", "shuffled", "natural_plain", "shuffled_plain"]
        for suffix, norm in (("", "batch"), ("_plain", "none")):
            natural, shuffled = variants[f"natural{suffix}"], variants[f"shuffled{suffix}"]
            assert (natural.norm, natural.train_bands, natural.augment) == (norm, True, False)
            assert (natural.labels, shuffled.labels) == ("natural", "shuffled")
            assert replace(shuffled, name=natural.name, labels="natural", epochs=natural.epochs) == natural
            longer = {"smoke": 1, "laptop": 3 if suffix else 1}.get(preset, 3)
            assert shuffled.epochs == longer * natural.epochs
        assert preset not in ("smoke", "laptop") or natural.train_images <= 5_000


def test_networks_that_normalise():
    for preset in PRESETS:
        variants, others = batchnorm_recipes(preset), fig4_recipes(preset)
        assert list(variants) == ["vanilla", "batchnorm", "mixup", "dropout", "groupnorm"]
        assert all(variants[variant] == others[variant] for variant in variants if variant != "groupnorm")
        assert variants["groupnorm"] == replace(others["vanilla"], name=f"{preset}-groupnorm", norm="group")
        assert variants["groupnorm"].build()(torch.rand(2, 3, 32, 32)).isfinite().all()


def test_fig6_adds_batch_norm_to_the_networks_of_the_lfc():
    for preset in PRESETS:
        variants, networks = fig6_recipes(preset), fig1_recipes(preset)
        plain = [f"lfc{radius}" for radius in (4, 8, 12, 16)]
        assert list(variants) == plain + [f"batchnorm_{variant}" for variant in plain]
        for variant in plain:
            assert variants[variant] == networks[variant]
            normed = variants[f"batchnorm_{variant}"]
            assert normed == replace(networks[variant], name=f"{preset}-batchnorm_{variant}", norm="batch")


def test_augmentation_is_taken_back_where_there_is_any():
    for preset in PRESETS:
        variants = ablation_recipes(preset)
        assert list(variants) == (["vanilla_noaug", "batchnorm_noaug"] if preset in ("smoke", "laptop") else [])
        for variant, recipe in variants.items():
            with_it = fig4_recipes(preset)[variant.removesuffix("_noaug")]
            assert recipe == replace(with_it, name=f"{preset}-{variant}", augment=False)


def test_training_changes_one_thing_at_a_time():
    for preset in PRESETS:
        variants = choices_recipes(preset)
        vanilla = variants.pop("vanilla")
        assert vanilla == fig4_recipes(preset)["vanilla"]
        changed = {
            variant: {f.name for f in fields(Recipe) if getattr(recipe, f.name) != getattr(vanilla, f.name)} - {"name"}
            for variant, recipe in variants.items()
        }
        sizes = [size for size in (32, 64, 256, 512) if size != vanilla.batch_size]
        assert changed.pop("steps512") == {"batch_size", "epochs"}
        assert changed.pop("vgg") == ({"arch", "width"} if preset == "laptop" else {"arch"})
        assert all(changed.pop(f"batch{size}") == {"batch_size"} for size in sizes)
        assert all(changed.pop(variant) == {"arch"} for variant in ("lenet", "alexnet"))
        assert set(changed) == {"sgd", "adagrad", "adadelta", "rmsprop"}
        assert all(found - {"learning_rate"} == {"optimizer"} for found in changed.values())
        long = variants["steps512"]
        steps = [len(range(0, recipe.train_images, recipe.batch_size)) * recipe.epochs for recipe in (long, vanilla)]
        assert steps[0] == pytest.approx(steps[1], rel=0.01)
        assert count_parameters(variants["vgg"].build()) == {
            "smoke": 36_610,
            "laptop": 2_308_810,
            "narrow": 578_410,
        }.get(preset, 9_225_610)


def test_table_1_trains_on_each_band_at_each_radius():
    for preset in PRESETS:
        variants = {name: one for name, one in fig1_recipes(preset).items() if not name.endswith("max")}
        assert [(recipe.train_band, recipe.train_radius) for recipe in variants.values()] == [
            (band, radius) for band in ("lfc", "hfc") for radius in (4, 8, 12, 16)
        ]
        assert list(variants) == [f"{recipe.train_band}{recipe.train_radius}" for recipe in variants.values()]
        assert {recipe.rescale for recipe in variants.values()} == {"max" if preset == "authors" else "range"}
        vanilla = fig4_recipes(preset)["vanilla"]
        for recipe in variants.values():
            assert (
                replace(recipe, name=vanilla.name, train_band="x", train_radius=0, rescale=vanilla.rescale) == vanilla
            )


def test_misalignment_is_counted_on_the_networks_of_fig4():
    for preset in PRESETS:
        variants, others = fig2_recipes(preset), fig4_recipes(preset)
        assert (variants["vanilla"], variants["batchnorm"]) == (others["vanilla"], others["batchnorm"])
        assert ("fullwidth" in variants) == (preset in ("smoke", "laptop"))


def test_narrow_differs_from_the_paper_in_the_width_alone():
    for figure in RECIPES:
        narrow, paper = chapter_recipes(figure, "narrow"), chapter_recipes(figure, "paper")
        assert {variant: replace(recipe, width=64, name="same") for variant, recipe in narrow.items()} == {
            variant: replace(recipe, name="same") for variant, recipe in paper.items()
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
            assert kernels[f"{variant}5"] == replace(kernels[variant], name=f"{preset}-{variant}5", stem_kernel=5)
        assert kernels["adversarial_batchnorm"] == replace(
            kernels["adversarial"], norm="batch", name=f"{preset}-adversarial_batchnorm"
        )
        assert attacked["penalised"].smoothness_penalty > 0
        assert replace(attacked["penalised"], name=f"{preset}-vanilla", smoothness_penalty=0) == others["vanilla"]


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("smoke", ("single_step", 8 / 255, 10 / 255, 1, True)),
        ("laptop", ("single_step", 8 / 255, 10 / 255, 1, True)),
        ("narrow", ("pgd", 8 / 255, 2 / 255, 7, True)),
        ("paper", ("pgd", 8 / 255, 2 / 255, 7, True)),
        ("authors", ("pgd", 0.03, 0.003, 10, False)),
    ],
)
def test_attacks_of_the_presets(preset, expected):
    recipe, vanilla = fig3_recipes(preset)["adversarial"], fig4_recipes(preset)["vanilla"]
    attack = {
        field: getattr(recipe, field)
        for field in ("adversarial", "adv_eps", "adv_alpha", "adv_steps", "adv_random_start")
    }
    assert tuple(attack.values()) == expected
    by_code = {"rescale": "none", "augment": True} if preset == "authors" else {}
    assert recipe == replace(vanilla, name=f"{preset}-adversarial", **attack, **by_code)


def test_a_first_layer_of_5_x_5():
    for arch in ("resnet18", "resnet32"):
        network = Recipe("a", arch=arch, width=4, stem_kernel=5).build()
        assert network.conv1.weight.shape[-2:] == (5, 5)
        assert network(torch.rand(1, 3, 32, 32)).shape == (1, 10)
