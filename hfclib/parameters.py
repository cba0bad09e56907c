"""Checking a notebook's parameters before any work.

papermill only warns about a misspelt parameter, and then runs on without it. So a notebook's first library call hands
over all its names, and what is not a parameter, or not a value of the allowed kind, stops it at once. So does a run
that is not stored, unless `retrain` allows training.
"""

import difflib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import NamedTuple

from hfclib import figures, runs
from hfclib.data import TEST_IMAGES
from hfclib.defenses import RHO
from hfclib.evaluation import BN_STATS, PAPER_RADII
from hfclib.feeds import FEEDS
from hfclib.figures import PRESETS, PUBLISHED_SEEDS
from hfclib.recipes import RADII

_LISTS_BY = 'with papermill, give a list as -y "{name}: [4, 8]"'
_PLAIN = (bool, int, float, str, list, tuple, type(None))  # what a misspelt parameter can have been set to
_CHECKED = "_names_at_the_first_check"
_SHELL = {"In", "Out"}  # IPython's own plain values
_BINS = "a whole number of DFT bins"
PAPER_INDICES = (95, 134, 633, 692, 2568, 4435, 8267, 8501)  # the test images of the paper's Fig. 2


class Parameter(NamedTuple):
    """A parameter of a notebook.

    Its default is the checked value where the notebook doesn't set it; its check takes (name, value) to the checked
    value and raises ValueError.
    """

    default: object
    check: Callable[[str, object], object]


def _fail(name: str, value: object, allowed: str) -> ValueError:
    return ValueError(f"parameter {name} = {value!r}: expected {allowed}")


def _listed(name: str, value: object, limit: int, expected: str) -> list:
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not 1 <= len(values) <= limit or len(set(map(repr, values))) < len(values):
        raise _fail(name, value, expected)
    for one in values:
        if isinstance(one, str) and any(character in one for character in "[,"):
            raise _fail(name, value, f"{expected}; {_LISTS_BY.format(name=name)}")
    return values


def _is_whole(value: object, allowed: range) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in allowed


def _whole(allowed: range, meaning: str) -> Callable[[str, object], int]:
    def check(name: str, value: object) -> int:
        if not _is_whole(value, allowed):
            raise _fail(name, value, f"{meaning}, from {allowed.start} to {allowed.stop - 1}")
        return value

    return check


def _wholes(allowed: range, limit: int, meaning: str) -> Callable[[str, object], tuple[int, ...]]:
    def check(name: str, value: object) -> tuple[int, ...]:
        expected = f"{meaning}, from {allowed.start} to {allowed.stop - 1}, or a list of up to {limit} different ones"
        values = _listed(name, value, limit, expected)
        if not all(_is_whole(one, allowed) for one in values):
            raise _fail(name, value, expected)
        return tuple(values)

    return check


def _numbers(
    low: float, high: float, limit: int, meaning: str, *, above: bool = False
) -> Callable[[str, object], tuple[float, ...]]:
    """With `above`, low itself is not allowed."""

    def check(name: str, value: object) -> tuple[float, ...]:
        span = f"above {low:g}, up to {high:g}" if above else f"from {low:g} to {high:g}"
        expected = f"{meaning}, {span}, or a list of up to {limit} different ones"
        values = _listed(name, value, limit, expected)
        for one in values:
            number = isinstance(one, int | float) and not isinstance(one, bool)
            if not number or not low <= one <= high or (above and one == low):  # which no NaN is
                raise _fail(name, value, expected)
        return tuple(map(float, values))

    return check


