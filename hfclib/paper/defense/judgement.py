"""Whether a defense's gain is robustness or a masked gradient, by a rule written before the numbers.

A defense that is applied to a trained network is compared with the same network without it, and a way of training with
the vanilla network, on the same images and in pairs.

- A gain is claimed at an eps by an attack of the paper: FGSM, PGD, or, for the filtered input, PGD by an attacker
  who does not know of the filter. "no gain": the 95 % interval of claimed accuracy less the other network's under that
  attack is not wholly above 0.
- Where it is, both are put to the attacks of `long_attacks`, one after the other. "robust": the interval of
  what is right after the last, less the other network's, is wholly above 0, too. Otherwise "masked": the weaker attack
  failed on images that can be fooled nonetheless, or so few are left that their gain does not show.

The interval covers the draw of test images, not that of seeds: it speaks about these networks.
"""

from typing import Literal

import numpy as np
import pandas as pd

from hfclib.paper.intervals import paired

GainVerdict = Literal["robust", "masked", "no gain"]
NATURAL = "vanilla"
STRONGEST = "square"  # the last of `long_attacks`: its accuracy is what withstands all
_PLACE = ["variant", "seed", "defense", "strength"]
KEY = [*_PLACE, "eps"]


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What each defense and each way of training claims.

    Args:
        table: from `trials_table`.
    Returns:
        A row a (KEY, claim): claim is the attack, "fgsm", "pgd" or "unaware"; against_variant and against_defense say
        whom it is compared with; claimed and plain, the accuracies; gain, low and high, their difference. A way of
        training whose vanilla network of the same seed is missing is left out.
    """
    right = table.set_index([*_PLACE, "attack", "eps"])["right"]
    rows = []
    for place in right.index:
        variant, seed, defense, strength, attack, eps = place
        if attack == "clean" or (variant, defense) == (NATURAL, "none"):
            continue
        against = (NATURAL if defense == "none" else variant, seed, "none", 0.0)
        other = (*against, "pgd" if attack == "unaware" else attack, eps)
        if other not in right.index:
            continue
        gain, low, high = paired(right[place], right[other])
        rows.append(
            {
                "variant": variant,
                "seed": seed,
                "defense": defense,
                "strength": strength,
                "eps": eps,
                "claim": attack,
                "against_variant": against[0],
                "claimed": np.mean(right[place]),
                "plain": np.mean(right[other]),
                "gain": gain,
                "low": low,
                "high": high,
            }
        )
    columns = [*KEY, "claim", "against_variant", "claimed", "plain", "gain", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def claimed_gains(claimed: pd.DataFrame) -> pd.DataFrame:
    """What has to withstand the attacks of the judgement: every claimed gain, and what it is compared with.

    Args:
        claimed: from `gains`.
    Returns:
        A row a KEY, each once.
    """
    found = claimed[claimed["low"] > 0]
    others = found.assign(variant=found["against_variant"], defense="none", strength=0.0)
    return pd.concat([found[KEY], others[KEY]]).drop_duplicates(ignore_index=True)


def verdicts_on_gains(claimed: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """The verdicts.

    Args:
        claimed: from `gains`.
        judged: from `strong_trials`, of all of `to_judge(claimed)`.
    Returns:
        The rows of `claimed` with strongest and plain_strongest, the accuracies after the last attack, left, left_low
        and left_high, their difference, all NaN where no gain is claimed, and verdict.
    """
    right = judged[judged["attack"] == STRONGEST].set_index(KEY)["right"]
    rows = []
    for one in claimed.to_dict("records"):
        found = dict.fromkeys(["strongest", "plain_strongest", "left", "left_low", "left_high"], np.nan)
        verdict: GainVerdict = "no gain"
        if one["low"] > 0:
            own = right[tuple(one[name] for name in KEY)]
            other = right[one["against_variant"], one["seed"], "none", 0.0, one["eps"]]
            left, low, high = paired(own, other)
            found = {
                "strongest": np.mean(own),
                "plain_strongest": np.mean(other),
                "left": left,
                "left_low": low,
                "left_high": high,
            }
            verdict = "robust" if low > 0 else "masked"
        rows.append(one | found | {"verdict": verdict})
    added = ["strongest", "plain_strongest", "left", "left_low", "left_high", "verdict"]
    return pd.DataFrame(rows, columns=[*claimed.columns, *added])
