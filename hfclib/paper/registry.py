"""The chapters, and the recipes that `hfc train` knows by name.

`names` holds the two lists as plain text; to add a chapter, enter it there.
"""

from collections.abc import Callable
from pkgutil import resolve_name

from hfclib.paper.chapter import Chapter
from hfclib.paper.names import CHAPTER_PLACES, EXPERIMENT_PLACES, TRAINED, Preset
from hfclib.training.recipe import Recipe

CHAPTERS: dict[str, Chapter] = {name: resolve_name(place) for name, place in CHAPTER_PLACES.items()}
for _chapter in CHAPTERS.values():
    _chapter.check_claims()

# From a preset to recipes by variant: of chapters, and of the experiments in `names`.
RECIPES: dict[str, Callable[[Preset], dict[str, Recipe]]] = {
    name: CHAPTERS[name].recipes if name in CHAPTERS else resolve_name(EXPERIMENT_PLACES[name]) for name in TRAINED
}
