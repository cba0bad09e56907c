"""The claims about defenses, tested on stored trials, and the Chapter.

Each seed's networks are compared on the same test images in pairs. The interval covers both the draw of the images and
the chance of training (`over_seeds_and_images`).
"""

from itertools import product

import numpy as np
import pandas as pd
from pydantic import Field

from hfclib.data.cifar import TEST_IMAGES
from hfclib.paper.chapter import Chapter
from hfclib.paper.defense.judgement import claimed_gains, gains
from hfclib.paper.defense.setup import (
    CLEAN,
    NONE,
    RHO,
    STRONG_CHAIN,
    STRONGEST,
    Attack,
    Defense,
    all_defenses,
    autoattack,
    defense_recipes,
    long_attacks,
    table_attacks,
)
from hfclib.paper.defense.tables import number_text, table2_rows
from hfclib.paper.defense.trials import Trial, trial_rows, trials_of, trials_table
from hfclib.paper.measurements import preset_of
from hfclib.paper.parameters import OneSeed, number, several, whole
from hfclib.paper.presets import Preset
from hfclib.paper.tables import decimals, text_table, with_interval
from hfclib.runs.collect import Runs

SMALL, MIDDLE, LARGE = 0.03, 0.06, 0.09  # the eps of the paper's Table 2
TINY = 2 / 255  # ours: at .03 the strong attack leaves nothing of a network that was not trained adversarially
STEPS = 20


