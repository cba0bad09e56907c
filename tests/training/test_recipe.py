"""hfclib.training.recipe: hashes that name published runs, and refusals."""

import json
import math
from dataclasses import fields, replace

import pytest
from pydantic.dataclasses import dataclass

from hfclib._files import data_folder
from hfclib.training.recipe import Recipe

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
    "train_scale": 2.0,
    "adversarial": "pgd",
    "adv_eps": 0.03,
    "adv_alpha": 0.01,
    "adv_steps": 7,
    "adv_random_start": False,
    "stem_kernel": 5,
    "smoothness_penalty": 1.0,
    "labels": "shuffled",
    "train_bands": True,
    "data": "mnist",
    "planted": 2 / 255,
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
    partners["train_scale"] = {"train_band": "sum", "train_radius": 8}
    attack = {"adversarial": "pgd", "adv_eps": 0.1, "adv_alpha": 0.1, "adv_steps": 1}
    partners |= dict.fromkeys(("adv_random_start", *attack), attack)
    hashes = {Recipe("a", **partners.get(field, {}) | {field: value}).hash for field, value in OTHER.items()}
    assert set(OTHER) == {f.name for f in fields(Recipe)} - {"name"}
    assert len(hashes - {Recipe("a").hash}) == len(OTHER)


def test_a_later_field_at_its_default_leaves_hashes_alone():
    @dataclass(frozen=True)
    class Later(Recipe):
        brightness: float = 0.0

    for recipe in (Recipe("a"), Recipe("a", norm="batch", epochs=30)):
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
        ("norm", "dropout_at", "schedule", "rescale", "optimizer", "train_band", "adversarial", "labels"),
        ("else", None, 1),
    ),
    **dict.fromkeys(
        ("width", "epochs", "batch_size", "train_images", "eval_images", "final_images"),
        (0, -1, 1.5, 2.0, True, "3", None, math.nan),
    ),
    **dict.fromkeys(("dropout", "label_smoothing"), (-0.1, 1, 1.0, math.nan, math.inf, True, "0")),
    **dict.fromkeys(
        ("mixup_alpha", "weight_decay", "train_scale", "adv_eps", "adv_alpha", "smoothness_penalty", "planted"),
        (-0.1, math.nan, math.inf, True),
    ),
    **dict.fromkeys(("augment", "adv_random_start", "train_bands"), ("no", "yes", None, 1)),
    "data": ("else", None, 1),
    "early_sizes": (16, None, "16", (7,), (32,), (16, 9.5), (16.0,), (True,), (None,), ("16",)),
    "arch": (None, 1),
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
            with pytest.raises(ValueError, match=rf"^refused recipe: (expected )?{field}\b"):
                Recipe(**{"name": "a", field: value})
    with pytest.raises(ValueError, match="refused recipe: name: Field required"):
        Recipe()


SINGLE = ATTACK | {"adversarial": "single_step", "adv_steps": 1}
SMALL = {"epochs": 3, "early_sizes": (8, 31)}


def test_settings_that_exclude_each_other():
    for sound, changes, message in [
        ({}, {"train_band": "hfc", "train_radius": 0}, "train_radius"),
        ({}, {"train_radius": 4}, 'train_radius, 0 with train_band "x"'),
        ({"train_band": "hfc", "train_radius": 4}, {"train_scale": 2.0}, 'train_scale, 1.0 with train_band "hfc"'),
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
        ({"train_band": "lfc", "train_radius": 20}, {"data": "mnist"}, "train_radius, .*1 to 19"),
        ({"data": "mnist"}, {"augment": True}, "augment, False with data"),
        ({"data": "mnist"}, {"arch": "vgg11"}, "data, 'cifar10' with arch"),
        ({"planted": 0.01}, {"labels": "shuffled"}, "labels, 'natural' with planted"),
        ({"planted": 0.01}, ATTACK, "adversarial, 'none' with planted"),
        *[({f: 1}, {"norm": "batch"}, f"{f}, 2 or more") for f in ("train_images", "eval_images", "final_images")],
    ]:
        Recipe("a", **sound)
        with pytest.raises(ValueError, match=f"expected {message}"):
            Recipe("a", **sound | changes)


def test_whole_epochs_go_by_pixels():
    recipe = Recipe("a", epochs=4, early_sizes=(16, 24))
    assert [recipe.whole_epochs(epochs) for epochs in range(5)] == [0, 0.25, 0.8125, 1.8125, 2.8125]
    assert Recipe("a", epochs=4).whole_epochs(3) == 3


def test_networks_are_built_as_the_recipe_says():
    network = Recipe("a", width=4, dropout=0.3, dropout_at="map", norm="batch").build()
    assert network.map_dropout.p == 0.3
    assert network.norm1.weight.shape == (4,)
    network = Recipe("a", arch="resnet32", dropout=0.3, stem_kernel=5).build()
    assert network.feature_dropout.p == 0.3
    for one in (network, Recipe("a", width=4, stem_kernel=5).build()):
        assert one.conv1.weight.shape[-2:] == (5, 5)
