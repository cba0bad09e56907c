"""The presets' base recipes, and the recipes that several chapters share."""

from collections.abc import Collection

from hfclib.paper.names import PRESETS, Preset, check_choice
from hfclib.training.recipe import AttackConfig, Recipe

PUBLISHED_SEEDS = (0, 1, 2)  # a notebook's default; at "laptop" most networks have these three, or more, others 0 alone
_FAST = {"learning_rate": 1e-3, "schedule": "one_cycle", "augment": True}
_BASE: dict[Preset, Recipe] = {
    "smoke": Recipe("smoke").with_(
        width=4, epochs=2, batch_size=64, train_images=512, eval_images=20, final_images=40, **_FAST
    ),
    "laptop": Recipe("laptop").with_(width=16, epochs=16, batch_size=128, **_FAST),
    "narrow": Recipe("narrow").with_(width=16),  # the paper's set-up but for the width
    "paper": Recipe("paper"),
    "authors": Recipe("authors").with_(network="resnet32", rescale="max"),
}


def base_recipe(preset: str) -> Recipe:
    """The recipe that a preset's others change; a ValueError for a name that is no preset."""
    check_choice("preset", preset, PRESETS)
    return _BASE[preset]


def fig4_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks of Fig. 4, from which other chapters take theirs: vanilla, dropout, mixup, batchnorm, adversarial.

    Source: paper, section 5.2 and Fig. 5; "authors" follows the code: dropout on the last feature map, mix-up from
    Beta(1, 1).
    """
    base = base_recipe(preset)
    by_code = preset == "authors"
    changes = {
        "vanilla": {},
        "dropout": {"dropout": 0.5, "dropout_at": "map" if by_code else "features"},
        "mixup": {"mixup_alpha": 1.0 if by_code else 0.5},
        "batchnorm": {"norm": "batch"},
    }
    variants = {variant: base.with_(name=f"{base.name}-{variant}", **change) for variant, change in changes.items()}
    return variants | {"adversarial": adversarial_recipes(preset)["adversarial"]}


def adversarial_recipes(preset: Preset) -> dict[str, Recipe]:
    """Adversarial training without and with BatchNorm, all else as vanilla: adversarial, adversarial_batchnorm.

    Source: paper, which names eps 8/255 only. "laptop" and "smoke": one step of 10/255 from a random start (Wong et al.
    2020, who take 1.25 eps). "narrow" and "paper": PGD in 7 steps of 2/255 (Madry et al. 2018). "authors": what the
    code does, eps .03, 10 steps of .003 without random start, images not rescaled, crop and flip.
    """
    base = base_recipe(preset)
    changes = {"attack": AttackConfig("single_step", eps=8 / 255, alpha=10 / 255, steps=1)}
    if preset in ("narrow", "paper"):
        changes = {"attack": AttackConfig("pgd", eps=8 / 255, alpha=2 / 255, steps=7)}
    elif preset == "authors":
        attack = AttackConfig("pgd", eps=0.03, alpha=0.003, steps=10, random_start=False)
        changes = {"attack": attack, "rescale": "none", "augment": True}
    return {
        variant: base.with_(name=f"{base.name}-{variant}", **changes, norm=norm)
        for variant, norm in (("adversarial", "none"), ("adversarial_batchnorm", "batch"))
    }


def stated_recipes(preset: Preset) -> dict[str, Recipe]:
    """Vanilla and batchnorm of the paper's set-up as stated, shortened, wider than "narrow", or with crop and flip.

    "paper": vanilla_16 and batchnorm_16, 16 of its 100 epochs. Its learning rate is constant, so they are the first 16
    epochs of the long training. And vanilla_cropped30 and batchnorm_cropped30, 30 epochs on cropped and flipped images;
    those whose names end in _cropped4 and _cropped16 are the first 4 and 16 of these. All but those of 30 epochs are
    measured on 1,000 images at the end.
    "narrow": as the first pair at width 32, vanilla_w32 and batchnorm_w32; and vanilla_cropped and batchnorm_cropped,
    100 epochs at width 16 on cropped and flipped images. Others: none.

    Source: ours. The set-up as stated does not give the paper's accuracies on training and test images at width 16.
    """
    changes = {
        "paper": {
            "16": {"epochs": 16, "final_images": 1_000},
            "cropped4": {"augment": True, "epochs": 4, "final_images": 1_000},
            "cropped16": {"augment": True, "epochs": 16, "final_images": 1_000},
            "cropped30": {"augment": True, "epochs": 30},
        },
        "narrow": {"w32": {"width": 32, "epochs": 16}, "cropped": {"augment": True}},
    }
    pair = {variant: fig4_recipes(preset)[variant] for variant in ("vanilla", "batchnorm")}
    return {
        f"{variant}_{name}": recipe.with_(name=f"{recipe.name}_{name}", **change)
        for name, change in changes.get(preset, {}).items()
        for variant, recipe in pair.items()
    }


def pair_recipes(preset: Preset, end: str = "") -> dict[str, Recipe]:
    """Vanilla and batchnorm of a preset, or those of `stated_recipes` whose names end so, under these two names."""
    recipes = fig4_recipes(preset) | stated_recipes(preset)
    return {name: recipes[name + end] for name in ("vanilla", "batchnorm")}


TITLES = {  # of the networks that several chapters show, in the order of figures and tables
    "vanilla": "Vanilla",
    "dropout": "Dropout",
    "mixup": "Mix-up",
    "batchnorm": "BatchNorm",
    "penalised": "Penalised kernels",
    "adversarial": "Adversarial training",
    "adversarial_batchnorm": "Adversarial training, BatchNorm",
    "fullwidth": "BatchNorm, width 64",
    "groupnorm": "GroupNorm",
    "vanilla5": "Vanilla, 5 x 5",
    "adversarial5": "Adversarial training, 5 x 5",
}


def titled(variants: Collection[str]) -> dict[str, str]:
    """Titles by variant, those of `TITLES` first; the title of another one, such as a network of yours, is its name."""
    there = set(variants)
    known = [variant for variant in TITLES if variant in there]
    return {variant: TITLES.get(variant, variant) for variant in dict.fromkeys([*known, *variants])}
