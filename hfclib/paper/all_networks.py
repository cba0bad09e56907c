"""All networks of the book on CIFAR-10: their recipes from every chapter, and what tables call them.

Chapters that compare recipes across chapters take them from here.
"""

from dataclasses import replace
from functools import cache

from hfclib.paper.batchnorm import NAMES, ablation_recipes, all_recipes
from hfclib.paper.datasets import datasets_recipes
from hfclib.paper.defense.setup import defense_recipes
from hfclib.paper.fig1 import fig1_recipes
from hfclib.paper.fig3 import fig3_recipes
from hfclib.paper.labels import labels_recipes
from hfclib.paper.presets import Preset, fig4_recipes
from hfclib.paper.training import PANELS, training_recipes
from hfclib.training.recipe import Recipe

USABLE = 0.4  # the least test accuracy of a recipe that is compared: a share of nearly nothing is noise
# What a table calls the presets whose networks stand beside those of "laptop".
SET_UPS: dict[Preset, str] = {"narrow": "the paper's schedule", "authors": "the authors' set-up"}
_VARIANTS = PANELS["optimizer"] | PANELS["architecture"] | NAMES
_VARIANTS |= {
    "vanilla5": "Vanilla, 5 x 5",
    "adversarial5": "Adversarial training, 5 x 5",
    "penalised": "Penalised kernels",
    "natural": "BatchNorm, 5,000 images",
    "shuffled": "BatchNorm, shuffled labels",
    "natural_plain": "Vanilla, 5,000 images",
    "shuffled_plain": "Vanilla, shuffled labels",
    "vanilla_noaug": "Vanilla, no augmentation",
    "batchnorm_noaug": "BatchNorm, no augmentation",
    "steps512": "Batches of 512, equal steps",
}


def networks_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """All networks of the book on CIFAR-10 without a planted signal; of "smoke" only those of Fig. 4.

    "laptop" has those of "narrow" and "authors" as well, as narrow_vanilla and so on.
    """
    others = SET_UPS if preset == "laptop" else ()
    return _own_recipes(preset) | {
        f"{other}_{variant}": recipe for other in others for variant, recipe in _own_recipes(other).items()
    }


def _own_recipes(preset: Preset) -> dict[str, Recipe]:
    found = fig4_recipes(preset)
    if preset == "smoke":
        return found
    others = fig1_recipes, all_recipes, fig3_recipes, defense_recipes, labels_recipes, ablation_recipes
    for recipes in (*others, training_recipes, datasets_recipes):
        found |= recipes(preset)
    found = {variant: recipe for variant, recipe in found.items() if recipe.data == "cifar10" and not recipe.planted}
    # At some presets two recipes train one network: they have another name, or measure it in more ways. It counts once.
    first = {replace(recipe, train_bands=False).hash: variant for variant, recipe in reversed(found.items())}
    return {variant: recipe for variant, recipe in found.items() if variant in first.values()}


def kind_of(recipe: Recipe) -> str:
    """How a network was trained, in a word or two."""
    if recipe.train_band == "sum":
        return "trained on a louder HFC"
    if recipe.train_band != "x":
        return f"trained on the {recipe.train_band.upper()}"
    if recipe.adversarial != "none":
        return "adversarial training"
    return {"none": "no normalisation", "batch": "BatchNorm", "group": "GroupNorm"}[recipe.norm]


@cache
def _names() -> dict[str, str]:
    """What tables call the variants of `networks_recipes`; those of other presets are called as at "laptop"."""
    names = {}
    for preset in (*SET_UPS, "laptop"):
        names |= {variant: _name(variant, recipe) for variant, recipe in _own_recipes(preset).items()}
    others = {other: _own_recipes(other) for other in SET_UPS}
    return names | {
        f"{other}_{variant}": f"{names[variant]}, {SET_UPS[other]}"
        for other, ones in others.items()
        for variant in ones
    }


def _name(variant: str, recipe: Recipe) -> str:
    normed = ", BatchNorm" * (recipe.norm == "batch")
    if recipe.train_band == "sum":
        return f"HFC x {recipe.train_scale:g} in training{normed}"
    if recipe.train_band != "x":
        scaled = " / max" * (recipe.rescale == "max")
        text = f"{recipe.train_band.upper()} only{scaled}, r = {recipe.train_radius}{normed}"
        return text.replace(" = ", "\u00a0=\u00a0")  # which does not break in the table
    return _VARIANTS.get(variant) or f"Batches of {recipe.batch_size}"


def network_name(variant: str) -> str:
    """What a table calls a variant of `networks_recipes`, such as "Vanilla" or "LFC only, r = 8"."""
    return _names().get(variant, variant)
