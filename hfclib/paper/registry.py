"""The chapters of the book, in its order, and the recipes that `hfc train` knows by name."""

from collections.abc import Callable

from hfclib.paper.batchnorm import ablation_recipes, batchnorm_recipes, fig6_recipes
from hfclib.paper.chapter import Chapter
from hfclib.paper.choices import choices_recipes
from hfclib.paper.defense.claims import DEFENSE
from hfclib.paper.fig1 import FIG1
from hfclib.paper.fig2 import FIG2
from hfclib.paper.fig3 import FIG3
from hfclib.paper.fig4 import FIG4
from hfclib.paper.labels import labels_recipes
from hfclib.paper.presets import Preset
from hfclib.paper.tradeoff import TRADEOFF
from hfclib.training.recipe import Recipe

CHAPTERS: dict[str, Chapter] = {one.name: one for one in (FIG1, FIG2, TRADEOFF, FIG3, FIG4, DEFENSE)}

# Those of the chapters, and of experiments whose runs are trained before their chapter is written.
RECIPES: dict[str, Callable[[Preset], dict[str, Recipe]]] = {
    **{name: chapter.recipes for name, chapter in CHAPTERS.items()},
    "labels": labels_recipes,
    "batchnorm": batchnorm_recipes,
    "fig6": fig6_recipes,
    "ablation": ablation_recipes,
    "training": choices_recipes,
}


def chapter_recipes(chapter: str, preset: Preset) -> dict[str, Recipe]:
    """The recipes of a chapter or experiment, by variant.

    Raises:
        ValueError: no such chapter or preset.
    """
    if chapter not in RECIPES:
        raise ValueError(f"expected chapter, one of {', '.join(RECIPES)}, got {chapter!r}")
    return RECIPES[chapter](preset)
