"""The chapters of the book, in its order."""

from hfclib.paper.chapter import Chapter
from hfclib.paper.defense.claims import DEFENSE
from hfclib.paper.fig1 import FIG1
from hfclib.paper.fig2 import FIG2
from hfclib.paper.fig3 import FIG3
from hfclib.paper.fig4 import FIG4
from hfclib.paper.presets import Preset
from hfclib.paper.tradeoff import TRADEOFF
from hfclib.training.recipe import Recipe

CHAPTERS: dict[str, Chapter] = {one.name: one for one in (FIG1, FIG2, TRADEOFF, FIG3, FIG4, DEFENSE)}


def chapter_recipes(chapter: str, preset: Preset) -> dict[str, Recipe]:
    """The recipes of a chapter, by variant.

    Raises:
        ValueError: no such chapter or preset.
    """
    if chapter not in CHAPTERS:
        raise ValueError(f"expected chapter, one of {', '.join(CHAPTERS)}, got {chapter!r}")
    return CHAPTERS[chapter].recipes(preset)
