"""hfclib.training.recipe: hashes that name published runs, what is stored of a recipe, and refusals."""

import json
import math
from dataclasses import fields, replace
from operator import attrgetter

import pytest

from hfclib._files import data_folder
from hfclib.runs.store import description
from hfclib.training.recipe import STORED_FIELDS, AttackConfig, DataConfig, ModelConfig, OptimizerConfig, Recipe

ATTACK = AttackConfig("pgd", eps=0.03, alpha=0.01, steps=2)
PARTS = {"model": ModelConfig, "data": DataConfig, "optimizer": OptimizerConfig, "attack": AttackConfig}
# A value other than the default for every field: a new field must be added here.
OTHER = {
    "network": "resnet32",
    "width": 16,
    "norm": "batch",
    "dropout": 0.5,
    "dropout_at": "map",
    "stem_kernel": 5,
    "dataset": "mnist",
    "train_images": 512,
    "labels": "shuffled",
    "planted": 2 / 255,
    "train_band": "lfc",
    "train_radius": 4,
    "train_scale": 2.0,
    "batch_size": 64,
    "augment": True,
    "early_sizes": (16, 24),
    "rescale": "max",
    "algorithm": "sgd",
    "learning_rate": 0.01,
    "weight_decay": 5e-4,
    "schedule": "one_cycle",
    "attack": ATTACK,
    "mixup_alpha": 0.5,
    "epochs": 3,
    "label_smoothing": 0.1,
    "smoothness_penalty": 1.0,
    "train_bands": True,
    "eval_images": 100,
    "final_images": 200,
}
# A band and its radius go together: each is changed beside the other's value.
PARTNERS = {"train_band": {"train_radius": 8}, "train_radius": {"train_band": "hfc"}}
PARTNERS["train_scale"] = {"train_band": "sum", "train_radius": 8}

STORED = sorted(path for path in (data_folder() / "runs").glob("*") if path.suffix != ".partial")


# ---- stored runs


def test_every_stored_run_keeps_its_hash_and_is_written_as_it_was():
    assert len(STORED) > 100
    for path in STORED:
        content = json.loads((path / "run.json").read_bytes())
        recipe = Recipe.from_dict(content["recipe"])
        assert recipe.hash == content["hash"]
        assert recipe.run_name(content["seed"]) == path.name
        again = json.loads(description(recipe, content["seed"], content["provenance"], content["sha256"]))
        known = {field: again["recipe"][field] for field in again["recipe"] if field in content["recipe"]}
        assert list(known.items()) == list(content["recipe"].items())  # also in that order
        assert Recipe.from_dict(again["recipe"]) == recipe


def test_each_field_is_stored_once():
    every = {field.name for field in fields(Recipe)} - set(PARTS)
    every |= {f"{part}.{field.name}" for part, config in PARTS.items() for field in fields(config)}
    assert sorted(STORED_FIELDS.values()) == sorted(every)
    changed = Recipe("a", attack=replace(ATTACK, random_start=False)).with_(epochs=7)
    for field, place in STORED_FIELDS.items():
        assert changed.to_dict()[field] == attrgetter(place)(changed)


def test_what_no_recipe_stores_is_refused():
    sound = Recipe("a").to_dict()
    for changes, message in (
        ({"ema": 0.9, "swa": True}, "ema, swa: not among the fields"),
        ({"adv_eps": 0.03}, 'expected adv_eps, 0.0 with adversarial "none", got 0.03'),
        ({"adv_random_start": False}, 'expected adv_random_start, True with adversarial "none"'),
        ({"adversarial": "pgd"}, "eps: Input should be greater than 0"),
        ({"adversarial": "fgsm"}, "method: Input should be 'single_step' or 'pgd'"),
        ({"width": "16"}, "width: Input should be a valid integer"),
    ):
        with pytest.raises(ValueError, match=f"^refused recipe: {message}"):
            Recipe.from_dict(sound | changes)


# ---- hashes


def test_the_name_is_not_in_the_hash():
    assert Recipe("one").hash == Recipe("other").hash


