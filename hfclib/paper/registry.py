"""The chapters in the book's order, and the recipes that `hfc train` knows by name.

`names` holds the two lists as plain text; to add a chapter, enter it there.
"""

from collections.abc import Callable
from pkgutil import resolve_name

from hfclib.paper.chapter import Chapter
from hfclib.paper.names import CHAPTER_PLACES, EXPERIMENT_PLACES, Preset, check_choice
from hfclib.training.recipe import Recipe

CHAPTERS: dict[str, Chapter] = {name: resolve_name(place) for name, place in CHAPTER_PLACES.items()}

# Those of the chapters, and of experiments whose runs are trained before their chapter is written.
RECIPES: dict[str, Callable[[Preset], dict[str, Recipe]]] = {
    # Detectors have recipes of another kind, and are trained by their notebook.
    **{name: chapter.recipes for name, chapter in CHAPTERS.items() if type(chapter) is Chapter},
    **{name: resolve_name(place) for name, place in EXPERIMENT_PLACES.items()},
}


def chapter_recipes(chapter: str, preset: Preset) -> dict[str, Recipe]:
    """The recipes of a chapter or experiment, by variant.

    Raises:
        ValueError: no such chapter or preset.
    """
    check_choice("chapter", chapter, RECIPES)
    return RECIPES[chapter](preset)
