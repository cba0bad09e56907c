"""Tables of the chapter on defenses: every cell, what was claimed and what is left of it, and the filtered input.

All take the trials of one seed a network: `table` is from `trials_table`, `judged` from `strong_trials`, and `verdicts`
from `verdicts_on_gains`. Cells are text, with as many decimals as the number of images supports.
"""

from collections.abc import Sequence

import pandas as pd
from IPython.display import Markdown

from hfclib.paper.defense.judgement import STRONGEST
from hfclib.paper.defense.setup import Defense, long_attacks
from hfclib.paper.published import table2_value
from hfclib.paper.show import listed
from hfclib.paper.tables import decimals

DEFENSE_TITLES = {
    "vanilla": "Vanilla",
    "penalised": "Penalised",
    "adversarial": "Adversarial",
    "adversarial_batchnorm": "Adversarial, BatchNorm",
}
ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "unaware": "PGD, unaware"}
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
    "input": "input without HFC, attacker aware",
}
_CHAIN = [attack.method for attack in long_attacks(0.0, 1)]
_ENOUGH = 2500  # images, of which a share has a standard error of at most .01


def number_text(value: float) -> str:
    """A strength or an eps as it is written here: "1", "8", ".1", ".03"."""
    text = f"{value:g}"
    return text.removeprefix("0") if text.startswith("0.") else text


def defense_title(defense: Defense) -> str:
    """A defense in words, such as "rule, rho = 1" or "input without HFC, r = 8"."""
    strength = 1 + 8 * defense.strength if defense.method == "scale" else defense.strength
    return _METHODS[defense.method].format(number_text(strength))


def _names_of(row: object) -> tuple[str, str]:
    return DEFENSE_TITLES[row.variant], defense_title(Defense(row.defense, row.strength))


def share_text(accuracy: float, images: int) -> str:
    """An accuracy on a number of images: two decimals, three from 2,500 images on."""
    exact = round(accuracy * images) / images  # in 64 bits, so that equal accuracies are rounded alike
    return decimals(exact, 3 if images >= _ENOUGH else 2)


def table2_rows(table: pd.DataFrame, methods: Sequence[str] = ()) -> pd.DataFrame:
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
        columns[row.attack, row.eps] = f"{ATTACKS[row.attack]}, eps {number_text(row.eps)}"
    for row in table[shown].itertuples():
        paper = table2_value(row.variant, row.defense, row.strength, row.attack, row.eps)
        text = share_text(row.accuracy, row.images) + (f" (paper {decimals(paper.value)})" if paper else "")
        column = columns["clean" if row.attack == "clean" else (row.attack, row.eps)]
        found.setdefault(_names_of(row), {})[column] = text
    frame = pd.DataFrame.from_dict(found, orient="index")
    return frame[list(columns.values())].rename_axis(["network", "defense"])


