"""The chapters, and the recipes that `hfc train` knows by name; each is imported when it is first asked for.

`names` holds the two lists as plain text; to add a chapter, enter it there.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pkgutil import resolve_name
from typing import TypeVar

from hfclib.paper.chapter import Chapter
from hfclib.paper.names import CHAPTER_PLACES, EXPERIMENT_PLACES, TRAINED, Preset
from hfclib.training.recipe import Recipe

_T = TypeVar("_T")


class _Loaded(Mapping[str, _T]):
    """Values by name, each made by `load` when it is first asked for."""

    def __init__(self, names: tuple[str, ...], load: Callable[[str], _T]) -> None:
        self._names, self._load = names, cache(load)

    def __getitem__(self, name: str) -> _T:
        if name not in self._names:
            raise KeyError(name)
        return self._load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _chapter(name: str) -> Chapter:
    chapter = resolve_name(CHAPTER_PLACES[name])
    chapter.check_claims()
    return chapter


def _recipes(name: str) -> Callable[[Preset], dict[str, Recipe]]:
    # Without the checks of `CHAPTERS`: to read the claims takes a package that training does without.
    return (
        resolve_name(CHAPTER_PLACES[name]).recipes if name in CHAPTER_PLACES else resolve_name(EXPERIMENT_PLACES[name])
    )


CHAPTERS: Mapping[str, Chapter] = _Loaded(tuple(CHAPTER_PLACES), _chapter)
# From a preset to recipes by variant: of chapters, and of the experiments in `names`.
RECIPES: Mapping[str, Callable[[Preset], dict[str, Recipe]]] = _Loaded(TRAINED, _recipes)