def test_every_other_field_is_in_the_hash():
    hashes = {Recipe("a").with_(**PARTNERS.get(field, {}) | {field: value}).hash for field, value in OTHER.items()}
    configs = (Recipe, ModelConfig, DataConfig, OptimizerConfig)
    assert set(OTHER) == {field.name for config in configs for field in fields(config)} - {"name", *PARTS} | {"attack"}
    attacks = {"method": "single_step", "eps": 0.1, "alpha": 0.1, "steps": 1, "random_start": False}
    assert set(attacks) == {field.name for field in fields(AttackConfig)}
    single = replace(ATTACK, steps=1)
    hashes |= {Recipe("a", attack=replace(single, **{field: value})).hash for field, value in attacks.items()}
    assert len(hashes - {Recipe("a").hash}) == len(OTHER) + len(attacks)


def test_equal_recipes_have_equal_hashes():
    for field in ("learning_rate", "mixup_alpha"):
        whole, real = Recipe("a").with_(**{field: 1}), Recipe("a").with_(**{field: 1.0})
        assert whole == real
        assert whole.hash == real.hash
    assert Recipe("a").with_(epochs=3, early_sizes=[16]) == Recipe("a").with_(epochs=3).with_(early_sizes=(16,))


# ---- parts


def test_fields_of_all_parts_are_changed_by_name():
    recipe = Recipe("a").with_(name="b", width=16, augment=True, learning_rate=0.1, attack=ATTACK, epochs=3)
    model, data, optimizer = ModelConfig(width=16), DataConfig(augment=True), OptimizerConfig(learning_rate=0.1)
    assert recipe == Recipe("b", model=model, data=data, optimizer=optimizer, attack=ATTACK, epochs=3)
    assert recipe.with_() == recipe
    assert recipe.with_(model=ModelConfig(norm="batch"), width=8).model == ModelConfig(norm="batch", width=8)
    assert recipe.with_(attack=None).attack is None
    names = [field.name for config in (Recipe, ModelConfig, DataConfig, OptimizerConfig) for field in fields(config)]
    assert len(set(names)) == len(names)


def test_an_unknown_field_is_refused_with_the_nearest():
    for field, hint in (
        ("epoch", "; did you mean epochs?"),
        ("arch", ""),
        ("norms", "; did you mean norm"),
    ):
        with pytest.raises(ValueError, match=rf"^refused recipe: {field} is no field of a recipe{hint}"):
            Recipe("a").with_(**{field: 3})


# ---- refusals

BAD = {
    **dict.fromkeys(
        ("norm", "dropout_at", "schedule", "rescale", "algorithm", "train_band", "labels", "dataset"),
        ("else", None, 1),
    ),
    **dict.fromkeys(
        ("width", "epochs", "batch_size", "train_images", "eval_images", "final_images"),
        (0, -1, 1.5, 2.0, True, "3", None, math.nan),
    ),
    **dict.fromkeys(("dropout", "label_smoothing"), (-0.1, 1, 1.0, math.nan, math.inf, True, "0")),
    **dict.fromkeys(
        ("mixup_alpha", "weight_decay", "train_scale", "smoothness_penalty", "planted"),
        (-0.1, math.nan, math.inf, True),
    ),
    **dict.fromkeys(("augment", "train_bands"), ("no", "yes", None, 1)),
    "network": ("else", None, 1),
    "early_sizes": (16, None, "16", (7,), (32,), (16, 9.5), (16.0,), (True,), (None,), ("16",)),
    "train_radius": (1, -1, 0.0, False, True, None, 23),
    "learning_rate": (0, -1e-4, math.nan, math.inf),
    "stem_kernel": (1, 4, 7, 3.0, "3", None, True),
    "name": ("", "a/b", "a b", "../a", "a\n", None, 3),
    **dict.fromkeys(("model", "data", "optimizer"), (None, {}, ATTACK)),
    "attack": ("pgd", {}, ModelConfig()),
}
BAD_ATTACKS = {
    "method": ("none", None, 1),
    "eps": (0, -0.1, 1.5, math.nan, math.inf, True, None),
    "alpha": (0, -0.1, math.nan, math.inf, True, None),
    "steps": (0, 1.0, True, None, -1),
    "random_start": ("no", None, 1),
}