def _number(low: float, high: float, meaning: str) -> Callable[[str, object], float]:
    def check(name: str, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise _fail(name, value, f"{meaning}, from {low:g} to {high:g}")
        return float(value)

    return check


def _one_of(allowed: tuple[str, ...]) -> Callable[[str, object], str]:
    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise _fail(name, value, f"one of {', '.join(allowed)}")
        return value

    return check


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _fail(name, value, "True or False")
    return value


_PRESET = Parameter("laptop", _one_of(PRESETS))
_RETRAIN = Parameter(False, _switch)
_SEEDS = _wholes(range(10_000), 100, "a whole number")
_SEED = Parameter(0, _whole(range(10_000), "a whole number"))
_RADIUS = _whole(range(RADII[0], RADII[-1] + 1), _BINS)
_RADII = _wholes(range(RADII[0], RADII[-1] + 1), 6, _BINS)

NOTEBOOKS: dict[str, dict[str, Parameter]] = {
    "fig1": {"preset": _PRESET, "seeds": Parameter((0,), _SEEDS), "retrain": _RETRAIN},
    "fig2": {
        "radius": Parameter(12, _RADIUS),
        "preset": _PRESET,
        "seed": _SEED,
        "indices": Parameter(PAPER_INDICES, _wholes(range(TEST_IMAGES), 12, "the number of a test image")),
        "feed": Parameter("raw", _one_of(FEEDS)),
        "bn_stats": Parameter("running", _one_of(BN_STATS)),
        "retrain": _RETRAIN,
    },
    "fig3": {
        "rho": Parameter(1.0, _number(0, 10, "a weight of the neighbours")),
        "preset": _PRESET,
        "seeds": Parameter(PUBLISHED_SEEDS, _SEEDS),
        "retrain": _RETRAIN,
    },
    "fig4": {
        "radius": Parameter(PAPER_RADII, _RADII),
        "feed": Parameter("mean", _one_of(FEEDS)),
        "bn_stats": Parameter("running", _one_of(BN_STATS)),
        "preset": _PRESET,
        "seeds": Parameter(PUBLISHED_SEEDS, _SEEDS),
        "retrain": _RETRAIN,
    },
    "defense": {
        "rho": Parameter(RHO, _numbers(0, 10, 6, "a weight of the neighbours")),
        "eps": Parameter((0.03, 0.06, 0.09), _numbers(0, 0.5, 4, "a distance in pixels of [0, 1]", above=True)),
        "steps": Parameter(20, _whole(range(1, 1001), "a number of steps of PGD")),
        "preset": _PRESET,
        "seed": _SEED,
        "n_images": Parameter(500, _whole(range(1, TEST_IMAGES + 1), "a number of test images")),
        "retrain": _RETRAIN,
    },
    "tradeoff": {
        "eps": Parameter((2 / 255, 4 / 255, 8 / 255, 16 / 255), _numbers(0, 1, 8, "a distance in pixels of [0, 1]")),
        "preset": _PRESET,
        "seed": _SEED,
        "retrain": _RETRAIN,
    },
}
# Whose recipes a notebook needs, where it isn't a figure of its own.
_FIGURE = {"tradeoff": "fig2"}


def given(
    namespace: Mapping[str, object], known: tuple[str, ...], mine: frozenset[str] = frozenset()
) -> dict[str, object]:
    """The parameters among a notebook's `globals()`.

    Args:
        namespace: names and values; of names that are not known only plain values (numbers, text, lists...) count,
            and no name with a leading underscore.
        known: the parameters there are.
        mine: names that the notebook itself has set since; they are let alone unless they look like a parameter's.
    Returns:
        The known ones that are set.
    Raises:
        ValueError: a plain value under any other name, with the nearest known name.
    """
    found = {}
    for name, value in namespace.items():
        if name.startswith("_") or name in _SHELL or (name not in known and type(value) not in _PLAIN):
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            if name in mine and not difflib.get_close_matches(name, known, cutoff=0.75):
                continue
            hint = f", did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown parameter {name} = {value!r}{hint}; allowed: {', '.join(known)}")
        found[name] = value
    return found


def check(notebook: str, namespace: Mapping[str, object]) -> SimpleNamespace:
    """Check the parameters of a notebook; its first library call.

    Args:
        notebook: its name, a key of NOTEBOOKS.
        namespace: the notebook's `globals()`, or a dictionary of parameters.
    Returns:
        The checked parameters as attributes, defaults filled in; one number where a list is allowed becomes a tuple.
    Raises:
        ValueError: an unknown name, a value that isn't allowed, or seeds whose runs are not stored while `retrain` is
            off; says what is allowed.
    """
    parameters = NOTEBOOKS[notebook]
    # In a session the cell may run again, after others have set names of their own.
    first = namespace.get(_CHECKED)
    found = given(namespace, tuple(parameters), frozenset() if first is None else frozenset(namespace) - first)
    if isinstance(namespace, dict):
        namespace.setdefault(_CHECKED, frozenset(namespace))
    settings = SimpleNamespace(
        **{name: one.check(name, found[name]) if name in found else one.default for name, one in parameters.items()}
    )
    if not settings.retrain:
        name = "seeds" if "seeds" in parameters else "seed"
        value = found.get(name, parameters[name].default)
        seeds = settings.seeds if name == "seeds" else (settings.seed,)
        if missing := _not_stored(_FIGURE.get(notebook, notebook), settings.preset, seeds):
            allowed = "seeds whose runs are stored, or retrain = True, which trains them"
            raise _fail(name, value, f"{allowed}; not stored at preset {settings.preset}: {', '.join(missing)}")
    return settings


def _not_stored(figure: str, preset: str, seeds: tuple[int, ...]) -> list[str]:
    """Runs that the figure can't do without, and every run of a seed that no panel has."""
    jobs = [(panel, seed, recipe.run_name(seed)) for panel, recipe in figures.recipes(figure, preset).items()
            for seed in seeds]  # fmt: skip
    missing = [job for job in jobs if not any((folder / job[2]).is_dir() for folder in runs.folders())]
    known = {seed for _, seed, _ in set(jobs) - set(missing)}
    return [name for panel, seed, name in missing if panel not in figures.OPTIONAL or seed not in known]
