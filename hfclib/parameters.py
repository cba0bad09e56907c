"""Checking a notebook's parameters before any work.

papermill only warns about a misspelt parameter, and then runs on without it. So a notebook's first library call hands
over all its names, and what is not a parameter, or not a value of the allowed kind, stops it at once.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from hfclib.evaluation import BN_STATS, PAPER_RADII
from hfclib.feeds import FEEDS
from hfclib.figures import PRESETS, PUBLISHED_SEEDS
from hfclib.recipes import RADII

_LISTS_BY = 'with papermill, give a list as -y "{name}: [4, 8]"'
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))  # what a parameter can be set to
_SHELL = {"In", "Out"}  # IPython's own plain values


@dataclass(frozen=True)
class Fig4Parameters:
    """The checked parameters of `notebooks/fig4.ipynb`.

    Attributes:
        radius: radii to draw, in DFT bins, whole numbers from 1 to 22; one number or a list.
        feed: what the networks are fed in the controlled figure: "raw", "max" or "mean".
        bn_stats: BatchNorm's statistics in the controlled figure: "running" or "batch".
        preset: whose runs.
        seeds: which runs of each recipe; one number or a list.
        retrain: train every run again, stored or not.
    """

    radius: tuple[int, ...] = PAPER_RADII
    feed: str = "mean"
    bn_stats: str = "running"
    preset: str = "laptop"
    seeds: tuple[int, ...] = PUBLISHED_SEEDS
    retrain: bool = False


def _fail(name: str, value: object, allowed: str) -> ValueError:
    return ValueError(f"parameter {name} = {value!r}: expected {allowed}")


def _whole_numbers(name: str, value: object, allowed: range, limit: int, meaning: str) -> tuple[int, ...]:
    expected = f"{meaning}, from {allowed.start} to {allowed.stop - 1}, or a list of up to {limit} different ones"
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not 1 <= len(values) <= limit or len(set(map(repr, values))) < len(values):
        raise _fail(name, value, expected)
    for one in values:
        if isinstance(one, str) and any(character in one for character in "[,"):
            raise _fail(name, value, f"{expected}; {_LISTS_BY.format(name=name)}")
        if isinstance(one, bool) or not isinstance(one, int) or one not in allowed:
            raise _fail(name, value, expected)
    return tuple(values)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise _fail(name, value, f"one of {', '.join(allowed)}")
    return value


def given(namespace: Mapping[str, object], known: tuple[str, ...]) -> dict[str, object]:
    """The parameters among a notebook's `globals()`.

    Args:
        namespace: names and values; only plain values (numbers, text, lists...) count, and no name with a
            leading underscore.
        known: the parameters there are.
    Returns:
        The known ones that are set.
    Raises:
        ValueError: a plain value under any other name, with the nearest known name.
    """
    found = {}
    for name, value in namespace.items():
        if name.startswith("_") or name in _SHELL or type(value) not in _PLAIN:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown parameter {name} = {value!r}{hint}; allowed: {', '.join(known)}")
        found[name] = value
    return found


def fig4(namespace: Mapping[str, object]) -> Fig4Parameters:
    """Check the parameters of the Fig. 4 notebook.

    Args:
        namespace: the notebook's `globals()`, or a dictionary of parameters.
    Returns:
        The checked parameters, defaults filled in.
    Raises:
        ValueError: an unknown name or a value that isn't allowed; says what is.
    """
    found = given(namespace, tuple(Fig4Parameters.__dataclass_fields__))
    checked: dict = {}
    if "radius" in found:
        checked["radius"] = _whole_numbers(
            "radius", found["radius"], range(RADII[0], RADII[-1] + 1), 6, "a whole number of DFT bins"
        )
    if "seeds" in found:
        checked["seeds"] = _whole_numbers("seeds", found["seeds"], range(10_000), 100, "a whole number")
    for name, allowed in (("feed", FEEDS), ("bn_stats", BN_STATS), ("preset", PRESETS)):
        if name in found:
            checked[name] = _one_of(name, found[name], allowed)
    if "retrain" in found:
        if not isinstance(found["retrain"], bool):
            raise _fail("retrain", found["retrain"], "True or False")
        checked["retrain"] = found["retrain"]
    return Fig4Parameters(**checked)
