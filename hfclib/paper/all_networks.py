"""All networks of the book on CIFAR-10: their recipes from every chapter, and what tables call them.

Chapters that compare recipes across chapters take them from here.
"""

from functools import cache
from typing import Literal

from hfclib import models
from hfclib.models import REGISTERED
from hfclib.paper.presets import TITLES, Preset
from hfclib.paper.registry import CHAPTERS, RECIPES
from hfclib.runs.store import Run
from hfclib.training.recipe import Recipe

USABLE = 0.4  # the least test accuracy of a recipe that is compared: a share of nearly nothing is noise
# What a table calls the presets whose networks stand beside those of "laptop".
SET_UPS: dict[Preset, str] = {"narrow": "the schedule as stated", "authors": "the authors' set-up"}
# The interval of a correlation over recipes is a bootstrap, which depends on their order; the published ones are in
# this. Recipes under other names come after these.
_FIRST = ("fig4", "fig1", "batchnorm", "fig3", "defense", "labels", "ablation", "training", "datasets")
_LEFT_OUT = ("stated",)  # the chapter on generalisation compares them by a rule of their own


def networks_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """All networks of the book on CIFAR-10 without a planted signal; of "smoke" only those of Fig. 4.

    "laptop" has those of "narrow" and "authors" as well, as narrow_vanilla and so on.
    """
    others = SET_UPS if preset == "laptop" else ()
    return _own_recipes(preset) | {
        f"{other}_{variant}": recipe for other in others for variant, recipe in _own_recipes(other).items()
    }


def _own_recipes(preset: Preset) -> dict[str, Recipe]:
    if preset == "smoke":
        return RECIPES["fig4"](preset)
    recipes = {}
    for name in dict.fromkeys((*_FIRST, *RECIPES)):
        if name not in _LEFT_OUT:
            recipes |= RECIPES[name](preset)
    usual = ("cifar10", 0)
    recipes = {name: recipe for name, recipe in recipes.items() if (recipe.data.dataset, recipe.data.planted) == usual}
    # At some presets two recipes train one network: they have another name, or measure it in more ways. It counts once.
    first = {recipe.with_(train_bands=False).hash: variant for variant, recipe in reversed(recipes.items())}
    return {variant: recipe for variant, recipe in recipes.items() if variant in first.values()}


def norm_of(run: Run) -> Literal["none", "batch", "group", "unknown"]:
    """What normalises in a run's network.

    A registered network may have BatchNorm that its recipe does not name, but it was measured with statistics of the
    test batch. Without BatchNorm, what it has is unknown unless its builder takes `norm`.
    """
    if run.batch_norm:
        return "batch"
    network = REGISTERED.get(run.recipe.model.network)
    stated = network and (network.build.__module__ == models.__name__ or "norm" in network.settings)
    return run.recipe.model.norm if stated else "unknown"


def kind_of(run: Run) -> str:
    """How a network was trained, in a word or two."""
    band = run.recipe.data.train_band
    if band == "sum":
        return "trained on an amplified HFC"
    if band != "x":
        return f"trained on the {band.upper()}"
    if run.recipe.attack:
        return "adversarial training"
    words = {"none": "no normalisation", "batch": "BatchNorm", "group": "GroupNorm", "unknown": "other, no BatchNorm"}
    return words[norm_of(run)]


@cache
def _names() -> dict[str, str]:
    """What tables call the variants of `networks_recipes`; those of other presets are called as at "laptop"."""
    titles = TITLES | {variant: title for chapter in CHAPTERS.values() for variant, title in chapter.titles.items()}
    names = {}
    for preset in (*SET_UPS, "laptop"):
        names |= {variant: _name(variant, recipe, titles) for variant, recipe in _own_recipes(preset).items()}
    others = {other: _own_recipes(other) for other in SET_UPS}
    return names | {
        f"{other}_{variant}": f"{names[variant]}, {SET_UPS[other]}"
        for other, recipes in others.items()
        for variant in recipes
    }


def _name(variant: str, recipe: Recipe, titles: dict[str, str]) -> str:
    normed, data = ", BatchNorm" * (recipe.model.norm == "batch"), recipe.data
    if data.train_band == "sum":
        return f"HFC x {data.train_scale:g} in training{normed}"
    if data.train_band != "x":
        scaled = " / max" * (data.rescale == "max")
        text = f"{data.train_band.upper()} only{scaled}, r = {data.train_radius}{normed}"
        return text.replace(" = ", "\u00a0=\u00a0")  # which does not break in the table
    return titles.get(variant, variant)


def network_name(variant: str) -> str:
    """What a table calls a variant of `networks_recipes`, such as "LFC only, r = 8"; others by `Chapter.titles`."""
    return _names().get(variant, variant)