def attack_chain(judged: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """A row a claimed gain: what was claimed, and what is left after each attack of the judgement.

    Returns:
        Index (network, defense, eps); the attack under which a gain is claimed, the accuracy with the defense and
        without, what is left after each of the judgement's attacks with the defense and, after the last, without, and
        the verdict. A way of training (defense "none") is compared with the vanilla network, which is "without".
    """
    key = ["variant", "defense", "strength", "eps", "attack"]
    left = judged.set_index(key)["accuracy"]
    rows = []
    for one in verdicts[verdicts["verdict"] != "no gain"].itertuples():
        network, defense = _names_of(one)
        images = int(judged["images"].iloc[0])
        place = (one.variant, one.defense, one.strength, one.eps)
        rows.append(
            {
                "network": network,
                "defense": defense,
                "eps": number_text(one.eps),
                "under": ATTACKS[one.claim],
                "claimed": share_text(one.claimed, images),
                "without": share_text(one.plain, images),
            }
            | {f"after {method}": share_text(left[*place, method], images) for method in _CHAIN}
            | {"without, after all": share_text(one.plain_strongest, images), "verdict": one.verdict}
        )
    columns = [
        "network",
        "defense",
        "eps",
        "under",
        "claimed",
        "without",
        *(f"after {method}" for method in _CHAIN),
        "without, after all",
        "verdict",
    ]
    return pd.DataFrame(rows, columns=columns).set_index(["network", "defense", "eps"])


def _kind(row: object) -> str:
    if row.defense == "none":
        return f"trained: {DEFENSE_TITLES[row.variant]}"
    return "input without HFC, attacker unaware" if row.claim == "unaware" else _KINDS[row.defense]


def verdict_counts(verdicts: pd.DataFrame) -> pd.DataFrame:
    """How often each verdict was given: a row a kind of defense, over networks, strengths, attacks and eps."""
    kinds = [_kind(row) for row in verdicts.itertuples()]
    order = [
        *_KINDS.values(),
        "input without HFC, attacker unaware",
        *(f"trained: {one}" for one in DEFENSE_TITLES.values()),
    ]
    found = pd.crosstab(pd.Series(kinds, name="defense", dtype=str), pd.Series(verdicts["verdict"].tolist(), dtype=str))
    names = ["no gain", "masked", "robust"]
    found = found.reindex(index=[kind for kind in order if kind in found.index], columns=names, fill_value=0)
    return found.assign(compared=found.sum(axis=1))[["compared", *names]].rename_axis(columns=None)


def claimed_and_left(table: pd.DataFrame, judged: pd.DataFrame, verdicts: pd.DataFrame, eps: float) -> pd.DataFrame:
    """What each defense claims at one eps, and what is left of it.

    Returns:
        A row a (variant, defense, strength): images; clean; claimed, the highest accuracy under one of the paper's
        attacks; left, the accuracy after the strongest attack, NaN where that was not run; verdict, "robust", "masked"
        or "no gain", which the vanilla network without a defense has as well.
    """
    place = ["variant", "defense", "strength"]
    at = table[table["eps"] == eps].groupby(place)["accuracy"].max().rename("claimed")
    left = judged[(judged["eps"] == eps) & (judged["attack"] == STRONGEST)].set_index(place)["accuracy"].rename("left")
    said = verdicts[(verdicts["eps"] == eps) & (verdicts["verdict"] != "no gain")].drop_duplicates(place)
    clean = table[table["attack"] == "clean"].set_index(place)[["images", "accuracy"]]
    found = clean.rename(columns={"accuracy": "clean"}).join(at).join(left).join(said.set_index(place)["verdict"])
    return found.astype({"left": float}).fillna({"verdict": "no gain"}).reset_index()


def filter_by_radius(table: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """The filtered input against both attackers.

    Returns:
        A row a (variant, eps, strength): strength is the radius, infinite without a filter; images; clean; unaware and
        aware, the accuracies under PGD by the attacker who doesn't know of the filter and the one who does, the same
        without a filter; left, the accuracy after the strongest attack, NaN where that was not run.
    """
    every = pd.concat([table, judged])
    every = every[every["defense"].isin(["input", "none"])]
    every = every.assign(strength=every["strength"].where(every["defense"] == "input", float("inf")))
    wide = every.pivot(index=["variant", "strength", "images"], columns=["attack", "eps"], values="accuracy")
    rows = []
    for (variant, strength, images), row in wide.iterrows():
        for eps in sorted(set(table.loc[table["attack"] == "pgd", "eps"])):
            aware = row["pgd", eps]
            rows.append(
                {
                    "variant": variant,
                    "eps": eps,
                    "strength": strength,
                    "images": images,
                    "clean": row["clean", 0.0],
                    "unaware": row.get(("unaware", eps), aware) if strength < float("inf") else aware,
                    "aware": aware,
                    "left": row.get((STRONGEST, eps), float("nan")),
                }
            )
    found = pd.DataFrame(rows)
    order = found["variant"].map(list(DEFENSE_TITLES).index)
    return found.assign(order=order).sort_values(["order", "strength", "eps"], ignore_index=True).drop(columns="order")


def filter_table(found: pd.DataFrame) -> pd.DataFrame:
    """A reader's table of `by_radius`: clean, and for each eps both attackers and what is left in the end.

    Returns:
        Index (network, radius); "not run" where the attacks of the judgement were not.
    """
    cells = {}
    for row in found.itertuples():
        radius = "not filtered" if row.strength == float("inf") else number_text(row.strength)
        at = f", eps {number_text(row.eps)}"
        left = "not run" if pd.isna(row.left) else share_text(row.left, row.images)
        cells.setdefault((DEFENSE_TITLES[row.variant], radius), {"clean": share_text(row.clean, row.images)}).update(
            {
                f"unaware{at}": share_text(row.unaware, row.images),
                f"aware{at}": share_text(row.aware, row.images),
                f"left{at}": left,
            }
        )
    return pd.DataFrame.from_dict(cells, orient="index").rename_axis(["network", "radius"])


def scale_story(table: pd.DataFrame) -> Markdown:
    """The paper's rule beside the same divided by its gain and the logits alone multiplied by it, in words.

    Args:
        table: from `trials_table`, of one seed; its smallest eps and largest rho are taken.
    """
    attacked = table[(table["attack"] == "pgd") & (table["eps"] == table.loc[table["attack"] == "pgd", "eps"].min())]
    rho = attacked.loc[attacked["defense"] == "rule", "strength"].max()
    lines = []
    for variant in dict.fromkeys(attacked["variant"]):
        own = attacked[
            (attacked["variant"] == variant) & ((attacked["defense"] == "none") | (attacked["strength"] == rho))
        ]
        left = {row.defense: share_text(row.accuracy, row.images) for row in own.itertuples()}
        lines.append(
            f"- {DEFENSE_TITLES[variant]}: {left['none']} without a defense; {left['rule']} under the rule as printed, "
            f"{left['normalised']} under the rule divided by its gain; {left['scale']} with no kernel changed and the "
            f"logits multiplied by {number_text(1 + 8 * rho)}."
        )
    head = f"Accuracy under PGD at eps {number_text(attacked['eps'].iloc[0])}, rho = {number_text(rho)}:"
    return listed(head, lines)


def filter_story(found: pd.DataFrame, radius: float = 8.0) -> Markdown:
    """What filtering the input is worth against an attacker who doesn't know of it and one who does, in words.

    Args:
        found: from `filter_by_radius`; its smallest eps is taken.
        radius: of the filter.
    """
    rows = found[found["eps"] == found["eps"].min()].set_index(["variant", "strength"])
    lines = []
    for variant in dict.fromkeys(found["variant"]):
        one, plain = rows.loc[(variant, radius)], rows.loc[(variant, float("inf"))]
        images = int(one["images"])
        unaware, aware, plain_aware = (share_text(x, images) for x in (one["unaware"], one["aware"], plain["aware"]))
        left = f", {share_text(one['left'], images)} after the strongest attack" if pd.notna(one["left"]) else ""
        lines.append(
            f"- {DEFENSE_TITLES[variant]}: {plain_aware} without the filter; {unaware} against an attacker who doesn't "
            f"know of it; against one who does {aware}{left}. On clean images "
            f"{share_text(plain['clean'], images)} without and {share_text(one['clean'], images)} with it."
        )
    head = f"Accuracy under PGD at eps {number_text(found['eps'].min())}, r = {number_text(radius)}:"
    return listed(head, lines)


def verdict_story(verdicts: pd.DataFrame, images: int) -> Markdown:
    """How many gains were claimed, what became of them, and which withstood, in words.

    Args:
        verdicts: from `verdicts_on_gains`, of one seed.
        images: behind each accuracy.
    """
    count = verdicts["verdict"].value_counts()
    masked, robust = (int(count.get(one, 0)) for one in ("masked", "robust"))
    head = (
        f"Comparisons: {len(verdicts)}. Without a gain: {len(verdicts) - masked - robust}. With a claimed gain: "
        f"{masked + robust}, of which masked {masked}, robust {robust}."
    )
    stands = verdicts[verdicts["verdict"] == "robust"].drop_duplicates(["variant", "defense", "strength", "eps"])
    lines = []
    for row in stands.itertuples():
        what = "as trained" if row.defense == "none" else defense_title(Defense(row.defense, row.strength))
        against = DEFENSE_TITLES[row.against_variant] if row.defense == "none" else "without it"
        lines.append(
            f"- {DEFENSE_TITLES[row.variant]}, {what}, eps {number_text(row.eps)}: "
            f"{share_text(row.strongest, images)} after the strongest attack "
            f"({against}: {share_text(row.plain_strongest, images)})."
        )
    return listed(head, lines)
