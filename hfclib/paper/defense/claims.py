"""The claims about defenses, tested on stored trials, and the Chapter.

Each seed's networks are compared on the same test images in pairs. The interval covers both the draw of the images and
the chance of training (`over_seeds_and_images`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from hfclib.data.cifar import TEST_IMAGES
from hfclib.paper.chapter import Chapter
from hfclib.paper.defense.judgement import claimed_gains, gains
from hfclib.paper.defense.setup import NONE, RHO, STRONGEST, Attack, Defense, defense_recipes
from hfclib.paper.defense.tables import number_text, table2_rows
from hfclib.paper.defense.trials import Trial, trial_rows, trials_table
from hfclib.paper.intervals import Estimate, MissingRunError, over_seeds_and_images
from hfclib.paper.parameters import OneSeed, number, several, whole
from hfclib.paper.published import TABLE2_VALUES
from hfclib.paper.tables import decimals, with_interval
from hfclib.paper.verdicts import MARGIN, Claim
from hfclib.runs.collect import Runs, stored_runs

SMALL, MIDDLE, LARGE = 0.03, 0.06, 0.09  # the eps of the paper's Table 2
TINY = 2 / 255  # ours: at .03 the strong attack leaves nothing of a network that was not trained adversarially
STEPS = 20


class Side(NamedTuple):
    """One side of a comparison: a network of `defense_recipes`, its `Defense`, and the attack."""

    variant: str
    defense: Defense
    attack: Attack


def _side(variant: str, defense: tuple[str, float], method: str, eps: float) -> Side:
    steps = {"clean": 0, "fgsm": 1}.get(method, STEPS)
    return Side(variant, Defense(*defense), Attack(method, eps, steps))


def needs_strong_attack(found: pd.DataFrame) -> pd.DataFrame:
    """Where the notebook runs the strong attack: at every gain, and wherever a claim needs it, with a gain or without.

    Args:
        found: from `gains`.
    Returns:
        Rows as from `claimed_gains`.
    """
    terms = (term for claim in DEFENSE.claims for terms in claim.statistic.terms for term in terms)
    fixed = [(one.variant, *one.defense, one.attack.eps) for _, one in terms if one.attack.method == STRONGEST]
    fixed = pd.MultiIndex.from_frame(found[["variant", "defense", "strength", "eps"]]).isin(fixed)
    return claimed_gains(found.assign(low=found["low"].where(~fixed, np.inf)))


@dataclass(frozen=True)
class Contrast:
    """A signed sum of accuracies on the same images.

    Attributes:
        terms: one signed sum, or several of which the one with the largest mean is taken.
    """

    terms: Sequence[Sequence[tuple[int, Side]]]

    def __call__(self, table: pd.DataFrame) -> Estimate:
        """The contrast over the seeds that have all of its trials.

        Args:
            table: from `trial_rows`.
        Raises:
            MissingRunError: no seed has them all.
        """
        correct = table.pivot(
            index="seed", columns=["variant", "defense", "strength", "attack", "eps"], values="correct"
        )
        found = []
        for terms in self.terms:
            sides = [(side.variant, *side.defense, side.attack.method, side.attack.eps) for _, side in terms]
            rows = correct.reindex(columns=sides).dropna().to_numpy()
            if not len(rows):
                raise MissingRunError("no seed has all the trials of the claim")
            signs = [sign for sign, _ in terms]
            found.append(over_seeds_and_images([np.dot(signs, np.array(list(row), float)) for row in rows]))
        return max(found, key=lambda one: one.mean)


_NONE, _RULE, _KERNELS, _FILTER = ("none", 0.0), ("rule", 1.0), ("kernels", 8.0), ("input", 8.0)
_WORDS = {"clean": "clean images", "fgsm": "FGSM", "pgd": "PGD", STRONGEST: "strong attack"}


def _claims() -> Iterator[Claim]:
    claim = partial(Claim, figure="defense", section="section 6.2, Table 2", relation="exceeds")

    def versus(
        name: str, text: str, first: tuple[str, tuple], second: tuple[str, tuple], method: str, eps: float, **values
    ) -> Claim:
        """That the first network with its defense is more accurate than the second under an attack."""
        sides = [_side(*one, method, eps) for one in (first, second)]
        cells = [TABLE2_VALUES.get((one.variant, *one.defense, method, eps)) for one in sides]
        paper = round(cells[0] - cells[1], 3) if all(cells) else None
        version = _WORDS[method] + (f", eps {number_text(eps)}" if eps else "")
        values = {"version": version, "paper": paper} | values
        return claim(f"defense-{name}", text=text, statistic=Contrast([[(1, sides[0]), (-1, sides[1])]]), **values)

    natural, smoothed = ("vanilla", _NONE), ("vanilla", _RULE)
    trained, both = ("adversarial", _NONE), ("adversarial", _RULE)
    text = "Smoothing its kernels by the rule at rho = 1 makes the natural network "
    yield versus("rule-clean", text + "less accurate", natural, smoothed, "clean", 0.0)
    yield versus("rule-fgsm", text + "more robust", smoothed, natural, "fgsm", SMALL)
    yield versus("rule-fgsm-middle", text + "more robust", smoothed, natural, "fgsm", MIDDLE)
    narrow = {"version": "FGSM, eps .03; the paper's schedule", "preset": "narrow"}
    yield versus("rule-fgsm-narrow", text + "more robust", smoothed, natural, "fgsm", SMALL, **narrow)
    text = "An adversarially trained network is more robust than the natural one"
    yield versus("adversarial-fgsm", text, trained, natural, "fgsm", SMALL)
    yield versus("adversarial-pgd", text, trained, natural, "pgd", SMALL)
    text = "At a large eps the natural network smoothed at rho = 1 is more robust than the adversarially trained one"
    yield versus("rule-over-adversarial", text, smoothed, trained, "fgsm", LARGE)
    text = "At a large eps smoothing at rho = 1 makes the adversarially trained network more robust"
    yield versus("adversarial-rule-large", text, both, trained, "fgsm", LARGE)
    text = "At a small eps smoothing at rho = 1 does not help the adversarially trained network: by at most .05"
    bound = {"relation": "at most", "bound": MARGIN}
    yield versus("adversarial-rule-small", text, both, trained, "fgsm", SMALL, **bound)
    sides = {one: _side("vanilla", one, STRONGEST, TINY) for one in (_NONE, _RULE, _KERNELS)}
    yield claim(
        id="defense-marginal",
        section="blog",
        text="Smoothing trained kernels improves robustness marginally: by at most .05",
        version="strong attack, eps 2/255; rule or filter, whichever gains more on average over seeds",
        statistic=Contrast([[(1, sides[one]), (-1, sides[_NONE])] for one in (_RULE, _KERNELS)]),
        **bound,
    )
    text = "A penalty on rough kernels in training improves robustness marginally: by at most .05"
    tiny = {"section": "blog", "version": "strong attack, eps 2/255", **bound}
    yield versus("penalised-marginal", text, ("penalised", _NONE), natural, STRONGEST, TINY, **tiny)
    gain = [(1, _side("vanilla", _FILTER, "unaware", SMALL)), (-1, _side("vanilla", _NONE, "pgd", SMALL))]
    left = [(-1, _side("vanilla", _FILTER, STRONGEST, SMALL)), (1, _side("vanilla", _NONE, STRONGEST, SMALL))]
    yield claim(
        id="defense-input-masked",
        section="blog",
        text="Filtering the HFC out of the input gains less under an adaptive attack than under a non-adaptive one",
        version="eps .03, r = 8: gain under non-adaptive PGD less gain under the strong attack",
        statistic=Contrast([gain + left]),
    )


def claim_trials(preset: str) -> dict[str, list[Trial]]:
    """By variant, the trials on which the claims about a preset are judged."""
    found: dict[str, dict[Trial, None]] = {}
    for claim in DEFENSE.claims:
        if claim.preset == preset:
            for _, side in (term for terms in claim.statistic.terms for term in terms):
                found.setdefault(side.variant, {})[side.defense, side.attack] = None
    return {variant: list(trials) for variant, trials in found.items()}


def table2_narrow() -> pd.DataFrame:
    """`table2_rows` of the vanilla networks of the paper's schedule at rho = 1, from stored trials alone."""
    runs = stored_runs({"vanilla": defense_recipes("narrow")["vanilla"]})
    options = {"images": DefenseParameters().n_images, "compute": False}
    table = trials_table(runs, [1.0], (SMALL, MIDDLE, LARGE), STEPS, **options)
    return table2_rows(table, ["rule", "normalised", "scale"])


