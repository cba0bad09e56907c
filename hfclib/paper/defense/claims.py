"""The claims about defenses, tested on stored trials, and the Chapter.

Their strengths and eps were fixed before any number. Several seeds are compared by Student's t; with a single seed the
same images are compared in pairs (`paired`).
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from hfclib.data.cifar import TEST_IMAGES
from hfclib.paper.chapter import Chapter
from hfclib.paper.defense.judgement import claimed_gains, gains
from hfclib.paper.defense.setup import RHO, STRONGEST, defense_recipes
from hfclib.paper.defense.tables import ATTACKS, number_text
from hfclib.paper.defense.trials import strong_trials, trials_table
from hfclib.paper.intervals import Estimate, MissingRunError, interval, paired
from hfclib.paper.parameters import OneSeed, number, several, whole
from hfclib.paper.published import table2_value
from hfclib.paper.tables import decimals
from hfclib.paper.verdicts import MARGIN, Claim
from hfclib.runs.collect import Runs

SMALL, LARGE = 0.03, 0.09  # the smallest and the largest eps of the paper's Table 2


class Side(NamedTuple):
    """One side of a comparison: a network of `defense_recipes`, and the fields of its `Defense`."""

    variant: str
    defense: str = "none"
    strength: float = 0.0


_NATURAL, _ADVERSARIAL, _PENALISED = Side("vanilla"), Side("adversarial"), Side("penalised")
_RULE, _KERNELS, _FILTER = (Side("vanilla", *one) for one in (("rule", 1.0), ("kernels", 8.0), ("input", 8.0)))


def needs_strong_attack(found: pd.DataFrame) -> pd.DataFrame:
    """Where the strong attack is run: at every gain, and at the sides of claims that are tested with it.

    Args:
        found: from `gains`.
    Returns:
        Rows as from `claimed_gains`.
    """
    places = pd.MultiIndex.from_frame(found[["variant", "defense", "strength", "eps"]])
    fixed = places.isin([(*side, SMALL) for side in (_RULE, _KERNELS, _PENALISED, _FILTER)])
    return claimed_gains(found.assign(low=found["low"].where(~fixed, np.inf)))


def defense_contrast(table: pd.DataFrame, first: Side, second: Side, attack: str, eps: float) -> Estimate:
    """The accuracy of one side minus that of another.

    Args:
        table: trials, from `trials_table` and `strong_trials`.
        first, second: what is compared.
        attack: as in `Attack`; for a side without a defense the non-adaptive attack is PGD.
        eps: 0 for clean images.
    Returns:
        The difference over the seeds that both have; with a single seed, over the images in pairs.
    Raises:
        MissingRunError: they have no seed in common.
    """
    one, other = (_correct_by_seed(table, side, attack, eps) for side in (first, second))
    seeds = sorted(set(one) & set(other))
    if not seeds:
        raise MissingRunError("no seed has both trials of the claim")
    if len(seeds) > 1:
        differences = [float(np.mean(one[seed]) - np.mean(other[seed])) for seed in seeds]
        return Estimate(*interval(differences), seeds=len(seeds))
    return Estimate(*paired(one[seeds[0]], other[seeds[0]]), seeds=1, over="images")


def _correct_by_seed(table: pd.DataFrame, side: Side, attack: str, eps: float) -> dict[int, tuple[bool, ...]]:
    attack = "pgd" if (side.defense, attack) == ("none", "unaware") else attack
    wanted = {**side._asdict(), "attack": attack, "eps": eps}
    rows = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    return dict(zip(rows["seed"], rows["correct"], strict=True))


def _claim(
    name: str, text: str, first: Side, second: Side, attack: str, eps: float, *, small: bool = False, blog: bool = False
) -> Claim:
    """A claim that the first side exceeds the second or, if `small`, that it exceeds it by at most MARGIN."""
    words = {**ATTACKS, "clean": "clean images", STRONGEST: "strong attack"}
    cells = [table2_value(*side, attack, eps) for side in (first, second)]
    return Claim(
        id=f"defense-{name}",
        figure="defense",
        section="blog" if blog else "section 6.2, Table 2",
        text=text,
        version=words[attack] + (f", eps {number_text(eps)}" if eps else ""),
        relation="at most" if small else "exceeds",
        bound=MARGIN if small else 0.0,
        paper=decimals(cells[0].value - cells[1].value) if all(cells) else None,
        statistic=partial(defense_contrast, first=first, second=second, attack=attack, eps=eps),
    )


def _claims() -> Iterator[Claim]:
    smoothed = Side("adversarial", "rule", 1.0)
    text = "Smoothing its kernels by the rule at rho = 1 makes the natural network "
    yield _claim("rule-clean", text + "less accurate", _NATURAL, _RULE, "clean", 0.0)
    yield _claim("rule-fgsm", text + "more robust", _RULE, _NATURAL, "fgsm", SMALL)
    trained = "An adversarially trained network is more robust than the natural one"
    over = "At a large eps the natural network smoothed at rho = 1 is more robust than the adversarially trained one"
    large = "At a large eps smoothing at rho = 1 makes the adversarially trained network more robust"
    small = "At a small eps smoothing at rho = 1 does not help the adversarially trained network: by at most .05"
    for attack in ("fgsm", "pgd"):
        yield _claim(f"adversarial-{attack}", trained, _ADVERSARIAL, _NATURAL, attack, SMALL)
        yield _claim(f"rule-over-adversarial-{attack}", over, _RULE, _ADVERSARIAL, attack, LARGE)
        yield _claim(f"adversarial-rule-{attack}-large", large, smoothed, _ADVERSARIAL, attack, LARGE)
        yield _claim(f"adversarial-rule-{attack}-small", small, smoothed, _ADVERSARIAL, attack, SMALL, small=True)
    ways = {
        "rule": ("Smoothing kernels by the rule at rho = 1", _RULE),
        "kernels": ("Taking the HFC at r = 8 out of kernels", _KERNELS),
        "penalised": ("A penalty on rough kernels in training", _PENALISED),
    }
    for name, (way, side) in ways.items():
        text = f"{way} improves robustness marginally: by at most .05"
        yield _claim(f"{name}-marginal", text, side, _NATURAL, STRONGEST, SMALL, small=True, blog=True)
    text = "Taking the HFC at r = 8 out of the input defends against a non-adaptive attack"
    yield _claim("input-unaware", text, _FILTER, _NATURAL, "unaware", SMALL, blog=True)
    text = "Against an adaptive attack, taking the HFC at r = 8 out of the input adds at most .05"
    yield _claim("input-aware", text, _FILTER, _NATURAL, STRONGEST, SMALL, small=True, blog=True)


class DefenseParameters(OneSeed):
    """The parameters of `notebooks/defense.ipynb`."""

    rho: several(number(0, 10, "a weight of the neighbours"), 6) = RHO
    eps: several(number(0, 0.5, "a distance in pixels of [0, 1]"), 4, above=0) = (0.03, 0.06, 0.09)
    steps: whole(1, 1000, "a number of steps of PGD") = 20
    n_images: whole(1, TEST_IMAGES, "a number of test images") = 500


def _evidence(runs: Runs) -> pd.DataFrame:
    """The stored trials at the notebook's defaults; no attack is run."""
    usual = DefenseParameters()
    options = {"images": usual.n_images, "compute": False}
    table = trials_table(runs, usual.rho, usual.eps, usual.steps, **options)
    strong = strong_trials(runs, needs_strong_attack(gains(table)), usual.steps, **options)
    return pd.concat([table, strong], ignore_index=True)


DEFENSE = Chapter(
    name="defense",
    recipes=defense_recipes,
    parameters=DefenseParameters,
    optional=("penalised", "adversarial", "adversarial_batchnorm"),
    claims=tuple(_claims()),
    evidence=_evidence,
)
