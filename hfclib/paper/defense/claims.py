"""The claims about defenses, judged on the trials of `trials`; those at a fixed strength were fixed before any number.

Several seeds are compared by Student's t; of a single one the same images are compared in pairs (`paired`).
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from hfclib.data.cifar import TEST_IMAGES
from hfclib.paper.chapter import Chapter
from hfclib.paper.defense.judgement import STRONGEST, claimed_gains, gains
from hfclib.paper.defense.setup import RHO, defense_recipes
from hfclib.paper.defense.tables import number_text
from hfclib.paper.defense.trials import strong_trials, trials_table
from hfclib.paper.intervals import Estimate, MissingRunError, interval, paired
from hfclib.paper.parameters import OneSeed, number, several, whole
from hfclib.paper.published import table2_value
from hfclib.paper.tables import decimals
from hfclib.paper.verdicts import MARGIN, Claim
from hfclib.runs.collect import Runs

SMALL, LARGE = 0.03, 0.09  # the smallest and the largest eps of the paper's Table 2


class Side(NamedTuple):
    """One side of a comparison: a network of `defense_recipes`, and a defense as in `Defense`."""

    variant: str
    defense: str = "none"
    strength: float = 0.0


_NATURAL, _ADVERSARIAL, _PENALISED = Side("vanilla"), Side("adversarial"), Side("penalised")
_RULE, _FILTER = Side("vanilla", "rule", 1.0), Side("vanilla", "input", 8.0)
# What has to withstand the strongest attack at SMALL whether or not a gain is claimed.
_FIXED = (_RULE, Side("vanilla", "kernels", 8.0), _PENALISED, _FILTER)


def needs_strong_attack(claimed: pd.DataFrame) -> pd.DataFrame:
    """What the attacks of the judgement are run on: every claimed gain, and what claims here need besides.

    Args:
        claimed: from `gains`.
    Returns:
        Rows as from `claimed_gains`.
    """
    places = pd.MultiIndex.from_frame(claimed[["variant", "defense", "strength", "eps"]])
    fixed = places.isin([(*side, SMALL) for side in _FIXED])
    return claimed_gains(claimed.assign(low=claimed["low"].where(~fixed, np.inf)))


def defense_contrast(table: pd.DataFrame, first: Side, second: Side, attack: str, eps: float) -> Estimate:
    """The accuracy of one side less that of another.

    Args:
        table: trials, from `trials_table` and `strong_trials`.
        first, second: what is compared.
        attack: as in `Attack`; where there is no defense, not to know of it ("unaware") is "pgd".
        eps: 0 for clean images.
    Returns:
        Over the seeds that both have; of a single one, over the images in pairs.
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
    """By seed, which images are right."""
    if (side.defense, attack) == ("none", "unaware"):
        attack = "pgd"
    own = (table["variant"] == side.variant) & (table["defense"] == side.defense) & (table["strength"] == side.strength)
    rows = table[own & (table["attack"] == attack) & (table["eps"] == eps)]
    return dict(zip(rows["seed"], rows["right"], strict=True))


def _claim(name: str, text: str, first: Side, second: Side, attack: str, eps: float, **changes: object) -> Claim:
    words = {"clean": "clean images", "unaware": "PGD, unaware", STRONGEST: "strongest attack"}
    version = words.get(attack, attack.upper()) + (f", eps {number_text(eps)}" if eps else "")
    cells = [table2_value(*side, attack, eps) for side in (first, second)]
    paper = decimals(cells[0].value - cells[1].value) if all(cells) else None
    usual = {"section": "section 6.2, Table 2", "relation": "exceeds"}
    return Claim(
        id=f"defense-{name}",
        figure="defense",
        text=text,
        version=version,
        paper=paper,
        statistic=partial(defense_contrast, first=first, second=second, attack=attack, eps=eps),
        **usual | changes,
    )


def _table2() -> Iterator[Claim]:
    smoothed = Side("adversarial", "rule", 1.0)
    small = {"relation": "at most", "bound": MARGIN}
    yield _claim(
        "rule-clean",
        "Smoothing its kernels by the rule at rho = 1 makes the natural network less accurate",
        _NATURAL,
        _RULE,
        "clean",
        0.0,
    )
    yield _claim(
        "rule-fgsm",
        "Smoothing its kernels by the rule at rho = 1 makes the natural network withstand more",
        _RULE,
        _NATURAL,
        "fgsm",
        SMALL,
    )
    for attack in ("fgsm", "pgd"):
        yield _claim(
            f"adversarial-{attack}",
            "An adversarially trained network withstands more than the natural one",
            _ADVERSARIAL,
            _NATURAL,
            attack,
            SMALL,
        )
        yield _claim(
            f"rule-over-adversarial-{attack}",
            "At a large eps the natural network smoothed at rho = 1 withstands more than the adversarially trained one",
            _RULE,
            _ADVERSARIAL,
            attack,
            LARGE,
        )
        yield _claim(
            f"adversarial-rule-{attack}-large",
            "At a large eps smoothing at rho = 1 makes the adversarially trained network withstand more",
            smoothed,
            _ADVERSARIAL,
            attack,
            LARGE,
        )
        yield _claim(
            f"adversarial-rule-{attack}-small",
            "At a small eps smoothing at rho = 1 does not help the adversarially trained network: by at most .05",
            smoothed,
            _ADVERSARIAL,
            attack,
            SMALL,
            **small,
        )


def _blog() -> Iterator[Claim]:
    blog = {"section": "blog"}
    marginal = blog | {"relation": "at most", "bound": MARGIN}
    ways = {
        "rule": "Smoothing kernels by the rule at rho = 1",
        "kernels": "Taking the HFC at r = 8 out of kernels",
        "penalised": "A penalty on rough kernels in training",
    }
    for (name, way), side in zip(ways.items(), _FIXED, strict=False):
        yield _claim(
            f"{name}-marginal",
            f"{way} improves robustness marginally: by at most .05",
            side,
            _NATURAL,
            STRONGEST,
            SMALL,
            **marginal,
        )
    yield _claim(
        "input-unaware",
        "Taking the HFC at r = 8 out of the input defends against an attacker who doesn't know of it",
        _FILTER,
        _NATURAL,
        "unaware",
        SMALL,
        **blog,
    )
    yield _claim(
        "input-aware",
        "Against an attacker who knows of it, taking the HFC at r = 8 out of the input adds at most .05",
        _FILTER,
        _NATURAL,
        STRONGEST,
        SMALL,
        **marginal,
    )


class DefenseParameters(OneSeed):
    """The parameters of `notebooks/defense.ipynb`."""

    rho: several(number(0, 10, "a weight of the neighbours"), 6) = RHO
    eps: several(number(0, 0.5, "a distance in pixels of [0, 1]"), 4, above=0) = (0.03, 0.06, 0.09)
    steps: whole(1, 1000, "a number of steps of PGD") = 20
    n_images: whole(1, TEST_IMAGES, "a number of test images") = 500


def _evidence(runs: Runs) -> pd.DataFrame:
    """The stored trials at the notebook's defaults; attacks take minutes, and none is run."""
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
    claims=(*_table2(), *_blog()),
    evidence=_evidence,
)
