"""The recipes of every figure at each preset."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from hfclib.evaluation import PAPER_RADII
from hfclib.recipes import Recipe

PUBLISHED_SEEDS = (0, 1, 2)  # with which every panel at "laptop" is published in data/runs

Preset = Literal["smoke", "laptop", "paper", "authors"]
PRESETS: tuple[Preset, ...] = ("smoke", "laptop", "paper", "authors")


_BASE: dict[Preset, Recipe] = {
    "smoke": Recipe(
        "smoke", width=4, epochs=2, batch_size=64, learning_rate=1e-3, schedule="one_cycle", augment=True,
        train_images=512, eval_images=100, final_images=200,
    ),
    "laptop": Recipe(
        "laptop", width=16, epochs=16, batch_size=128, learning_rate=1e-3, schedule="one_cycle", augment=True
    ),
    "paper": Recipe("paper"),
    "authors": Recipe("authors", arch="resnet32", rescale="max"),
}  # fmt: skip


def _preset(preset: str) -> Recipe:
    if preset not in PRESETS:
        raise ValueError(f"expected preset, one of {', '.join(PRESETS)}, got {preset!r}")
    return _BASE[preset]


def fig4(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The panels of Fig. 4 by heuristic: vanilla, dropout, mixup, batchnorm.

    Source: paper, section 5.2 and Fig. 5; the "authors" preset follows the code (dropout on the last feature map,
    mix-up from Beta(1, 1)).
    """
    base = _preset(preset)
    by_code = preset == "authors"
    changes = {
        "vanilla": {},
        "dropout": {"dropout": 0.5, "dropout_at": "map" if by_code else "features"},
        "mixup": {"mixup_alpha": 1.0 if by_code else 0.5},
        "batchnorm": {"norm": "batch"},
    }
    return {panel: replace(base, name=f"{base.name}-{panel}", **change) for panel, change in changes.items()}


def fig1(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks of Table 1, each trained on one band only: lfc4, lfc8, lfc12, lfc16, hfc4, hfc8, hfc12, hfc16.

    Source: paper, section 4.1 and Table 1. Every band is rescaled to the standard pixel range (`Recipe.rescale`,
    "range"); the "authors" preset divides by the maximum, as the code does.
    """
    base = _preset(preset)
    rescale = "max" if preset == "authors" else "range"
    return {
        f"{band}{radius}": replace(
            base, name=f"{base.name}-{band}{radius}", train_band=band, train_radius=radius, rescale=rescale
        )
        for band in ("lfc", "hfc")
        for radius in PAPER_RADII
    }


def fig2(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks whose misaligned images are counted: vanilla and batchnorm of Fig. 4, and fullwidth.

    Source: paper, Fig. 2, which does not say how its network was trained. fullwidth is a ResNet-18 of the published
    width with BatchNorm and a schedule that brings it to a common accuracy in few epochs; at "paper" and "authors",
    whose networks have their full width, there is none.
    """
    panels = fig4(preset)
    chosen = {"vanilla": panels["vanilla"], "batchnorm": panels["batchnorm"]}
    base = _preset(preset)
    if preset == "laptop":
        chosen["fullwidth"] = replace(
            base, name="laptop-fullwidth", width=64, norm="batch", epochs=12, optimizer="sgd", learning_rate=0.1,
            weight_decay=5e-4, eval_images=200,
        )  # fmt: skip
    elif preset == "smoke":
        chosen["fullwidth"] = replace(base, name="smoke-fullwidth", width=8, norm="batch", optimizer="sgd",
                                      learning_rate=0.1, weight_decay=5e-4)  # fmt: skip
    return chosen


FIGURES: dict[str, Callable[[Preset], dict[str, Recipe]]] = {"fig1": fig1, "fig2": fig2, "fig4": fig4}


def recipes(figure: str, preset: Preset) -> dict[str, Recipe]:
    """The recipes of a figure, by panel.

    Raises:
        ValueError: no such figure or preset.
    """
    if figure not in FIGURES:
        raise ValueError(f"expected figure, one of {', '.join(FIGURES)}, got {figure!r}")
    return FIGURES[figure](preset)
