"""Checking a notebook's parameters before any work.

papermill only warns of a misspelt parameter, and runs on without it. So a notebook's first library call hands over
`globals()`, and a plain value that is no parameter, or not of the allowed kind, stops it at once.

A chapter's parameters are a subclass of `OneSeed` or `SeveralSeeds`, one field per parameter, with a type made by
`whole`, `number`, `several` or `choice`; the type says what is allowed, also in the error message.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hfclib._names import nearest
from hfclib.conditions import BN_STATS, BnStats
from hfclib.paper.presets import PRESETS, PUBLISHED_SEEDS, Preset
from hfclib.training.recipe import RADII
from hfclib.transforms import FEEDS, Feed

_LISTS_BY = 'with papermill, give a list as -y "{name}: [4, 8]"'
_PLAIN = (bool, int, float, str, list, tuple, type(None))  # what a misspelt parameter can have been set to
_CHECKED = "_names_at_the_first_check"
_SHELL = {"In", "Out"}  # IPython's own plain values


def _different(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError("the same value twice")
    return values


def whole(low: int, high: int, meaning: str) -> object:
    """The type of a whole number from `low` to `high`."""
    return Annotated[int, Field(ge=low, le=high, description=f"{meaning}, from {low} to {high}")]


def number(low: float, high: float, meaning: str, *, above: bool = False) -> object:
    """The type of a number from `low` to `high`; with `above` not `low` itself."""
    text = f"{meaning}, above {low:g}, up to {high:g}" if above else f"{meaning}, from {low:g} to {high:g}"
    bound = {"gt": low} if above else {"ge": low}
    return Annotated[float, Field(**bound, le=high, allow_inf_nan=False, description=text)]


def several(kind: object, limit: int) -> object:
    """The type of one value, or a list of up to `limit` different ones, each of the type `kind` (`whole`, `number`)."""
    text = f"{kind.__metadata__[0].description}, or a list of up to {limit} different ones"
    return Annotated[
        tuple[kind, ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list | tuple) else (value,)),
        AfterValidator(_different),
        Field(min_length=1, max_length=limit, description=text),
    ]


def choice(kind: object, allowed: tuple[str, ...]) -> object:
    """The type of one of several words, whose Literal is `kind`."""
    return Annotated[kind, Field(description=f"one of {', '.join(allowed)}")]


Radius = whole(RADII[0], RADII[-1], "a whole number of DFT bins")
Radii = several(Radius, 6)
PaperRadius = Annotated[int, Field(ge=4, le=16, multiple_of=4, description="one of 4, 8, 12, 16")]
Seed = whole(0, 9_999, "a whole number")
Seeds = several(Seed, 100)
FeedChoice = choice(Feed, FEEDS)
StatisticsChoice = choice(BnStats, BN_STATS)


class Parameters(BaseModel):
    """The parameters that every notebook has; a field's description says what is allowed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    preset: choice(Preset, PRESETS) = Field("laptop", title="whose runs")
    retrain: Annotated[bool, Field(description="True or False")] = Field(
        False, title="train every run that the notebook needs, stored or not, and show what was trained"
    )

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds whose runs the notebook needs."""
        return self.seeds if "seeds" in type(self).model_fields else (self.seed,)


class OneSeed(Parameters):
    """The parameters of a notebook that shows networks of one seed."""

    seed: Seed = Field(0, title="which run of each recipe")


class SeveralSeeds(Parameters):
    """The parameters of a notebook that shows means over seeds."""

    seeds: Seeds = Field(PUBLISHED_SEEDS, title="which runs of each recipe")


def given_parameters(
    namespace: Mapping[str, object], known: tuple[str, ...], mine: frozenset[str] = frozenset()
) -> dict[str, object]:
    """The parameters among a notebook's `globals()`.

    Args:
        namespace: names and values. Names with a leading underscore, and unknown names whose value is not plain (a
            number, text, a list...), do not count.
        known: the parameters there are.
        mine: names that the notebook has set since; they do not count unless they look like a parameter's.
    Returns:
        The known ones that are set.
    Raises:
        ValueError: any other name, with the nearest known one.
    """
    for name, value in namespace.items():
        if name in known or name.startswith("_") or name in _SHELL or type(value) not in _PLAIN:
            continue
        if name in mine and not difflib.get_close_matches(name, known, cutoff=0.75):
            continue
        raise unknown(name, value, known)
    return {name: namespace[name] for name in known if name in namespace}


def unknown(name: object, value: object, known: tuple[str, ...]) -> ValueError:
    """The error about a parameter that there is not, with the nearest known one."""
    return ValueError(f"unknown parameter {name} = {value!r}{nearest(name, known)}; allowed: {', '.join(known)}")


def refusal(parameters: type[Parameters], name: str, value: object, allowed: str | None = None) -> ValueError:
    """The error that names a parameter, its value and what is allowed in its place."""
    allowed = allowed or parameters.model_fields[name].description
    if isinstance(value, str) and any(character in value for character in "[,") and "a list" in allowed:
        allowed += f"; {_LISTS_BY.format(name=name)}"
    return ValueError(f"parameter {name} = {value!r}: expected {allowed}")


def check_parameters(parameters: type[Parameters], namespace: Mapping[str, object]) -> Parameters:
    """Check the parameters of a notebook.

    Args:
        parameters: their class.
        namespace: the notebook's `globals()`, or a dictionary of parameters.
    Returns:
        The checked parameters, defaults filled in; one number where a list is allowed becomes a tuple.
    Raises:
        ValueError: an unknown name, or a value that is not allowed; says what is allowed.
    """
    # The cell may run again in a session, after other cells have set names.
    first = namespace.get(_CHECKED)
    mine = frozenset() if first is None else frozenset(namespace) - first
    given = given_parameters(namespace, tuple(parameters.model_fields), mine)
    if isinstance(namespace, dict):
        namespace.setdefault(_CHECKED, frozenset(namespace))
    try:
        return parameters(**given)
    except ValidationError as error:
        name = error.errors()[0]["loc"][0]
        raise refusal(parameters, name, given[name]) from None
