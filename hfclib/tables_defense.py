"""Tables of the chapter on defenses: every cell, what was claimed and what is left of it, and the filtered input.

All take the trials of one seed a network: `table` is from `trials.table`, `judged` from `trials.judged`, and `verdicts`
from `judgement.judge`. Cells are text, with as many decimals as the number of images supports.
"""

from collections.abc import Sequence

import pandas as pd

from hfclib import published
from hfclib.defenses import Defense, long_attacks
from hfclib.judgement import STRONGEST
from hfclib.tables import decimals

NETWORKS = {"vanilla": "Vanilla", "penalised": "Penalised", "adversarial": "Adversarial",
            "adversarial_batchnorm": "Adversarial, BatchNorm"}  # fmt: skip
ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "unaware": "PGD, unaware"}
_METHODS = {"none": "none", "rule": "rule, rho = {}", "normalised": "rule / (1 + 8 rho), rho = {}",
            "scale": "logits x {} (control)", "kernels": "kernels without HFC, r = {}",
            "input": "input without HFC, r = {}"}  # fmt: skip
_KINDS = {"rule": "rule as printed", "normalised": "rule / (1 + 8 rho)", "scale": "logits multiplied (control)",
          "kernels": "kernels without HFC", "input": "input without HFC, attacker aware"}  # fmt: skip
_CHAIN = [attack.method for attack in long_attacks(0.0, 1)]
_ENOUGH = 2500  # images, of which a share has a standard error of at most .01


def number(value: float) -> str:
    """A strength or an eps as it is written here: "1", "8", ".1", ".03"."""
    text = f"{value:g}"
    return text.removeprefix("0") if text.startswith("0.") else text


def title(defense: Defense) -> str:
    """A defense in words, such as "rule, rho = 1" or "input without HFC, r = 8"."""
    strength = 1 + 8 * defense.strength if defense.method == "scale" else defense.strength
    return _METHODS[defense.method].format(number(strength))


def _name(row: object) -> tuple[str, str]:
    return NETWORKS[row.panel], title(Defense(row.defense, row.strength))


def share(accuracy: float, images: int) -> str:
    """An accuracy on a number of images: two decimals, three from 2,500 images on."""
    exact = round(accuracy * images) / images  # in 64 bits, so that equal accuracies are rounded alike
    return decimals(exact, 3 if images >= _ENOUGH else 2)


def cells(table: pd.DataFrame, methods: Sequence[str] = ()) -> pd.DataFrame:
    """The cells of Table 2, the paper's beside ours where it was published.

    Args:
        table: trials.
        methods: of the defenses that are shown, beside none.
    Returns:
        Index (network, defense); a column for clean images, and one for each of FGSM and PGD at each eps.
    """
    shown = table["defense"].isin(["none", *methods]) & (table["attack"] != "unaware")
    columns, found = {"clean": "clean"}, {}
    attacked = table[table["attack"].isin(["fgsm", "pgd"])].drop_duplicates(["attack", "eps"])
    for row in attacked.sort_values("attack", kind="stable").itertuples():
        columns[row.attack, row.eps] = f"{ATTACKS[row.attack]}, eps {number(row.eps)}"
    for row in table[shown].itertuples():
        paper = published.table2(row.panel, row.defense, row.strength, row.attack, row.eps)
        text = share(row.accuracy, row.images) + (f" (paper {decimals(paper.value)})" if paper else "")
        column = columns["clean" if row.attack == "clean" else (row.attack, row.eps)]
        found.setdefault(_name(row), {})[column] = text
    frame = pd.DataFrame.from_dict(found, orient="index")
    return frame[list(columns.values())].rename_axis(["network", "defense"])