def rule_by_network() -> pd.DataFrame:
    """What the paper's rule at rho = 1 changes under FGSM, in each vanilla network whose attacks are stored.

    Returns:
        One row per (schedule, seed), as text: at two eps the accuracy without and with the rule, and the gain with its
        95 % interval, over the test images.
    """
    defenses, images = (NONE, Defense("rule", 1.0)), DefenseParameters().n_images
    wanted = [(one, Attack("fgsm", eps, 1)) for one in defenses for eps in (SMALL, MIDDLE)]
    found = {}
    for preset, schedule in (("laptop", "ours"), ("narrow", "the paper's")):
        runs = stored_runs({"vanilla": defense_recipes(preset)["vanilla"]})
        rows = gains(trial_rows(runs, lambda variant, seed: wanted, images=images, compute=False))
        for one in rows.itertuples():
            cells = decimals(one.baseline), decimals(one.accuracy), with_interval(one.gain, one.low, one.high)
            names = (f"{name}, eps {number_text(one.eps)}" for name in ("without", "with the rule", "gain"))
            found.setdefault((schedule, one.seed), {}).update(zip(names, cells, strict=True))
    return pd.DataFrame.from_dict(found, "index").rename_axis(["schedule", "seed"])


class DefenseParameters(OneSeed):
    """The parameters of `notebooks/defense.ipynb`."""

    rho: several(number(0, 10, "a weight of the neighbours"), 6) = RHO
    eps: several(number(0, 0.5, "a distance in pixels of [0, 1]", above=True), 4) = (SMALL, MIDDLE, LARGE)
    steps: whole(1, 1000, "a number of steps of PGD") = STEPS
    n_images: whole(1, TEST_IMAGES, "a number of test images") = 500


def _evidence(runs: Runs) -> pd.DataFrame:
    """The stored trials of the claims; no attack is run."""
    wanted = claim_trials("narrow" if runs.all()[0].recipe.name.startswith("narrow-") else "laptop")
    images = DefenseParameters().n_images
    return trial_rows(runs, lambda variant, seed: wanted.get(variant, []), images=images, compute=False)


DEFENSE = Chapter(
    name="defense",
    recipes=defense_recipes,
    parameters=DefenseParameters,
    optional=("penalised", "adversarial", "adversarial_batchnorm"),
    asked=("vanilla",),
    claims=tuple(_claims()),
    evidence=_evidence,
)
