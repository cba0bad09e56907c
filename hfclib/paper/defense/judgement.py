"""Whether a gain of a defense is robust or masked, by a rule that was written before the numbers.

A defense is compared with the same network without it, and a way of training with the vanilla network, on the same
images in pairs.

- "no gain": under an attack of the paper (FGSM, PGD or, for a filtered input, non-adaptive PGD) the 95 % interval of
  the difference in accuracy is not wholly above 0.
- "robust": it is, and under the strong attack on both the interval is wholly above CONTROL_GAIN.
- "attack falls short": under the strong attack it is wholly above 0, but not above CONTROL_GAIN; and any such gain of
  the logit scale, which changes no prediction and so cannot help.
- "masked": under the strong attack it is not wholly above 0: the weaker attack failed on images that can be fooled, or
  the gain that remains is too small to show.

The interval covers the draw of test images, not that of seeds.
"""

import numpy as np
import pandas as pd

from hfclib.paper.defense.setup import STRONGEST
from hfclib.paper.intervals import paired

_PLACE = ["variant", "seed", "defense", "strength"]
KEY = [*_PLACE, "eps"]
# What the strong attack leaves of the logit scale's gain, which is all due to the attack; written when it was known.
CONTROL_GAIN = 0.02
GAIN_COLUMNS = [*KEY, "attack", "baseline_variant", "accuracy", "baseline", "gain", "low", "high"]
_STRONG_COLUMNS = ["strong", "baseline_strong", "strong_gain", "strong_low", "strong_high"]


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """The gain of each defense and each way of training under each attack of the paper.

    Args:
        table: from `trials_table`.
    Returns:
        One row per (KEY, attack), columns GAIN_COLUMNS: what it is compared with, both accuracies, and their difference
        with its interval. A way of training whose vanilla network of the same seed is missing is left out.
    """
    correct = table.set_index([*_PLACE, "attack", "eps"])["correct"]
    rows = []
    for place, own in correct.items():
        variant, seed, defense, strength, attack, eps = place
        against = "vanilla" if defense == "none" else variant
        other = (against, seed, "none", 0.0, "pgd" if attack == "unaware" else attack, eps)
        if attack == "clean" or place == other or other not in correct.index:
            continue
        accuracies = np.mean(own), np.mean(correct[other])
        rows.append((variant, seed, defense, strength, eps, attack, against, *accuracies, *paired(own, correct[other])))
    return pd.DataFrame(rows, columns=GAIN_COLUMNS)


def claimed_gains(table: pd.DataFrame) -> pd.DataFrame:
    """Where the strong attack is needed: at every gain, and at what it is compared with.

    Args:
        table: from `gains`.
    Returns:
        One row per KEY.
    """
    own = table[table["low"] > 0]
    others = own.assign(variant=own["baseline_variant"], defense="none", strength=0.0)
    return pd.concat([own[KEY], others[KEY]]).drop_duplicates(ignore_index=True)


def outcomes_of_gains(table: pd.DataFrame, strong: pd.DataFrame) -> pd.DataFrame:
    """What became of each gain under the strong attack.

    Args:
        table: from `gains`.
        strong: from `strong_trials`, of all of `claimed_gains(table)`.
    Returns:
        The rows of `table` with both accuracies under the strong attack (strong, baseline_strong), their difference and
        its interval (strong_gain, strong_low, strong_high), all NaN without a gain; and outcome.
    """
    correct = strong[strong["attack"] == STRONGEST].set_index(KEY)["correct"]
    rows = []
    for gain in table.to_dict("records"):
        numbers, outcome = [np.nan] * len(_STRONG_COLUMNS), "no gain"
        if gain["low"] > 0:
            own = correct[tuple(gain[name] for name in KEY)]
            other = correct[gain["baseline_variant"], gain["seed"], "none", 0.0, gain["eps"]]
            numbers = [np.mean(own), np.mean(other), *paired(own, other)]
            least = np.inf if gain["defense"] == "scale" else CONTROL_GAIN
            outcome = "robust" if numbers[3] > least else "attack falls short" if numbers[3] > 0 else "masked"
        rows.append((*gain.values(), *numbers, outcome))
    return pd.DataFrame(rows, columns=[*table.columns, *_STRONG_COLUMNS, "outcome"])
