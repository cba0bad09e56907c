"""The chapters in the book's order, and the recipes that `hfc train` knows by name.

`names` holds the two lists as plain text; to add a chapter, enter it there.
"""

from collections.abc import Callable
from pkgutil import resolve_name

from hfclib.paper.chapter import Chapter
from hfclib.paper.names import CHAPTER_PLACES, EXPERIMENT_PLACES, TRAINED, Preset, check_choice
from hfclib.training.recipe import Recipe

CHAPTERS: dict[str, Chapter] = {name: resolve_name(place) for name, place in CHAPTER_PLACES.items()}

# Those of the chapters, and of experiments whose runs are trained before their chapter is written.
RECIPES: dict[str, Callable[[Preset], dict[str, Recipe]]] = {
    name: CHAPTERS[name].recipes if name in CHAPTERS else resolve_name(EXPERIMENT_PLACES[name]) for name in TRAINED
}


def chapter_recipes(chapter: str, preset: Preset) -> dict[str, Recipe]:
    """The recipes of a chapter or experiment, by variant.

    Raises:
        ValueError: no such chapter or preset.
    """
    check_choice("chapter", chapter, RECIPES)
    return RECIPES[chapter](preset)