# What claims call a defense and an attack; together they name a cell's trial, such as "rule_fgsm_03".
_DEFENSES = {
    "": NONE,
    "rule_": Defense("rule", 1.0),
    "kernels_": Defense("kernels", 8.0),
    "input_": Defense("input", 8.0),
}
_METHODS = {"fgsm": "fgsm", "pgd": "pgd", "nonadaptive": "unaware", "strong": STRONGEST}
_EPS = {"tiny": TINY, "03": SMALL, "06": MIDDLE, "09": LARGE}
_TRIALS: dict[str, Trial] = {f"{name}clean": (defense, CLEAN) for name, defense in _DEFENSES.items()} | {
    f"{name}{method}_{size}": (defense, Attack(_METHODS[method], eps, 1 if method == "fgsm" else STEPS))
    for (name, defense), method, (size, eps) in product(_DEFENSES.items(), _METHODS, _EPS.items())
}
_MEASURES = {trial: name for name, trial in _TRIALS.items()}


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of the claims: which images are correct, one tuple of bool per network and trial of `_TRIALS`."""
    places = table[["defense", "strength", "attack", "eps", "steps"]].itertuples(index=False)
    measures = [_MEASURES.get((Defense(*place[:2]), Attack(*place[2:]))) for place in places]
    cells = table.assign(measure=measures, measured="").rename(columns={"correct": "value"})
    return cells.dropna(subset="measure")


def needs_strong_attack(gained: pd.DataFrame) -> pd.DataFrame:
    """Where the notebook runs the strong attack: at every gain, and wherever a claim needs it, with a gain or without.

    Args:
        gained: from `gains`.
    Returns:
        Rows as from `claimed_gains`.
    """
    trials = [(variant, *_TRIALS[measure]) for claim in DEFENSE.claims for variant, measure in claim.cells]
    fixed = [(variant, *defense, attack.eps) for variant, defense, attack in trials if attack.method == STRONGEST]
    fixed = pd.MultiIndex.from_frame(gained[["variant", "defense", "strength", "eps"]]).isin(fixed)
    return claimed_gains(gained.assign(low=gained["low"].where(~fixed, np.inf)))


def claim_trials(preset: str) -> dict[str, list[Trial]]:
    """By variant, the trials on which the claims about a preset are judged."""
    trials: dict[str, dict[Trial, None]] = {}
    for claim in DEFENSE.claims:
        if claim.preset == preset:
            for variant, measure in claim.cells:
                trials.setdefault(variant, {})[_TRIALS[measure]] = None
    return {variant: list(ones) for variant, ones in trials.items()}


def _vanilla(preset: Preset, runs: Runs) -> Runs:
    return Runs({"vanilla": DEFENSE.judged(preset, runs).get("vanilla", [])})


def table2_narrow(runs: Runs) -> pd.DataFrame:
    """`table2_rows` of the vanilla networks by the schedule as stated at rho = 1, from stored trials alone.

    Args:
        runs: of the notebook; which networks are shown, see `Chapter.judged`.
    """
    options = {"images": DefenseParameters().n_images, "compute": False}
    table = trials_table(_vanilla("narrow", runs), [1.0], (SMALL, MIDDLE, LARGE), STEPS, **options)
    return table2_rows(table, ["rule", "normalised", "scale"])


def rule_by_network(runs: Runs) -> pd.DataFrame:
    """What the paper's rule at rho = 1 changes under FGSM, in each vanilla network whose attacks are stored.

    Args:
        runs: of the notebook; which networks are shown, see `Chapter.judged`.
    Returns:
        One row per (schedule, seed), as text: at two eps the accuracy without and with the rule, and the gain with its
        95 % interval, over the test images.
    """
    defenses, images = (NONE, Defense("rule", 1.0)), DefenseParameters().n_images
    wanted = [(defense, Attack("fgsm", eps, 1)) for defense in defenses for eps in (SMALL, MIDDLE)]
    texts = {}
    for preset, schedule in (("laptop", "ours"), ("narrow", "as stated")):
        rows = gains(trial_rows(_vanilla(preset, runs), lambda variant, seed: wanted, images=images, compute=False))
        for gain in rows.itertuples():
            cells = decimals(gain.baseline), decimals(gain.accuracy), with_interval(gain.gain, gain.low, gain.high)
            names = (f"{name}, eps {number_text(gain.eps)}" for name in ("without", "with the rule", "gain"))
            texts.setdefault((schedule, gain.seed), {}).update(zip(names, cells, strict=True))
    return text_table(texts, ["schedule", "seed"])


_LEFT_BY = {  # columns of `beside_autoattack`, each an attack on the network as it is, of eps SMALL
    "clean": CLEAN,
    "PGD": Attack("pgd", SMALL, STEPS),
    "strong attack": Attack(STRONGEST, SMALL, STEPS),
    **dict(zip(("APGD-CE", "APGD-T", "FAB-T", "Square"), autoattack(SMALL), strict=True)),
}


def beside_autoattack(runs: Runs) -> pd.DataFrame:
    """What attacks leave of the adversarially trained networks at eps SMALL, from stored trials alone.

    Args:
        runs: of the notebook; which networks are shown, see `Chapter.judged`.
    Returns:
        One row per seed, columns: the share correct on clean images, under PGD, after the whole strong attack, and
        after each component of AutoAttack, which is run on what those before it left; text, "not stored" where a trial
        is missing.
    """
    images = DefenseParameters().n_images
    networks = Runs({"adversarial": DEFENSE.judged("laptop", runs).get("adversarial", [])})
    wanted = [(NONE, attack) for attack in _LEFT_BY.values()]
    table = trial_rows(networks, lambda variant, seed: wanted, images=images, compute=False)
    table["left by"] = table["attack"].map({attack.method: name for name, attack in _LEFT_BY.items()})
    shares = table.pivot_table("accuracy", "seed", "left by")
    return shares.reindex(columns=list(_LEFT_BY)).map(decimals, na_action="ignore").fillna("not stored")


class DefenseParameters(OneSeed):
    """The parameters of `notebooks/defense.ipynb`."""

    rho: several(number(0, 10, "a weight of the neighbours"), 6) = Field(
        RHO, title="weights of the eight neighbours in the rule"
    )
    eps: several(number(0, 0.5, "a distance in pixels of [0, 1]", above=True), 4) = Field(
        (SMALL, MIDDLE, LARGE), title="sizes of the attacks"
    )
    steps: whole(1, 1000, "a number of steps of PGD") = Field(
        STEPS, title="steps of PGD; the longer attacks take as many more in proportion"
    )
    n_images: whole(1, TEST_IMAGES, "a number of test images") = Field(
        500, title="how many test images are attacked, the first ones"
    )


_OVER_SEEDS = {"vanilla": ("none", "rule", "scale", "input"), "adversarial": ("none",)}


def trials_over_seeds(runs: Runs, settings: DefenseParameters) -> tuple[Runs, pd.DataFrame, pd.DataFrame]:
    """The networks and trials of the chapter's first figure and table, of every seed that has them.

    Args:
        runs: of the notebook. Missing trials of its own seed are computed; another published seed is left out unless
            all of its trials are stored.
        settings: of the notebook; the rule and the logit scale have the largest rho, and attacks the first eps.
    Returns:
        The networks, their trials under the paper's attacks, and those under the strong attack, which here is run with
        a gain or without: vanilla networks without a defense, with the rule, the scaled logits and the filtered input,
        and adversarially trained ones without a defense.
    """
    eps, steps, images = settings.eps[0], settings.steps, settings.n_images

    def wanted(variant: str, seed: int = 0) -> list[Trial]:
        defenses = [one for one in all_defenses([max(settings.rho)]) if one.method in _OVER_SEEDS[variant]]
        ends = long_attacks(eps, steps)
        return [(one, attack) for one in defenses for attack in [*table_attacks(one, [eps], steps), *ends]]

    options, published, shown = {"images": images, "compute": False}, DEFENSE.judged(settings.preset, runs), {}
    for variant in _OVER_SEEDS:
        own = runs.get(variant, [])
        others = [run for run in published.get(variant, []) if run.seed not in {one.seed for one in own}]
        whole = [run for run in others if len(trials_of(run, wanted(variant), **options)) == len(wanted(variant))]
        shown[variant] = [*own, *whole]
    every = trial_rows(shown, wanted, images=images)
    strong = every["attack"].isin(STRONG_CHAIN)
    return Runs(shown), every[~strong], every[strong]


def _evidence(runs: Runs) -> pd.DataFrame:
    """The stored trials of the claims; no attack is run."""
    wanted = claim_trials("narrow" if preset_of(runs.all()[0].recipe) == "narrow" else "laptop")
    images = DefenseParameters().n_images
    return trial_rows(runs, lambda variant, seed: wanted.get(variant, []), images=images, compute=False)


DEFENSE = Chapter(
    name="defense",
    question="Does smoothing defend against attacks?",
    topic="defenses",
    paper="Table 2",
    blog="defenses",
    builds_on=("fig3",),
    figures={"defense-smallest-eps": "afterwards", "defense-filter": "afterwards", "defense-claimed": "afterwards"},
    recipes=defense_recipes,
    parameters=DefenseParameters,
    required=("vanilla",),
    needs_weights=("vanilla",),
    evidence=_evidence,
    cells=_cells,
    measures="|".join(_TRIALS),
)