def test_fields_are_checked():
    refused = r"^refused recipe: (expected )?{}\b"
    for field, values in BAD.items():
        for value in values:
            with pytest.raises(ValueError, match=refused.format(field)):
                Recipe("a").with_(**{field: value})
    for field, values in BAD_ATTACKS.items():
        for value in values:
            with pytest.raises(ValueError, match=refused.format(field)):
                replace(ATTACK, **{field: value})
    with pytest.raises(ValueError, match=r"^refused recipe: width: .*, got 0; stem_kernel: .*, got 7$"):
        ModelConfig(width=0, stem_kernel=7)


ATTACKED = {"attack": ATTACK}
SMALL = {"epochs": 3, "early_sizes": (8, 31)}


def test_settings_that_exclude_each_other():
    for sound, changes, message in [
        ({}, {"train_band": "hfc", "train_radius": 0}, "train_radius"),
        ({}, {"train_radius": 4}, 'train_radius, 0 with train_band "x"'),
        ({"train_band": "hfc", "train_radius": 4}, {"train_scale": 2.0}, 'train_scale, 1.0 with train_band "hfc"'),
        (ATTACKED, {"mixup_alpha": 1}, "mixup_alpha, 0.0 with an attack"),
        (ATTACKED, {"train_band": "lfc", "train_radius": 4}, "train_band, 'x' with an attack"),
        (ATTACKED, {"planted": 0.01}, "planted, 0.0 with an attack"),
        (SMALL, {"epochs": 2}, "early_sizes, fewer of them than epochs"),
        (SMALL, {"rescale": "range"}, "rescale, 'none' with early_sizes"),
        (SMALL, {"train_band": "hfc", "train_radius": 4}, "train_band, 'x' with early_sizes"),
        (SMALL, ATTACKED, "attack, None with early_sizes"),
        ({"train_bands": True}, {"train_band": "lfc", "train_radius": 4}, 'train_band, "x" with train_bands'),
        ({"train_band": "lfc", "train_radius": 20}, {"dataset": "mnist"}, "train_radius, .*1 to 19"),
        ({"dataset": "mnist"}, {"augment": True}, "augment, False with dataset"),
        ({"dataset": "mnist"}, {"network": "vgg11"}, "dataset, 'cifar10' with network"),
        ({"planted": 0.01}, {"labels": "shuffled"}, "labels, 'natural' with planted"),
        *[({f: 1}, {"norm": "batch"}, f"{f}, 2 or more") for f in ("train_images", "eval_images", "final_images")],
    ]:
        Recipe("a").with_(**sound)
        with pytest.raises(ValueError, match=f"^refused recipe: expected {message}"):
            Recipe("a").with_(**sound | changes)
    with pytest.raises(ValueError, match='expected steps, 1 with "single_step", got 2'):
        replace(ATTACK, method="single_step")


def test_whole_epochs_go_by_pixels():
    recipe = Recipe("a").with_(epochs=4, early_sizes=(16, 24))
    assert [recipe.whole_epochs(epochs) for epochs in range(5)] == [0, 0.25, 0.8125, 1.8125, 2.8125]
    assert Recipe("a", epochs=4).whole_epochs(3) == 3


def test_networks_are_built_as_the_recipe_says():
    network = Recipe("a").with_(width=4, dropout=0.3, dropout_at="map", norm="batch").build()
    assert network.map_dropout.p == 0.3
    assert network.norm1.weight.shape == (4,)
    network = Recipe("a").with_(network="resnet32", dropout=0.3, stem_kernel=5).build()
    assert network.feature_dropout.p == 0.3
    for built in (network, Recipe("a").with_(width=4, stem_kernel=5).build()):
        assert built.conv1.weight.shape[-2:] == (5, 5)
