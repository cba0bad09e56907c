"""The recipes of the experiments on BatchNorm: its networks, the paper's Fig. 6, and ablations."""

from dataclasses import replace

from hfclib.paper.fig1 import fig1_recipes
from hfclib.paper.presets import Preset, base_recipe, fig4_recipes
from hfclib.training.recipe import Recipe


def batchnorm_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks among which BatchNorm's use of the HFC is looked for: vanilla, dropout, mixup and batchnorm of
    Fig. 4, and groupnorm.

    Source: ours. GroupNorm (Wu and He 2018) normalises each image by itself, in training and at test time alike: where
    it acts as BatchNorm does, statistics of batches are not the cause.
    """
    variants = fig4_recipes(preset)
    chosen = {variant: variants[variant] for variant in ("vanilla", "batchnorm", "mixup", "dropout")}
    base = base_recipe(preset)
    return chosen | {"groupnorm": replace(base, name=f"{base.name}-groupnorm", norm="group")}


def fig6_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Networks trained on the LFC, without BatchNorm and with it: lfc4 to lfc16 of Table 1, batchnorm_lfc4 to
    batchnorm_lfc16.

    Source: paper, section 5.2 and Fig. 6; bands are rescaled as in `fig1`.
    """
    base, plain = (
        base_recipe(preset),
        {name: one for name, one in fig1_recipes(preset).items() if one.train_band == "lfc"},
    )
    normed = {
        variant: replace(recipe, name=f"{base.name}-batchnorm_{variant}", norm="batch")
        for variant, recipe in plain.items()
    }
    return plain | {f"batchnorm_{variant}": recipe for variant, recipe in normed.items()}


def ablation_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """vanilla and batchnorm of Fig. 4 without augmentation: vanilla_noaug, batchnorm_noaug.

    Source: ours: "laptop" departs from the paper in schedule, batch size, length and augmentation; this takes back one.
    Where the preset has no augmentation anyway, there is none to take back and no recipe.
    """
    variants = fig4_recipes(preset)
    augmented = {variant: variants[variant] for variant in ("vanilla", "batchnorm") if variants[variant].augment}
    return {
        f"{variant}_noaug": replace(recipe, name=f"{recipe.name}_noaug", augment=False)
        for variant, recipe in augmented.items()
    }
