"""The recipes of every figure at each preset."""

from dataclasses import replace
from typing import Literal

from hfclib.training.recipe import Recipe

PUBLISHED_SEEDS = (0, 1, 2)  # with which every variant at "laptop" is published in data/runs
Preset = Literal["smoke", "laptop", "narrow", "paper", "authors"]
PRESETS: tuple[Preset, ...] = ("smoke", "laptop", "narrow", "paper", "authors")
_BASE: dict[Preset, Recipe] = {
    "smoke": Recipe(
        "smoke",
        width=4,
        epochs=2,
        batch_size=64,
        learning_rate=1e-3,
        schedule="one_cycle",
        augment=True,
        train_images=512,
        eval_images=100,
        final_images=200,
    ),
    "laptop": Recipe(
        "laptop", width=16, epochs=16, batch_size=128, learning_rate=1e-3, schedule="one_cycle", augment=True
    ),
    "narrow": Recipe("narrow", width=16),  # the paper's set-up but for the width
    "paper": Recipe("paper"),
    "authors": Recipe("authors", arch="resnet32", rescale="max"),
}


def base_recipe(preset: str) -> Recipe:
    if preset not in PRESETS:
        raise ValueError(f"expected preset, one of {', '.join(PRESETS)}, got {preset!r}")
    return _BASE[preset]


def fig4_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The variants of Fig. 4 by heuristic: vanilla, dropout, mixup, batchnorm, adversarial.

    Source: paper, section 5.2 and Fig. 5; the "authors" preset follows the code (dropout on the last feature map,
    mix-up from Beta(1, 1)). How adversarial training attacks is said in `fig3`.
    """
    base = base_recipe(preset)
    by_code = preset == "authors"
    changes = {
        "vanilla": {},
        "dropout": {"dropout": 0.5, "dropout_at": "map" if by_code else "features"},
        "mixup": {"mixup_alpha": 1.0 if by_code else 0.5},
        "batchnorm": {"norm": "batch"},
    }
    variants = {variant: replace(base, name=f"{base.name}-{variant}", **change) for variant, change in changes.items()}
    return variants | {"adversarial": adversarial_recipes(preset)["adversarial"]}


def adversarial_recipes(preset: Preset) -> dict[str, Recipe]:
    """Adversarial training with and without BatchNorm, all else as the preset's vanilla."""
    base = base_recipe(preset)
    attack = {"adversarial": "single_step", "adv_eps": 8 / 255, "adv_alpha": 10 / 255, "adv_steps": 1}
    if preset in ("narrow", "paper"):
        attack |= {"adversarial": "pgd", "adv_alpha": 2 / 255, "adv_steps": 7}
    elif preset == "authors":
        attack = {
            "adversarial": "pgd",
            "adv_eps": 0.03,
            "adv_alpha": 0.003,
            "adv_steps": 10,
            "adv_random_start": False,
            "rescale": "none",
            "augment": True,
        }
    return {
        variant: replace(base, name=f"{base.name}-{variant}", **attack, **change)
        for variant, change in (("adversarial", {}), ("adversarial_batchnorm", {"norm": "batch"}))
    }


TITLES = {
    "vanilla": "Vanilla",
    "dropout": "Dropout",
    "mixup": "Mix-up",
    "batchnorm": "BatchNorm",
    "adversarial": "Adversarial training",
}
