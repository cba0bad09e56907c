"""Tables of the chapter on defenses.

`table` is from `trials_table`, `strong` from `strong_trials`, or both from `trials_over_seeds`, and `outcomes` from
`outcomes_of_gains`; `attack_chain` and `outcome_counts` take one seed per network. Cells of readers' tables are text,
with as many decimals as the number of images supports.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hfclib.paper.defense.setup import STRONG_CHAIN, STRONGEST
from hfclib.paper.paper_values import TABLE2_VALUES
from hfclib.paper.presets import TITLES
from hfclib.paper.tables import decimals, mean_sd

ATTACKS = {"clean": "clean", "fgsm": "FGSM", "pgd": "PGD", "unaware": "PGD, non-adaptive"}
_METHODS = {
    "none": "none",
    "rule": "rule, rho = {}",
    "normalised": "rule / (1 + 8 rho), rho = {}",
    "scale": "logits x {} (control)",
    "kernels": "kernels without HFC, r = {}",
    "input": "input without HFC, r = {}",
}
_KINDS = {
    "rule": "rule as printed",
    "normalised": "rule / (1 + 8 rho)",
    "scale": "logits multiplied (control)",
    "kernels": "kernels without HFC",
    "input": "input without HFC, adaptive attack",
    "unaware": "input without HFC, non-adaptive attack",
    **{variant: f"trained: {title}" for variant, title in TITLES.items()},
}
OUTCOMES = ["no gain", "masked", "attack falls short", "robust"]
_ENOUGH = 2500  # images with which a share has a standard error of at most .01


def number_text(value: float) -> str:
    """A strength or an eps as text: "1", "8", ".1", ".03"."""
    text = f"{value:g}"
    return text.removeprefix("0") if text.startswith("0.") else text


def defense_title(defense: str, strength: float) -> str:
    """The fields of a `Defense` in words, such as "rule, rho = 1" or "input without HFC, r = 8"."""
    return _METHODS[defense].format(number_text(1 + 8 * strength if defense == "scale" else strength))


def radius_text(radius: float) -> str:
    """The radius of a filter, "none" where it is infinite."""
    return "none" if np.isinf(radius) else number_text(radius)


def share_text(accuracy: float, images: int) -> str:
    """An accuracy on a number of images: two decimals, three from 2,500 images on."""
    if np.isnan(accuracy):
        return "not run"
    exact = round(accuracy * images) / images  # in 64 bits, so that equal accuracies are rounded alike
    return decimals(exact, 3 if images >= _ENOUGH else 2)


def table2_rows(table: pd.DataFrame, methods: Sequence[str] = ()) -> pd.DataFrame:
    """The cells of Table 2, with the paper's in brackets where they are known to us.

    Args:
        table: trials; of several seeds a cell has the mean and the standard deviation.
        methods: of the defenses that are shown, beside none.
    Returns:
        Index (network, defense); a column for clean images, and one for each of FGSM and PGD at each eps.
    """
    shown = table[table["defense"].isin(["none", *methods]) & table["attack"].isin(["clean", "fgsm", "pgd"])]
    cells, trial = [], ["variant", "defense", "strength", "attack", "eps"]
    for place, ones in shown.sort_values("attack", kind="stable").groupby(trial, sort=False):
        (variant, defense, strength, attack, eps), shares = place, ones["accuracy"]
        text = _over_seeds(shares, ones["images"])
        text += f" (paper {decimals(paper)})" if (paper := TABLE2_VALUES.get(place)) else ""
        column = ATTACKS[attack] + (f", eps {number_text(eps)}" if eps else "")
        cells.append((TITLES[variant], defense_title(defense, strength), column, text))
    texts = pd.DataFrame(cells, columns=["network", "defense", "attack", "text"])
    wide = texts.pivot_table("text", ["network", "defense"], "attack", aggfunc="first", sort=False)
    return wide.rename_axis(columns=None)


def _over_seeds(shares: pd.Series, images: pd.Series) -> str:
    if shares.isna().any():
        return ""
    return mean_sd(shares) if len(shares) > 1 else share_text(shares.item(), images.item())


def attack_chain(strong: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """One row per gain, with the accuracy after each part of the strong attack.

    Returns:
        Index (network, defense, eps); the attack under which there is a gain, the accuracy with and without the
        defense, that after each part of the strong attack and, after the last, without the defense, and the outcome. A
        way of training (defense "none") is compared with the vanilla network.
    """
    left = strong.set_index(["variant", "defense", "strength", "eps", "attack"])[["accuracy", "images"]]
    rows = []
    for gain in outcomes[outcomes["outcome"] != "no gain"].itertuples():
        after = [left.loc[(gain.variant, gain.defense, gain.strength, gain.eps, method)] for method in STRONG_CHAIN]
        images = int(after[0]["images"])
        shares = [gain.accuracy, gain.baseline, *(part["accuracy"] for part in after), gain.baseline_strong]
        names = TITLES[gain.variant], defense_title(gain.defense, gain.strength), number_text(gain.eps)
        rows.append((*names, ATTACKS[gain.attack], *(share_text(share, images) for share in shares), gain.outcome))
    index, after = ["network", "defense", "eps"], [f"after {method}" for method in STRONG_CHAIN]
    columns = [*index, "gain under", "with", "without", *after, f"without, {after[-1]}", "outcome"]
    return pd.DataFrame(rows, columns=columns).set_index(index)


def outcome_counts(outcomes: pd.DataFrame) -> pd.DataFrame:
    """How often each outcome was given: one row per kind of defense, and their sum.

    Left out is where no image is correct, with the defense or without.
    """
    outcomes = outcomes[outcomes[["accuracy", "baseline"]].any(axis=1)]
    kind = outcomes["defense"].mask(outcomes["attack"] == "unaware", "unaware")
    kind = kind.mask(kind == "none", outcomes["variant"])
    counts = pd.crosstab(kind, outcomes["outcome"].astype(str))
    order = [one for one in _KINDS if one in counts.index]
    counts = counts.reindex(index=order, columns=OUTCOMES, fill_value=0).rename(_KINDS)
    counts.loc["all"] = counts.sum()
    counts.insert(0, "compared", counts.sum(axis=1))
    counts.insert(2, "gain", counts[OUTCOMES[1:]].sum(axis=1))
    return counts.rename_axis(index="defense", columns=None)


def claimed_and_left(table: pd.DataFrame, strong: pd.DataFrame, outcomes: pd.DataFrame, eps: float) -> pd.DataFrame:
    """The accuracy with each defense at one eps, under the paper's attacks and under the strong attack.

    Returns:
        One row per (variant, seed, defense, strength): images; clean; highest, that under the paper's weakest attack;
        strong, NaN where the strong attack was not run; outcome, which is "no gain" for the vanilla network, too.
    """
    place = ["variant", "seed", "defense", "strength"]
    clean = table[table["attack"] == "clean"].set_index(place)[["images", "accuracy"]]
    highest = table[table["eps"] == eps].groupby(place)["accuracy"].max().rename("highest")
    after = strong[(strong["eps"] == eps) & (strong["attack"] == STRONGEST)].set_index(place)["accuracy"]
    gained = outcomes[(outcomes["eps"] == eps) & (outcomes["outcome"] != "no gain")].drop_duplicates(place)
    rows = clean.rename(columns={"accuracy": "clean"}).join(highest).join(after.rename("strong"))
    rows = rows.join(gained.set_index(place)["outcome"])
    return rows.astype({"strong": float}).fillna({"outcome": "no gain"}).reset_index()


def five_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The defenses of the vanilla network that the chapter's answer is about, and adversarial training, as text.

    Args:
        table: from `claimed_and_left`. Of each defense the largest strength is shown, of the filtered input r = 8.
    Returns:
        Index (network, defense); the accuracy on clean images, under the paper's weakest attack, which for a filtered
        input does not know the filter, and under the strong attack, where it was run; the outcome. Of several seeds a
        cell has the mean and the standard deviation, and the outcomes with their numbers of seeds where they differ.
    """
    largest = table["strength"] == table.groupby(["variant", "defense"])["strength"].transform("max")
    wanted = largest & table["defense"].isin(["none", "rule", "scale"])
    wanted |= (table["defense"] == "input") & (table["strength"] == 8)
    wanted &= (table["variant"] == "vanilla") | (table["variant"] == "adversarial") & (table["defense"] == "none")
    rows = []
    for (variant, defense, strength), ones in table[wanted].groupby(["variant", "defense", "strength"], sort=False):
        shares = [_over_seeds(ones[name], ones["images"]) for name in ("clean", "highest", "strong")]
        counts = ones["outcome"].value_counts()
        outcome = counts.index[0] if len(counts) == 1 else ", ".join(f"{name}: {n}" for name, n in counts.items())
        rows.append((TITLES[variant], defense_title(defense, strength), *shares, outcome))
    index = ["network", "defense"]
    columns = [*index, "clean", "under the paper's weakest attack", "under the strong attack", "outcome"]
    return pd.DataFrame(rows, columns=columns).set_index(index)