def chain(judged: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """A row a claimed gain: what was claimed, and what is left after each attack of the judgement.

    Returns:
        Index (network, defense, eps); the attack under which a gain is claimed, the accuracy with the defense and
        without, what is left after each of the judgement's attacks with the defense and, after the last, without, and
        the verdict. A way of training (defense "none") is compared with the vanilla network, which is "without".
    """
    key = ["panel", "defense", "strength", "eps", "attack"]
    left = judged.set_index(key)["accuracy"]
    rows = []
    for one in verdicts[verdicts["verdict"] != "no gain"].itertuples():
        network, defense = _name(one)
        images = int(judged["images"].iloc[0])
        place = (one.panel, one.defense, one.strength, one.eps)
        rows.append({"network": network, "defense": defense, "eps": number(one.eps), "under": ATTACKS[one.claim],
                     "claimed": share(one.claimed, images), "without": share(one.plain, images)}
                    | {f"after {method}": share(left[*place, method], images) for method in _CHAIN}
                    | {"without, after all": share(one.plain_strongest, images), "verdict": one.verdict})  # fmt: skip
    columns = ["network", "defense", "eps", "under", "claimed", "without", *(f"after {method}" for method in _CHAIN),
               "without, after all", "verdict"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).set_index(["network", "defense", "eps"])


def _kind(row: object) -> str:
    if row.defense == "none":
        return f"trained: {NETWORKS[row.panel]}"
    return "input without HFC, attacker unaware" if row.claim == "unaware" else _KINDS[row.defense]


def counts(verdicts: pd.DataFrame) -> pd.DataFrame:
    """How often each verdict was given: a row a kind of defense, over networks, strengths, attacks and eps."""
    kinds = [_kind(row) for row in verdicts.itertuples()]
    order = [*_KINDS.values(), "input without HFC, attacker unaware", *(f"trained: {one}" for one in NETWORKS.values())]
    found = pd.crosstab(pd.Series(kinds, name="defense", dtype=str), pd.Series(verdicts["verdict"].tolist(), dtype=str))
    names = ["no gain", "masked", "robust"]
    found = found.reindex(index=[kind for kind in order if kind in found.index], columns=names, fill_value=0)
    return found.assign(compared=found.sum(axis=1))[["compared", *names]].rename_axis(columns=None)


def claimed_and_left(table: pd.DataFrame, judged: pd.DataFrame, verdicts: pd.DataFrame, eps: float) -> pd.DataFrame:
    """What each defense claims at one eps, and what is left of it.

    Returns:
        A row a (panel, defense, strength): images; clean; claimed, the highest accuracy under one of the paper's
        attacks; left, the accuracy after the strongest attack, NaN where that was not run; verdict, "robust", "masked"
        or "no gain", which the vanilla network without a defense has as well.
    """
    place = ["panel", "defense", "strength"]
    at = table[table["eps"] == eps].groupby(place)["accuracy"].max().rename("claimed")
    left = judged[(judged["eps"] == eps) & (judged["attack"] == STRONGEST)].set_index(place)["accuracy"].rename("left")
    said = verdicts[(verdicts["eps"] == eps) & (verdicts["verdict"] != "no gain")].drop_duplicates(place)
    clean = table[table["attack"] == "clean"].set_index(place)[["images", "accuracy"]]
    found = clean.rename(columns={"accuracy": "clean"}).join(at).join(left).join(said.set_index(place)["verdict"])
    return found.astype({"left": float}).fillna({"verdict": "no gain"}).reset_index()


def by_radius(table: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """The filtered input against both attackers.

    Returns:
        A row a (panel, eps, strength): strength is the radius, infinite without a filter; images; clean; unaware and
        aware, the accuracies under PGD by the attacker who doesn't know of the filter and the one who does, the same
        without a filter; left, the accuracy after the strongest attack, NaN where that was not run.
    """
    every = pd.concat([table, judged])
    every = every[every["defense"].isin(["input", "none"])]
    every = every.assign(strength=every["strength"].where(every["defense"] == "input", float("inf")))
    wide = every.pivot(index=["panel", "strength", "images"], columns=["attack", "eps"], values="accuracy")
    rows = []
    for (panel, strength, images), row in wide.iterrows():
        for eps in sorted(set(table.loc[table["attack"] == "pgd", "eps"])):
            aware = row["pgd", eps]
            rows.append({"panel": panel, "eps": eps, "strength": strength, "images": images, "clean": row["clean", 0.0],
                         "unaware": row.get(("unaware", eps), aware) if strength < float("inf") else aware,
                         "aware": aware, "left": row.get((STRONGEST, eps), float("nan"))})  # fmt: skip
    found = pd.DataFrame(rows)
    order = found["panel"].map(list(NETWORKS).index)
    return found.assign(order=order).sort_values(["order", "strength", "eps"], ignore_index=True).drop(columns="order")


def filtered(found: pd.DataFrame) -> pd.DataFrame:
    """A reader's table of `by_radius`: clean, and for each eps both attackers and what is left in the end.

    Returns:
        Index (network, radius); "not run" where the attacks of the judgement were not.
    """
    cells = {}
    for row in found.itertuples():
        radius = "not filtered" if row.strength == float("inf") else number(row.strength)
        at = f", eps {number(row.eps)}"
        left = "not run" if pd.isna(row.left) else share(row.left, row.images)
        cells.setdefault((NETWORKS[row.panel], radius), {"clean": share(row.clean, row.images)}).update({
            f"unaware{at}": share(row.unaware, row.images), f"aware{at}": share(row.aware, row.images),
            f"left{at}": left})  # fmt: skip
    return pd.DataFrame.from_dict(cells, orient="index").rename_axis(["network", "radius"])
