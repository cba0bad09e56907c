"""Whether a defense's gain is robustness or a masked gradient, by a rule written before the numbers.

A defense that is applied to a trained network is compared with the same network without it, and a way of training with
the vanilla network, on the same images and in pairs.

- A gain is claimed at an eps by an attack of the paper: FGSM, PGD, or, for the filtered input, PGD by an attacker
  who does not know of the filter. "no gain": the 95 % interval of claimed accuracy less the other network's under that
  attack is not wholly above 0.
- Where it is, both are put to the attacks of `defenses.long_attacks`, one after the other. "robust": the interval of
  what is right after the last, less the other network's, is wholly above 0, too. Otherwise "masked": the weaker attack
  failed on images that can be fooled nonetheless, or so few are left that their gain does not show.

The interval covers the draw of test images, not that of seeds: it speaks about these networks.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from hfclib.tables import CONFIDENCE

Verdict = Literal["robust", "masked", "no gain"]
NATURAL = "vanilla"
STRONGEST = "square"  # the last of `defenses.long_attacks`: its accuracy is what withstands all
_PLACE = ["panel", "seed", "defense", "strength"]
KEY = [*_PLACE, "eps"]


def paired(first: Sequence[bool], second: Sequence[bool]) -> tuple[float, float, float]:
    """The share of images right in the first less that in the second, on the same images: mean, low and high (95 %).

    Raises:
        ValueError: other numbers of images, or none.
    Source: Bonett and Price, 2012, whose interval for paired shares also holds where they are near 0 or 1.
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != other.shape or one.ndim != 1 or len(one) == 0:
        raise ValueError(f"expected as many images in the one as in the other, got {one.shape} and {other.shape}")
    count, up, down = len(one), int((one & ~other).sum()), int((~one & other).sum())
    plus, minus = (up + 1) / (count + 2), (down + 1) / (count + 2)
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((plus + minus - (plus - minus) ** 2) / (count + 2))
    return (up - down) / count, max(plus - minus - half, -1.0), min(plus - minus + half, 1.0)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What each defense and each way of training claims.

    Args:
        table: from `trials.table`.
    Returns:
        A row a (KEY, claim): claim is the attack, "fgsm", "pgd" or "unaware"; against_panel and against_defense say
        whom it is compared with; claimed and plain, the accuracies; gain, low and high, their difference. A way of
        training whose vanilla network of the same seed is missing is left out.
    """
    right = table.set_index([*_PLACE, "attack", "eps"])["right"]
    rows = []
    for place in right.index:
        panel, seed, defense, strength, attack, eps = place
        if attack == "clean" or (panel, defense) == (NATURAL, "none"):
            continue
        against = (NATURAL if defense == "none" else panel, seed, "none", 0.0)
        other = (*against, "pgd" if attack == "unaware" else attack, eps)
        if other not in right.index:
            continue
        gain, low, high = paired(right[place], right[other])
        rows.append({"panel": panel, "seed": seed, "defense": defense, "strength": strength, "eps": eps,
                     "claim": attack, "against_panel": against[0], "claimed": np.mean(right[place]),
                     "plain": np.mean(right[other]), "gain": gain, "low": low, "high": high})  # fmt: skip
    columns = [*KEY, "claim", "against_panel", "claimed", "plain", "gain", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def to_judge(claimed: pd.DataFrame) -> pd.DataFrame:
    """What has to withstand the attacks of the judgement: every claimed gain, and what it is compared with.

    Args:
        claimed: from `gains`.
    Returns:
        A row a KEY, each once.
    """
    found = claimed[claimed["low"] > 0]
    others = found.assign(panel=found["against_panel"], defense="none", strength=0.0)
    return pd.concat([found[KEY], others[KEY]]).drop_duplicates(ignore_index=True)


def judge(claimed: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """The verdicts.

    Args:
        claimed: from `gains`.
        judged: from `trials.judged`, of all of `to_judge(claimed)`.
    Returns:
        The rows of `claimed` with strongest and plain_strongest, the accuracies after the last attack, left, left_low
        and left_high, their difference, all NaN where no gain is claimed, and verdict.
    """
    right = judged[judged["attack"] == STRONGEST].set_index(KEY)["right"]
    rows = []
    for one in claimed.to_dict("records"):
        found = dict.fromkeys(["strongest", "plain_strongest", "left", "left_low", "left_high"], np.nan)
        verdict: Verdict = "no gain"
        if one["low"] > 0:
            own = right[tuple(one[name] for name in KEY)]
            other = right[one["against_panel"], one["seed"], "none", 0.0, one["eps"]]
            left, low, high = paired(own, other)
            found = {"strongest": np.mean(own), "plain_strongest": np.mean(other), "left": left, "left_low": low,
                     "left_high": high}  # fmt: skip
            verdict = "robust" if low > 0 else "masked"
        rows.append(one | found | {"verdict": verdict})
    added = ["strongest", "plain_strongest", "left", "left_low", "left_high", "verdict"]
    return pd.DataFrame(rows, columns=[*claimed.columns, *added])