def filter_by_radius(table: pd.DataFrame, strong: pd.DataFrame) -> pd.DataFrame:
    """The filtered input under both kinds of attack.

    Returns:
        One row per (variant, seed, strength, eps): strength is the radius, infinite without a filter; non_adaptive and
        adaptive, the accuracies under PGD, the same without a filter; strong, that under the strong attack, NaN where
        it was not run; images; clean.
    """
    every = pd.concat([table, strong])
    every = every[every["defense"].isin(["input", "none"])]
    every = every.assign(strength=every["strength"].where(every["defense"] == "input", np.inf))
    names = {"unaware": "non_adaptive", "pgd": "adaptive", STRONGEST: "strong"}
    attacked = every[every["attack"].isin(names)]
    wide = attacked.pivot(index=["variant", "seed", "strength", "eps"], columns="attack", values="accuracy")
    clean = every[every["attack"] == "clean"].set_index(["variant", "seed", "strength"])[["images", "accuracy"]]
    rows = wide.reindex(columns=list(names)).rename(columns=names).join(clean.rename(columns={"accuracy": "clean"}))
    rows["non_adaptive"] = rows["non_adaptive"].fillna(rows["adaptive"])
    return rows.loc[[variant for variant in TITLES if variant in rows.index]].reset_index()
